"""Zenodo records: which files a record has, with their sizes, checksums and addresses."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import yaml

from zoolib.job.logs import UserError, log
from zoolib.zenodo.client import Client, Interrupted, Origin, RemoteFile, read_body

# Bytes of the longest answer about a record: 500 for each of its files.
LONGEST_ANSWER = 64_000_000
PUBLISHED = Path(__file__).resolve().parents[4] / "config" / "published"


@dataclass(frozen=True)
class Record:
    """The files of a Zenodo record.

    Attributes:
        number: the record's id, of one version.
        files: {name: RemoteFile}.
    """

    number: int
    files: dict

    def file(self, name):
        """The file of a name.

        Raises:
            UserError: the record has no such file.
        """
        if name not in self.files:
            raise UserError(
                f"record {self.number} has no file '{name}'; it has {', '.join(sorted(self.files))};"
                " fix the name in catalogs[] or zenodo.record."
            )
        return self.files[name]


def server():
    """The address of the Zenodo to use: the environment variable ZENODO_URL, or the real one."""
    return os.environ.get("ZENODO_URL", "https://zenodo.org").rstrip("/")


def zenodo():
    """Zenodo as an `Origin`: what to do if it fails."""
    return Origin(
        server=server(),
        missing="check zenodo.record, and ZENODO_URL if it is set",
        address="fix the environment variable ZENODO_URL, it should look like https://zenodo.org",
        elsewhere="get the files elsewhere and set zenodo.local to their folder",
        wrong_bytes="run the same command again, and check zenodo.record if it happens twice",
        room=(
            "make the folder a link to a larger disk, or set zenodo.sample to try the run on fewer galaxies"
        ),
        no_parts=(
            "set zenodo.sample to null to download all files, or zenodo.local to a folder that has them"
        ),
    )


def resolve(number, attempts=None):
    """Find out which files a record has; no request is made if it is pinned in config/published/.

    Args:
        number: a record's id, or the concept id that stands for its newest version.
        attempts: as in `Client`.

    Returns:
        A `Record`.

    Raises:
        UserError: no such record, no open files in it, or no answer.
    """
    pinned = PUBLISHED / f"zenodo_{number}.yaml"
    if pinned.is_file():
        content = yaml.safe_load(pinned.read_text())
        return _record(content["id"], [{"key": key, **about} for key, about in content["files"].items()])
    url = f"{server()}/api/records/{number}"
    client = Client(zenodo(), attempts)
    no_record = UserError(
        f"record {number}: {url} does not answer with a record that has open files; {client.origin.missing}."
    )

    def attempt():
        with client.open(url, f"record {number}") as response:
            answer = read_body(response, LONGEST_ANSWER)
        try:
            return json.loads(answer)
        except (ValueError, RecursionError):
            raise Interrupted("another page came instead of the record", final=no_record) from None

    content = client.persist(attempt, f"record {number}")
    try:
        found, files = int(content["id"]), content["files"]
    except (ValueError, KeyError, TypeError):
        raise no_record from None
    if str(found) != str(number):
        if str(content.get("conceptrecid")) != str(number):
            raise UserError(
                f"record {number}: {server()} answers with record {found}; write its number in zenodo.record"
                " if that is the one you mean."
            )
        log.info(
            "record %s stands for all versions; taking the newest, %s (pin it in zenodo.record)",
            number,
            found,
        )
    try:
        return _record(found, files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"record {number}: the list of files at {url} cannot be read ({error!r}); expected key, size"
            " and checksum for each; download the files by hand and set zenodo.local to their folder."
        ) from None


def _record(number, files):
    # The addresses are made here, not read: they must lead to ZENODO_URL, and Zenodo has served wrong ones.
    found = {}
    for entry in files:
        name = entry.get("key") or entry["filename"]
        size = int(entry["size"] if "size" in entry else entry["filesize"])
        md5 = str(entry.get("md5") or entry.get("checksum") or "").removeprefix("md5:").lower()
        md5 = md5 if re.fullmatch("[0-9a-f]{32}", md5) else ""
        paths = (f"api/records/{number}/files/{quote(name)}/content", f"records/{number}/files/{quote(name)}")
        found[name] = RemoteFile(name, tuple(f"{server()}/{path}" for path in paths), size, md5, "md5")
    return Record(int(number), found)
