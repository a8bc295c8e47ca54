"""Files that were downloaded and checked: they lie where Snakemake does not delete them.

Snakemake deletes the outputs of a job before it starts (`-F`, `--forcerun`), and again if it fails. So the
output of a download is only a link, and the file is in the folder `.checked` beside it.
"""

import json
import os
import re
from pathlib import Path

from zoolib.job.logs import log, whole
from zoolib.job.provenance import hash_of_file

FOLDER = ".checked"


def no_plain_file(folder):
    """A constraint for the first of two wildcards in `folder/{...}/{file}`: the output is no plain file.

    Plain files were put there by hand, or by an earlier version. Snakemake would delete them before a job, so
    they are the output of none.

    Args:
        folder: as in the pattern of the output.

    Returns:
        The beginning of a regular expression; "" if there is no such file.
    """
    plain = [path for path in Path(folder).glob("*/*") if path.is_file() and not path.is_symlink()]
    visible = [path.relative_to(folder).as_posix() for path in plain if path.name[0] != "."]
    names = "|".join(re.sub(r"\W", ".", name) for name in visible)
    return f"(?!({names})$)" if names else ""


class Checked:
    """The file that an output of a download leads to.

    Args:
        output: the output, which may be absent.

    Attributes:
        output: the same.
        file: the file itself, which may be absent.
    """

    def __init__(self, output):
        self.output = Path(output)
        self.file = self.output.parent / FOLDER / self.output.name
        self._digests = {}
        self._note = self.file.with_name(f"{self.file.name}.json")

    def note(self, size, algorithm, checksum, made_from=None):
        """Write down how the file is recognised.

        Args:
            size: bytes.
            algorithm: of the checksum, such as md5.
            checksum: hexadecimal digest; "" if it is not known.
            made_from: anything that JSON can hold, and that says what the file follows from.
        """
        about = {"size": size, "algorithm": algorithm, "checksum": checksum, "made_from": made_from}
        with whole(self._note) as partial:
            partial.write_text(json.dumps(about) + "\n")

    def noted(self):
        """What `note` has written down, a dict; None if there is nothing."""
        try:
            return json.loads(self._note.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def has(self, size, algorithm, checksum):
        """Whether the file is there with a size (None for any) and a checksum ("" for any)."""
        if not self.file.is_file() or size not in (None, self.file.stat().st_size):
            return False
        if checksum and algorithm not in self._digests:
            log.info("%s: checking its %s", self.output.name, algorithm)
            self._digests[algorithm] = hash_of_file(self.file, algorithm)
        return not checksum or self._digests[algorithm] == checksum

    def is_whole(self):
        """Whether the file is there, with the size and checksum that were written down."""
        about = self.noted()
        return about is not None and self.has(about["size"], about["algorithm"], about["checksum"])

    def keep(self, partial, size, algorithm, checksum):
        """Take over a complete file, and make the output a link to it.

        Args:
            partial: the file, in the folder of the output; it is renamed.
            size, algorithm, checksum: as in `note`.
        """
        # The note comes first: after a kill between the two, the partial file is still complete.
        self.note(size, algorithm, checksum)
        os.replace(partial, self.file)
        self.show()

    def show(self):
        """Make the output a link to the file."""
        link = self.output.with_name(f".{self.output.name}.link")
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(Path(FOLDER) / self.file.name)
        except OSError:
            # A file system without links. The rules leave a plain file alone.
            link = self.file
        os.replace(link, self.output)
