"""Stage 1, download: the files of a Zenodo record, or a sample of its galaxies without the rest."""

import contextlib
import csv
import errno
import fcntl
import functools
import hashlib
import os
import shutil
import time
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zoolib.job.logs import UserError, log, progress, whole
from zoolib.job.words import in_bytes
from zoolib.zenodo.addresses import require_room
from zoolib.zenodo.archives import RemoteArchive, by_base_name
from zoolib.zenodo.records import BLOCK, Client, Interrupted, persist, resolve

# More downloads at once get an address blocked by Zenodo.
AT_ONCE = 2
# A zip remembers when its members were made; the same sample should be the same bytes.
TIME_STAMP = (1980, 1, 1, 0, 0, 0)
IDENTIFIERS = ("iauname", "id_str")
LOCATIONS = ("png_loc", "file_loc")


def needed_files(config):
    """Names of the record's files that a run downloads whole.

    A name with a slash is a file of the user's own. In sample mode the archives stay where they are.

    Args:
        config: the whole configuration.

    Returns:
        A sorted list of names.
    """
    tasks = (config.get("finetune") or {}).get("tasks") or []
    names = set()
    for entry in [*(config.get("catalogs") or []), *tasks]:
        names.add(entry.get("table"))
        if not config["zenodo"].get("sample"):
            names.update(entry.get("archives") or [])
    return sorted(name for name in names if name and "/" not in name)


def check_folder(folder, names):
    """Check that a folder of `zenodo.local` has the files that a run needs.

    Args:
        folder: the folder.
        names: the files, as `needed_files` gives them.

    Raises:
        UserError: no such folder, or files that are missing or empty.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: there is no such folder; fix zenodo.local, or set it to null to download."
        )
    missing = [name for name in names if not _size(folder / name)]
    if missing:
        raise UserError(
            f"{folder}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing or empty there;"
            " copy all files of the record that the run needs into it, or set zenodo.local to null to"
            " download them."
        )


def download_file(record, name, output, needed=()):
    """Download one file of a record; an interrupted download goes on where it stopped.

    The bytes lie in `.<name>.part` beside the output until size and md5 are right: Snakemake does not
    know this file and leaves it alone when a job fails.

    Args:
        record: id of the Zenodo record.
        name: the file in it.
        output: where to write it.
        needed: all files of the record that the run wants in this folder, to say what is to come.

    Raises:
        UserError: no such record or file, wrong size or md5, too little room, a server that keeps
            failing.
    """
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    found = resolve(record)
    file = found.file(name)
    partial = output.with_name(f".{name}.part")
    with _locked(output.with_name(f".{name}.lock"), name):
        # Another process may have downloaded it while this one waited for the lock.
        if _size(output) == file.size and _md5(output).hexdigest() == file.md5:
            log.info("%s: is already there, whole", name)
            return
        with _slot(output.parent.parent):
            _check_room(found, {name, *needed}, output.parent)
            _fetch(file, partial)
        os.replace(partial, output)
    log.info("%s: %s, md5 %s", name, in_bytes(file.size), file.md5 or "unknown to the record")


def _check_room(record, names, folder):
    coming = {}
    for name in sorted(names & set(record.files)):
        size = record.files[name].size
        if _size(folder / name) != size:
            coming[name] = max(size - _size(folder / f".{name}.part"), 0)
    total = in_bytes(sum(coming.values()))
    log.info("still to come from record %d: %s, files: %s", record.number, total, ", ".join(coming))
    require_room(folder, sum(coming.values()), f"the files of record {record.number}")


def _size(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _md5(path):
    digest = hashlib.md5()
    if path.exists():
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    return digest


def _fetch(file, partial):
    if _size(partial) > file.size:
        partial.unlink()
    if _size(partial):
        log.info("%s: going on after %s", file.name, in_bytes(_size(partial)))
    client, digest = Client(), _md5(partial)

    def attempt():
        nonlocal digest
        have = _size(partial)
        if have == file.size:
            return
        with client.stream(file, have) as (start, response):
            if start != have:
                log.info("%s: the server sends no parts of it; starting again from its first byte", file.name)
                digest = hashlib.md5()
            # Never append to what was not asked for: the file is cut to where the answer begins.
            with (
                open(partial, "r+b" if start else "wb") as disk,
                progress(None, f"downloading {file.name}", file.size, "B") as meter,
            ):
                disk.seek(start)
                meter.n = meter.initial = start
                for block in response.iter_content(BLOCK):
                    if disk.tell() + len(block) > file.size:
                        raise _wrong(
                            file, partial, f"more than the {file.size:,} bytes that the record lists"
                        )
                    disk.write(block)
                    digest.update(block)
                    meter.update(len(block))
        if _size(partial) < file.size:
            raise Interrupted("the connection ended early")

    try:
        persist(attempt, file.name, reached=lambda: _size(partial))
    except OSError as error:
        raise UserError(
            f"{partial}: cannot be written ({error.strerror}); make room or fix the folder's rights, then"
            " run the same command again: it goes on where it stopped."
        ) from error
    if file.md5 and digest.hexdigest() != file.md5:
        raise _wrong(file, partial, f"md5 {digest.hexdigest()} where the record lists {file.md5}")


def _wrong(file, partial, found):
    partial.unlink(missing_ok=True)
    return UserError(
        f"{file.name}: the download has {found}, and was removed; run the same command again to download it"
        " anew, and check zenodo.record if it happens twice."
    )


def _flock(file, how):
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        # Some cluster file systems know no locks; Snakemake's own keeps two runs apart there.
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return True


@contextlib.contextmanager
def _locked(path, name):
    with open(path, "w") as file:
        if not _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            log.info("%s: another process is downloading it; waiting for it to end", name)
            _flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _slot(folder):
    with contextlib.ExitStack() as stack:
        slots = [stack.enter_context(open(folder / f".slot{n}.lock", "w")) for n in range(AT_ONCE)]
        while not any(_flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB) for slot in slots):
            time.sleep(0.5)
        yield


def sample_record(record, table, archives, galaxies, seed, output_table, output_archive):
    """Make a small record out of a large one: some galaxies, their votes and their images.

    The images are read out of the remote zips by byte ranges, at the pace that the server allows.
    Those that came lie in `.<archive>.parts/` until all are there, and an interrupted sample goes on
    with the others. The same seed gives the same galaxies, and the same bytes.

    Args:
        record: id of the Zenodo record.
        table: the volunteers' table (CSV or Parquet), already on disk.
        archives: names of the record's image archives.
        galaxies: how many to draw, among those with an image.
        seed: any whole number.
        output_table: the rows of the table that were drawn, in the same form and order.
        output_archive: a zip in the record's layout (`J###/J….png`).

    Raises:
        UserError: no such record or archive, fewer galaxies than asked for, too little room, a server
            that sends no parts of files or keeps failing.
    """
    found, client = resolve(record), Client()
    files = [found.file(name) for name in archives]
    identifier, image_names = _image_names(Path(table))
    remote = [RemoteArchive(file.name, file.size, functools.partial(client.part, file)) for file in files]
    images = by_base_name([(archive, archive.infos()) for archive in remote])
    drawn = _draw({key: name for key, name in image_names.items() if name in images}, galaxies, seed, table)
    wanted = {name: images[name] for name in drawn.values()}
    log.info("%d of %d galaxies drawn, with %d images", len(drawn), len(image_names), len(wanted))
    output_archive = Path(output_archive)
    parts = output_archive.with_name(f".{output_archive.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    # They are there twice for a moment: one by one, and in the archive.
    require_room(parts, 2 * sum(info.file_size for _, info in wanted.values()), "the images of the sample")
    _fetch_images(wanted, parts)
    _write_rows(Path(table), identifier, set(drawn), output_table)
    with whole(output_archive) as partial, zipfile.ZipFile(partial, "w") as packed:
        for name in sorted(wanted):
            about = zipfile.ZipInfo(f"{name[:4]}/{name}", TIME_STAMP)
            about.external_attr = 0o644 << 16
            packed.writestr(about, (parts / name).read_bytes())
    shutil.rmtree(parts)


def _image_names(table):
    """The identifier column of a volunteers' table, and {identifier: base name of the image}."""
    if table.suffix == ".parquet":
        columns = pq.read_schema(table).names
    else:
        with open(table, newline="", encoding="utf-8") as file:
            columns = next(csv.reader(file), [])
    identifier = next((column for column in IDENTIFIERS if column in columns), None)
    if identifier is None:
        raise UserError(
            f"{table}: has no column {' or '.join(IDENTIFIERS)} to tell galaxies by; a sample needs a"
            " volunteers' table in catalogs[0].table."
        )
    location = next((column for column in LOCATIONS if column in columns), identifier)
    if table.suffix == ".parquet":
        read = pq.read_table(table, columns=list({identifier, location}))
        rows = zip(read[identifier].to_pylist(), read[location].to_pylist(), strict=True)
        names = {str(key): place for key, place in rows}
    else:
        with open(table, newline="", encoding="utf-8") as file:
            names = {row[identifier]: row[location] for row in csv.DictReader(file)}
    if location == identifier:
        return identifier, {key: f"{key}.png" for key in names}
    return identifier, {key: (place or f"{key}.png").rsplit("/", 1)[-1] for key, place in names.items()}


def _draw(candidates, galaxies, seed, table):
    # Not the hash that splits a catalogue: the first of that one all belong to the training split.
    if len(candidates) < galaxies:
        raise UserError(
            f"{table}: {len(candidates)} of its galaxies have an image in the record's archives, and"
            f" zenodo.sample asks for {galaxies}; set it to {len(candidates)} or fewer."
        )
    order = sorted(candidates, key=lambda key: hashlib.sha256(f"sample:{seed}:{key}".encode()).digest())
    return {key: candidates[key] for key in order[:galaxies]}


def _fetch_images(wanted, parts):
    def is_there(name, info):
        path = parts / name
        return path.is_file() and zlib.crc32(path.read_bytes()) == info.CRC

    missing, fetched = {}, 0
    for name, (archive, info) in wanted.items():
        if is_there(name, info):
            fetched += 1
        else:
            missing.setdefault(archive, []).append(info)
    groups = [(archive, group) for archive, infos in missing.items() for group in archive.requests(infos)]
    size = sum(info.compress_size for infos in missing.values() for info in infos)
    log.info(
        "still to come: %s, %d images in %d requests (%d were there)",
        in_bytes(size),
        len(wanted) - fetched,
        len(groups),
        fetched,
    )
    with progress(None, "reading images out of the record's archives", len(wanted)) as meter:
        meter.n = meter.initial = fetched
        for archive, group in groups:
            for info, image in archive.read(group):
                with whole(parts / info.filename.rsplit("/", 1)[-1]) as partial:
                    partial.write_bytes(image)
                meter.update()


def _write_rows(table, identifier, drawn, output):
    with whole(output) as partial:
        if table.suffix == ".parquet":
            rows = pq.read_table(table)
            keep = pc.is_in(pc.cast(rows[identifier], pa.string()), pa.array(sorted(drawn), pa.string()))
            pq.write_table(rows.filter(keep), partial)
            return
        # As text: numbers read and written again would not be the same.
        with (
            open(table, newline="", encoding="utf-8") as source,
            open(partial, "w", newline="", encoding="utf-8") as target,
        ):
            reader = csv.reader(source)
            writer = csv.writer(target, lineterminator="\n")
            columns = next(reader)
            writer.writerow(columns)
            place = columns.index(identifier)
            writer.writerows(row for row in reader if row and row[place] in drawn)
