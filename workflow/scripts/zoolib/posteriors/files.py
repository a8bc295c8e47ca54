"""Files of predictions (HDF5 in Zoobot's layout): read and describe them."""

import contextlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoolib.config.labels import Label
from zoolib.config.trees import DecisionTree
from zoolib.job.logs import UserError, check_machine, log, progress, whole
from zoolib.posteriors import label_calibration, recalibration
from zoolib.posteriors.described import check_described, checksum, unreadable
from zoolib.posteriors.parts import (
    DAMAGED,
    PART,
    attributes,
    check_parts,
    check_together,
    is_sealed,
    is_stamped,
    part_of,
    smallest,
)
from zoolib.posteriors.summary import describe
from zoolib.posteriors.unfamiliar import read_unfamiliar
from zoolib.posteriors.with_votes import describe_with_votes, votes_to_use

# Galaxies in memory at once, for each thread.
BLOCK = 512
# Weights are in single precision: this far may their sum be from 1.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Predictions:
    """An open file of predictions.

    Attributes:
        path: the file.
        kind: what its numbers are, `concentrations`, `probabilities`, `values` of any sign, or `mixed`.
        tree: the `DecisionTree`; None if the predictions are for labels.
        columns: names of the answers or labels, in the order of the second axis.
        id_str: (galaxies,) names of the galaxies.
        values: the HDF5 dataset (galaxies, answers, components). The components of a sample are neighbours.
        labels: plain values of each `Label` of a finetuned task; None if the file does not name them.
        weights: the HDF5 dataset (galaxies, questions, components); None if all components are equal.
        per_sample: components of one sample (a member's view and dropout draw) in what `blocks` yields.
        recalibrations: what corrects the numbers of each member; None if all stay as they were predicted.
    """

    path: str
    kind: str
    tree: DecisionTree | None
    columns: list
    id_str: np.ndarray
    values: h5py.Dataset
    labels: list | None = None
    weights: h5py.Dataset | None = None
    per_sample: int = 1
    recalibrations: list | None = None

    def blocks(self, size=BLOCK, scatter=True):
        """Read the galaxies in order, a block at a time.

        Args:
            size: galaxies in a block.
            scatter: whether the recalibrated numbers of labels have the scatter of their residuals; without
                it they differ only as the samples of the model do.

        Yields:
            (slice of the galaxies, (galaxies, answers, components) float64, weights (galaxies, questions,
            components) whose sum is 1 for each question, or None if all components are equal).

        Raises:
            UserError: a number that no model predicts, for example because a part of the file is missing.
        """
        for start in range(0, len(self.id_str), size):
            rows = slice(start, min(start + size, len(self.id_str)))
            values = self._read(self.values, rows)
            good = np.isfinite(values) & (values >= smallest(self.kind, self.labels))
            if not good.all():
                galaxy, answer, sample = np.argwhere(~good)[0]
                raise UserError(
                    f"{self.path}: sample {sample} of '{self.columns[answer]}' for galaxy"
                    f" '{self.id_str[start + galaxy]}' is {values[galaxy, answer, sample]:g}, expected a"
                    f" {'' if self.kind == 'values' else 'positive '}number; a part of the predictions is"
                    " missing or broken, so predict it again."
                )
            weights = None if self.weights is None else self._read_weights(rows)
            if self.recalibrations and self.tree:
                stored = self.per_sample // recalibration.pieces(self.recalibrations)
                values, weights, _ = recalibration.apply(
                    self.recalibrations, values, weights, self.tree, stored
                )
            elif self.recalibrations:
                members = self.recalibrations
                members = members if scatter else label_calibration.tempered_only(members)
                values = label_calibration.apply(members, values, self.named_labels)
            yield rows, values, weights

    @property
    def named_labels(self):
        """The list of `Label` that the predictions are for; None if the file does not name them."""
        return [Label.from_dict(label) for label in self.labels] if self.labels else None

    @property
    def bounds(self):
        """Lowest and highest possible values (columns,) of recalibrated labels; None without any."""
        if self.tree or not self.recalibrations:
            return None
        return label_calibration.bounds_of(self.recalibrations, self.named_labels)

    @property
    def recalibrated(self):
        """{question or label: the kind of correction of each member}; {} if no member has a recalibration."""
        found = self.recalibrations or []
        names = dict.fromkeys(name for one in found for name in one or {})
        return {name: [one[name]["kind"] if one else "leave" for one in found] for name in names}

    def _read_weights(self, rows):
        weights = self._read(self.weights, rows)
        total = weights.sum(axis=2, keepdims=True)
        good = (weights.min(axis=2) >= 0) & (np.abs(total[:, :, 0] - 1) < TOLERANCE)
        if not good.all():
            galaxy, question = np.argwhere(~good)[0]
            raise UserError(
                f"{self.path}: weights of '{self.tree.questions[question].name}' for galaxy"
                f" '{self.id_str[rows.start + galaxy]}' are negative or sum to {total[galaxy, question, 0]:g}"
                ", expected 1; a part of the predictions is missing or broken, so predict it again."
            )
        return weights / total

    def _read(self, dataset, rows):
        try:
            return dataset[rows].astype(float)
        except OSError as error:
            check_machine(error, self.path)
            reason = " ".join(str(error).split())
            raise UserError(
                f"{self.path}: the numbers of the galaxies {rows.start} to {rows.stop - 1} cannot be read"
                f" ({reason}); this file, or its part in chunks/, is damaged: delete it and predict again."
            ) from None

    def map(self, function, threads=1, scatter=True):
        """Apply a function to all galaxies, a block at a time.

        Args:
            function: called with what `blocks` yields, (slice of the galaxies, values, weights).
            threads: blocks that are in memory, and processed, at once.
            scatter: as for `blocks`.

        Yields:
            The results of the function, in the order of the galaxies.

        Raises:
            UserError: see `blocks`.
        """
        blocks = self.blocks(scatter=scatter)
        with ThreadPoolExecutor(threads) as pool:
            while some := list(itertools.islice(blocks, threads)):
                yield from pool.map(lambda block: function(*block), some)


@contextlib.contextmanager
def open_predictions(path, recalibrations=None, pooled=True):
    """Open a file of predictions.

    Args:
        path: HDF5 with the datasets `predictions`, `id_str` and `label_cols`; it may be virtual.
        recalibrations: files `recalibration.json` of members, in any order; `blocks` then yields corrected
            numbers. Without them it yields what the models predicted.
        pooled: False keeps the samples of a member apart where a recalibration makes them one.

    Yields:
        `Predictions`.

    Raises:
        UserError: there is no such file, it is not HDF5, a dataset is missing, one of the files that a
            virtual file refers to is missing or another one, or a recalibration is of another model.
    """
    try:
        if not is_stamped(path):
            raise OSError("its bytes are not those that were written")
        file = h5py.File(path, "r")
    except OSError as error:
        check_machine(error, path)
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as predictions in HDF5 ({reason}); predict again.") from None
    with file:
        try:
            opened = _read_about(path, file)
            check_parts(path, file)
        except DAMAGED as error:
            check_machine(error, path)
            reason = " ".join(str(error).split())
            raise UserError(f"{path}: the predictions are damaged ({reason}); predict again.") from None
        if recalibrations:
            found = recalibration.of_predictions(recalibrations, opened, attributes(file), pooled)
            several = opened.per_sample * (recalibration.pieces(found) if opened.tree else 1)
            opened = replace(opened, recalibrations=found, per_sample=several)
        yield opened


def _read_about(path, file):
    """What a file of predictions says, except for its numbers."""
    missing = {"predictions", "id_str", "label_cols"} - set(file)
    if missing:
        raise UserError(
            f"{path}: the dataset '{min(missing)}' is missing, found {', '.join(file) or 'none'};"
            " predictions have predictions, id_str and label_cols."
        )
    about = attributes(file)
    kind, content = about.get("kind", "concentrations"), json.loads(about.get("tree", "null"))
    if kind == "concentrations" and content is None:
        raise UserError(f"{path}: the attribute 'tree' is missing; predict again with this project.")
    tree = DecisionTree.from_dict(content, path) if content else None
    columns = [str(name) for name in file["label_cols"].asstr()[:]]
    if tree and columns != tree.columns:
        raise UserError(
            f"{path}: label_cols ({', '.join(columns[:3])}, …) are not the answers of its tree"
            f" ({', '.join(tree.columns[:3])}, …); predict again with this project."
        )
    names, values, weights = file["id_str"].asstr()[:], file["predictions"], file.get("weights")
    if not is_sealed(file):
        raise UserError(f"{path}: the attributes are damaged, their checksum is wrong; predict again.")
    if values.ndim != 3 or values.shape[:2] != (len(names), len(columns)):
        raise UserError(
            f"{path}: the predictions have the shape {values.shape}, expected ({len(names)}, {len(columns)},"
            " samples), as there are names and answers; predict again."
        )
    per_sample, shape = about.get("components"), None if weights is None else weights.shape
    expected = (len(names), len(tree.questions), values.shape[2]) if per_sample else None
    if shape != expected or values.shape[2] % (per_sample or 1):
        raise UserError(f"{path}: its weights have the shape {shape}, expected {expected}; predict again.")
    return Predictions(
        str(path),
        kind,
        tree,
        columns,
        names,
        values,
        json.loads(about.get("labels", "null")),
        weights,
        per_sample or 1,
    )


def describe_posteriors(
    predictions, output, credible_level, cuts=(), threads=1, recalibrations=None, votes=()
):
    """Write the flat catalogue: `summary.describe`, `unfamiliar`, and the columns of `with_votes`.

    Args:
        predictions: HDF5 of predictions.
        output: Parquet to write; its metadata have kind, credible_level, tree, recalibrated (see
            `Predictions.recalibrated`) and which part it is.
        credible_level: mass of the intervals, between 0 and 1.
        cuts: `DecisionTree.cuts` to apply.
        threads: blocks of galaxies that are processed at once.
        recalibrations: files of the members to correct the predictions by.
        votes: tables of votes that update the posteriors (see `with_votes.votes_to_use`).

    Raises:
        UserError: the predictions, or the votes, cannot be read.
    """
    with open_predictions(predictions, recalibrations) as opened, whole(output) as partial:
        if cuts and opened.tree and not any(set(cut.answers) <= set(opened.columns) for cut in cuts):
            log.info("no suggested cut is on answers of '%s', so the table has none", opened.tree.name)

        strange, votes = read_unfamiliar(opened.values.file), votes_to_use(opened, votes)

        def table_of(rows, values, weights):
            described = describe(opened.id_str[rows], values, opened, credible_level, cuts, weights)
            described = described.assign(unfamiliar=strange[rows])
            table = pa.Table.from_pandas(described, preserve_index=False)
            if votes is not None:
                updated = describe_with_votes(votes[rows], values, opened.tree, credible_level, weights)
                for name, column in updated.items():
                    table = table.append_column(name, pa.array(column, from_pandas=True))
            return table

        nothing = [data if data is None else data[:0] for data in (opened.values, opened.weights)]
        empty = table_of(slice(0, 0), *nothing)
        about = {"kind": opened.kind, "credible_level": str(credible_level)}
        about |= {"tree": json.dumps(opened.tree.to_dict())} if opened.tree else {}
        about |= {"recalibrated": json.dumps(opened.recalibrated)} if opened.recalibrated else {}
        part = part_of(opened.values.file)
        about |= {"part": json.dumps({name: part[name] for name in PART if name in part})}
        about |= {"checksum": checksum(about, empty.schema.names)}
        schema = empty.schema.set(0, pa.field("id_str", pa.string())).with_metadata(about)
        with (
            pq.ParquetWriter(partial, schema, write_page_checksum=True) as writer,
            progress(None, "describing posteriors", total=len(opened.id_str)) as meter,
        ):
            for table in opened.map(table_of, threads):
                writer.write_table(table.cast(schema))
                meter.update(len(table))
    log.info("%s: posteriors of %d galaxies", output, len(opened.id_str))


def read_described(parts, columns=None):
    """Read a flat catalogue that `describe_posteriors` wrote.

    Args:
        parts: its Parquet files, one for each chunk; or one of them.
        columns: columns to read beside id_str, e.g. ["bar_asked"]; all of them if None.

    Returns:
        (pandas.DataFrame, {"tree": a `DecisionTree`, or None if it describes labels,
        "credible_level": mass of the intervals}).

    Raises:
        UserError: a file is not such a catalogue, or the parts are of different models, settings or lists.
    """
    tables, described = [], {}
    for part in parts:
        try:
            names = None if columns is None else ["id_str", *columns]
            tables.append(pq.read_table(part, columns=names, page_checksum_verification=True))
            described[part] = check_described(part, pq.read_schema(part))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise unreadable(part, error) from None
    if len(parts) > 1:
        check_together(described)
    about = tables[0].schema.metadata
    tree = DecisionTree.from_dict(json.loads(about[b"tree"]), parts[0]) if b"tree" in about else None
    table = pa.concat_tables(tables).to_pandas()
    return table, {"tree": tree, "credible_level": float(about[b"credible_level"])}
