"""Queries: expressions over the columns of a table, which select rows and can do nothing else.

A query has the meaning that `pandas.DataFrame.query` gives it, but `pandas` would also run programs for it.
"""

import ast
import operator
import re
import warnings
from functools import reduce

from zoolib.job.logs import UserError

# Parts besides texts and numbers, and characters; nobody writes as many, and more could take very long.
MOST, LONGEST = 500, 100_000
# Whole numbers that columns can hold.
LARGEST = 2**63
BOTH = {ast.And: operator.and_, ast.Or: operator.or_}
NOT = (ast.Not, ast.Invert)
SIGNS = {ast.USub: operator.neg, ast.UAdd: operator.pos}
ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
METHODS = ("isin", "isna", "notna", "between")
OF_TEXT = ("contains", "startswith", "endswith", "match", "fullmatch", "lower", "upper", "strip", "len")
ALLOWED = (
    "comparisons, arithmetic, and, or, not, in, names of columns, numbers, texts, lists of these, and the"
    f" methods {', '.join(METHODS)} and str.{', str.'.join(OF_TEXT)}"
)
BACKTICKS = "names with a hyphen or a space, and words of Python such as class, need backticks"
# Texts and comments, in which nothing has a meaning; then what pandas reads in another way than Python.
PIECES = re.compile(
    r"""(?P<triple>'''|\""")|(?P<text>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")|(?P<comment>\#[^\n]*)"""
    r"""|`(?P<column>(?:[^`]|``)+)`|(?P<both>[&|])|(?P<local>@[\w.]*)"""
)
COLUMN = "column_{}_in_backticks"
# Kinds of NumPy's types that are numbers or times.
NUMBERS = "biufcmM"


class Query:
    """An expression that has been read and checked, before any table is there.

    Args:
        text: comparisons, arithmetic, `and`, `or`, `not`, `in`, columns (`in backticks` too), numbers, texts,
            lists and some methods; `&` and `|` mean `and` and `or`, as in pandas.
        key: the configuration's key, for error messages.

    Attributes:
        columns: names of the columns that it uses.

    Raises:
        UserError: the text is no expression, is too long, or contains anything else.
    """

    def __init__(self, text, key):
        self.text, self.key, self._quoted = text, key, {}
        if len(text) > LONGEST:
            raise UserError(
                f"{key}: has {len(text)} characters, expected at most {LONGEST}; shorten the query."
            )
        plain = PIECES.sub(self._plain, text).strip()
        try:
            with warnings.catch_warnings():
                # Python warns of '\d', which is right in a pattern.
                warnings.simplefilter("ignore")
                tree = ast.parse(plain, mode="eval").body
        # Python ends with the last two where parts are inside parts too deeply; a null byte is a ValueError.
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = _line(getattr(error, "msg", error)) or "too many parts"
            raise UserError(
                f"{key}: pandas cannot apply '{_line(text)}' ({reason}); fix the expression; {BACKTICKS}."
            ) from None
        parts = sum(isinstance(node, ast.expr) and not _is_constant(node) for node in ast.walk(tree))
        if parts > MOST:
            raise UserError(f"{key}: has {parts} parts, expected at most {MOST}; shorten the query.")
        names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
        self.columns = {self._quoted.get(name, name) for name in names}
        try:
            self._of = self._checked(tree)
        except RecursionError:
            raise UserError(f"{key}: has too many parts inside each other; shorten the query.") from None

    def __str__(self):
        return _line(self.text)

    def rows(self, table):
        """The value of the query for each row.

        Args:
            table: a data frame.

        Returns:
            A Series, or a single value where the query names no column.

        Raises:
            Exception: of any kind: whatever the columns do not allow.
        """
        return self._of(table)

    def _plain(self, found):
        """A piece of the query as Python reads it."""
        kind, piece = found.lastgroup, found[0]
        if kind in ("local", "triple"):
            raise self._refused(piece)
        if kind == "column":
            # The same name for the same column: the message about it may show it.
            name = COLUMN.format(len(self._quoted))
            self._quoted[name] = found["column"].replace("``", "`")
            return name
        # As pandas does: in Python itself, & comes before a comparison.
        return {"both": " and " if piece == "&" else " or ", "comment": ""}.get(kind, piece)

    def _shown(self, part):
        text = part if isinstance(part, str) else ast.unparse(part)
        for name, column in self._quoted.items():
            text = re.sub(rf"\b{name}\b", lambda _, column=column: f"`{column}`", text)
        return _line(text)

    def _refused(self, part):
        return UserError(
            f"{self.key}: '{self._shown(part)}' is not allowed in a query, expected {ALLOWED}; fix the query."
        )

    def _checked(self, node):
        """What an allowed part does, as a function of the table; anything else is refused."""
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return lambda table: value
            case ast.Name(id=name):
                name = self._quoted.get(name, name)
                return lambda table: _column(table, name)
            case ast.List(elts=entries) | ast.Tuple(elts=entries) if all(map(_is_constant, entries)):
                entries = [self._checked(entry) for entry in entries]
                return lambda table: [entry(table) for entry in entries]
            case ast.BoolOp(op=op, values=values):
                values = [self._truth(value) for value in values]
                return lambda table: reduce(BOTH[type(op)], (value(table) for value in values))
            case ast.UnaryOp(op=op, operand=operand) if isinstance(op, NOT):
                operand = self._truth(operand)
                return lambda table: ~operand(table)
            case ast.UnaryOp(op=op, operand=operand):
                operand = self._checked(operand)
                return lambda table: SIGNS[type(op)](operand(table))
            case ast.BinOp(op=op, left=left, right=right) if type(op) in ARITHMETIC:
                left, right = self._checked(left), self._checked(right)
                return lambda table: self._calculated(node, left(table), right(table))
            case ast.Compare(left=left, ops=ops, comparators=others):
                if all(type(op) in (*COMPARISONS, ast.In, ast.NotIn) for op in ops):
                    sides = [self._checked(side) for side in (left, *others)]
                    return lambda table: _compared(ops, [side(table) for side in sides])
            case ast.Call(func=ast.Attribute(value=owner, attr=method), args=given, keywords=named):
                return self._method(node, owner, method, given, named)
        raise self._refused(node)

    def _truth(self, node):
        """What a part of `and`, `or` and `not` does: pandas would combine the bits of numbers."""
        value = self._checked(node)

        def checked(table):
            found = value(table)
            if _is_column(found) and found.dtype.kind in "bO":
                return found
            raise TypeError(f"'{self._shown(node)}' is not true or false, expected a comparison")

        return checked

    def _calculated(self, node, left, right):
        """The result of arithmetic; never of text or of huge numbers, which could fill the memory."""
        op = ARITHMETIC[type(node.op)]
        for value in (left, right):
            if isinstance(value, str | list) or (_is_column(value) and value.dtype.kind not in NUMBERS):
                raise TypeError(f"'{self._shown(node)}' is arithmetic with text, expected numbers")
        whole = isinstance(left, int) and isinstance(right, int)
        if whole and abs(op(float(left), float(right))) >= LARGEST:
            raise OverflowError(f"'{self._shown(node)}' is too large a number")
        return op(left, right)

    def _method(self, node, owner, method, given, named):
        """What an allowed method of a column does, as a function of the table."""
        of_text = isinstance(owner, ast.Attribute) and owner.attr == "str"
        if method not in (OF_TEXT if of_text else METHODS) or any(entry.arg is None for entry in named):
            raise self._refused(node)
        owner = self._checked(owner.value if of_text else owner)
        given = [self._checked(value) for value in given]
        named = {entry.arg: self._checked(entry.value) for entry in named}

        def call(table):
            values = [value(table) for value in given], {key: value(table) for key, value in named.items()}
            found = owner(table).str if of_text else owner(table)
            return getattr(found, method)(*values[0], **values[1])

        return call


def _line(text):
    text = " ".join(str(text).split())
    return text if len(text) <= 100 else f"{text[:97]}…"


def _is_constant(node):
    signed = isinstance(node, ast.UnaryOp) and type(node.op) in (ast.USub, ast.UAdd)
    return isinstance(node.operand if signed else node, ast.Constant)


def _is_column(value):
    return hasattr(value, "isin")


def _column(table, name):
    if name not in table.columns:
        raise LookupError(f"it has no column '{name}'")
    found = table[name]
    if found.ndim > 1:
        raise ValueError(f"two columns are called '{name}'")
    return found


def _compared(ops, sides):
    """Each side with the next one, as Python chains comparisons."""
    pairs = zip(ops, sides, sides[1:], strict=False)
    return reduce(operator.and_, (_pair(type(op), left, right) for op, left, right in pairs))


def _pair(op, left, right):
    # To pandas, equal to a list is being one of it; and x in column is the same as column in [x].
    among = op in (ast.In, ast.NotIn)
    if isinstance(left, list) or (among and not _is_column(left)):
        left, right = right, left if isinstance(left, list) else [left]
    if not among and not (isinstance(right, list) and op in (ast.Eq, ast.NotEq)):
        return COMPARISONS[op](left, right)
    found = left.isin(right)
    return ~found if op in (ast.NotIn, ast.NotEq) else found
