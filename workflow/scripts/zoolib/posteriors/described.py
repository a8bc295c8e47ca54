"""What the metadata of a flat catalogue say, and whether they are those that were written."""

import json

from zoolib.job.logs import UserError, check_machine
from zoolib.job.provenance import hash_of


def check_described(path, schema):
    """Check the schema of a flat catalogue; returns which part it is, and all that the parts must share."""
    about = schema.metadata
    if not about or b"credible_level" not in about or "id_str" not in schema.names:
        raise UserError(f"{path}: was not written by this project's describe_posteriors; predict again.")
    about = {name.decode(): value.decode() for name, value in about.items()}
    if "checksum" in about and about["checksum"] != checksum(about, schema.names):
        raise ValueError("its metadata are not those that were written")
    names = ("kind", "credible_level", "tree", "recalibrated")
    shared = {name: about.get(name, "") for name in names}
    return json.loads(about.get("part", "{}")) | shared


def checksum(about, columns):
    """A hash of the metadata and the columns: Parquet has no checksum of these."""
    return hash_of([{name: value for name, value in about.items() if name != "checksum"}, list(columns)])


def unreadable(part, error):
    """The message for a flat catalogue that cannot be read."""
    check_machine(error, part)
    reason = " ".join(str(error).split())
    return UserError(f"{part}: cannot be read as a flat catalogue ({reason}); describe the posteriors again.")
