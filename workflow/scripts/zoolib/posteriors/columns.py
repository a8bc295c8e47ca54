"""What the columns of a flat catalogue mean: descriptions, units and UCDs for tables of astronomers."""

from typing import NamedTuple


class Column(NamedTuple):
    """What a column means.

    Attributes:
        description: a sentence without a full stop.
        unit: as VOUnits has it, "" for none.
        ucd: as UCD1+ has it (https://www.ivoa.net/documents/UCD1+/), "" for none.
    """

    description: str
    unit: str = ""
    ucd: str = ""


# Columns of the input that are carried along, by their usual names.
KNOWN = {
    "id_str": Column("name of the galaxy", ucd="meta.id;meta.main"),
    "ra": Column("right ascension", "deg", "pos.eq.ra;meta.main"),
    "dec": Column("declination", "deg", "pos.eq.dec;meta.main"),
    "redshift": Column("redshift", ucd="src.redshift"),
    "file_loc": Column("file of the image", ucd="meta.ref"),
    "archive": Column("zip that has the image", ucd="meta.ref"),
    "member": Column("path of the image in its zip", ucd="meta.ref"),
    "unfamiliar": Column(
        "share of the validation galaxies that are nearer to the training galaxies; above 0.99 the galaxy is"
        " unlike the training set",
        ucd="stat.probability",
    ),
}
# Endings of the names of columns, the longest first.
ENDINGS = {
    "_fraction_with_votes_low": (
        "lower end of the {level} credible interval after the galaxy's own votes",
        "stat.min",
    ),
    "_fraction_with_votes_high": (
        "upper end of the {level} credible interval after the galaxy's own votes",
        "stat.max",
    ),
    "_fraction_with_votes": ("expected vote fraction after the galaxy's own votes", "stat.mean"),
    "_fraction": ("expected vote fraction, the mean of the posterior", "stat.mean"),
    "_hd_low": ("lower end of the {level} highest-density interval", "stat.min"),
    "_hd_high": ("upper end of the {level} highest-density interval", "stat.max"),
    "_low": ("lower end of the {level} credible interval", "stat.min"),
    "_high": ("upper end of the {level} credible interval", "stat.max"),
    "_asked": ("expected share of the volunteers who reach this question", "stat.mean"),
    "_entropy": ("how undecided the answer is, the entropy of the expected fractions in nats", "stat.value"),
}
MORPHOLOGY = "src.morph.type"


def meanings(names, level):
    """What the columns of a flat catalogue mean.

    Args:
        names: of its columns; other names are those of columns of the input.
        level: mass of the intervals.

    Returns:
        {name: `Column`}.
    """
    return {name: KNOWN.get(name) or _meaning(name, set(names), f"{100 * level:g} %") for name in names}


def _meaning(name, names, mass):
    if name.startswith("cut_"):
        return Column(
            f"whether the galaxy passes the cut '{name[4:]}' that the tree suggests", ucd="meta.code"
        )
    for ending, (text, ucd) in ENDINGS.items():
        subject = name.removesuffix(ending)
        if subject != name and {f"{subject}_fraction", f"{subject}_hd_low", f"{subject}_asked"} & names:
            return Column(f"{subject}: {text.format(level=mass)}", ucd=f"{MORPHOLOGY};{ucd}")
    if f"{name}_hd_low" in names:
        return Column(
            f"{name}: probability or value, the mean of the posterior", ucd=f"{MORPHOLOGY};stat.mean"
        )
    return Column(f"{name}, as in the table of the galaxies")
