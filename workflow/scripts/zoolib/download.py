"""Stage download: the files of a Zenodo record, a sample of its galaxies without the rest, or labels."""

import csv
import functools
import hashlib
import shutil
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zoolib.data.tables import IDS, LOCATIONS, find_column
from zoolib.job.logs import UserError, log, progress, whole
from zoolib.job.provenance import hash_of_file
from zoolib.job.words import in_bytes
from zoolib.zenodo.archives import RemoteArchive, by_base_name, index, read_member
from zoolib.zenodo.checked import Checked
from zoolib.zenodo.client import Client, Origin, RemoteFile
from zoolib.zenodo.downloads import download, locked, require_room, size_of, slot
from zoolib.zenodo.records import resolve, server, zenodo

# A zip stores when its members were made; the same sample should be the same bytes.
TIME_STAMP = (1980, 1, 1, 0, 0, 0)


def needed_files(config, name):
    """Names of the record's files that a run downloads completely, as far as the download of one says.

    Whoever asks for an archive needs all archives and tables. Whoever asks for a table may need no images, as
    `snakemake check_record` does.

    Args:
        config: the complete configuration.
        name: the file that is downloaded.

    Returns:
        A sorted list of names of files of the record; a name with a slash is a file of the user's own.
    """
    tasks = (config.get("finetune") or {}).get("tasks") or []
    entries = [*(config.get("catalogs") or []), *tasks]
    tables = {entry.get("table") for entry in entries}
    archives = {archive for entry in entries for archive in entry.get("archives") or []}
    names = tables | archives if name in archives else tables
    return sorted(name for name in names if name and "/" not in name)


def download_file(record, name, output, needed=()):
    """Download one file of a record; an interrupted download continues where it stopped.

    The bytes are in `.<name>.part` beside the output until size and md5 are right, and in `.checked/` from
    then on: Snakemake does not know these files and leaves them alone. The output is a link. If the file is
    there already with the record's size and md5, or if the record cannot be asked and the file is still what
    was downloaded, nothing is downloaded.

    Args:
        record: id of the Zenodo record.
        name: the file in it.
        output: where to write it.
        needed: all files of the record that the run needs in this folder, to log how much is still to come.

    Raises:
        UserError: no such record or file, wrong size or md5, too little room, a server that keeps
            failing.
    """
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Another process may download it while this one waits for the lock.
    with locked(output.with_name(f".{name}.lock"), name):
        checked = Checked(output)
        file, found = _file_of(record, name, checked)
        plain = output.is_file() and not output.is_symlink() and size_of(output) == file.size
        if plain and hash_of_file(output, file.algorithm) == file.checksum:
            log.info("%s: is already there, complete", name)
            return
        if _is_there(checked, file):
            return
        client = Client(zenodo())
        with slot(output.parent.parent):
            _check_room(found, {name, *needed}, output.parent, client.origin.room)
            _download(client, file, checked)
    log.info("%s: %s, md5 %s", name, in_bytes(file.size), file.checksum or "unknown to the record")


def _file_of(record, name, checked):
    """The file of a record, and the record; (what was downloaded before, None) if it cannot be asked."""
    about = checked.noted() if checked.file.is_file() else None
    try:
        found = resolve(record, attempts=2 if about else None)
    except UserError as error:
        if not about or not checked.is_whole():
            raise
        log.warning(
            "%s: %s cannot be asked about it (%s); the file that was downloaded before is used, its %s is"
            " still %s",
            name,
            server(),
            error.__cause__ or error,
            about["algorithm"],
            about["checksum"] or "unknown",
        )
        return RemoteFile(name, (), about["size"], about["checksum"], about["algorithm"]), None
    return found.file(name), found


def _is_there(checked, file):
    """Whether a file has come before; then the output is a link to it again."""
    if checked.has(file.size, file.algorithm, file.checksum):
        checked.note(size_of(checked.file), file.algorithm, file.checksum)
        checked.show()
        log.info("%s: is already there, complete", file.name)
        return True
    # What the record had before stays until its successor is complete.
    if checked.file.is_file() and not checked.is_whole():
        log.warning("%s: is not what was downloaded any more, and is removed", checked.file)
        checked.file.unlink()
    return False


def _download(client, file, checked):
    partial = checked.output.with_name(f".{checked.output.name}.part")
    download(client, file, partial)
    checked.keep(partial, size_of(partial), file.algorithm, file.checksum)


def _check_room(record, names, folder, remedy):
    coming = {}
    for name in sorted(names & set(record.files)):
        size = record.files[name].size
        if size not in (size_of(folder / name), size_of(Checked(folder / name).file)):
            coming[name] = max(size - size_of(folder / f".{name}.part"), 0)
    total = in_bytes(sum(coming.values()))
    log.info("still to come from record %d: %s, files: %s", record.number, total, ", ".join(coming))
    require_room(folder, sum(coming.values()), f"the files of record {record.number}", remedy)


def url_of(tasks, checksum):
    """The `url` of the task whose labels have a checksum.

    Args:
        tasks: the configuration's `finetune.tasks`.
        checksum: the first digits of the checksum.

    Returns:
        {"address", "sha256"}.
    """
    urls = (task["url"] for task in tasks if task["url"])
    return next(url for url in urls if url["sha256"].startswith(checksum))


def download_url(address, sha256, output):
    """Download a file of labels; an interrupted download continues where it stopped.

    The bytes are in `.<name>.part` beside the output until the checksum is right, and in `.checked/` from
    then on; the output is a link. If they are there already, nothing is downloaded.

    Args:
        address: where it is, http or https.
        sha256: its checksum, 64 hexadecimal digits.
        output: where to write it.

    Raises:
        UserError: there is nothing at the address, another checksum, too little room, a server that keeps
            failing.
    """
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    key = "finetune.tasks[].url"
    client = Client(
        Origin(
            server=address,
            missing=f"fix {key}.address",
            address=f"fix {key}.address, it should look like https://example.org/labels.csv",
            elsewhere=f"get the file elsewhere and give it as table or folders instead of {key}",
            wrong_bytes=f"fix {key}.sha256 if {address} is the right file, or {key}.address",
            room="make the folder a link to a larger disk",
        )
    )
    checked, file = Checked(output), RemoteFile(output.name, (address,), None, sha256, "sha256")
    if not _is_there(checked, file):
        _download(client, file, checked)
    log.info("%s: %s, sha256 %s", output.name, in_bytes(size_of(output)), sha256)


def sample_record(record, table, archives, galaxies, seed, output):
    """Make a small record from some galaxies of a large one, with their votes and images.

    The images are read out of the remote zips by byte ranges, as fast as the server allows. They are
    collected in `.<archive>.parts/`, so that an interrupted sample continues with the missing images. The
    same seed gives the same galaxies, and the same bytes. The outputs are links to the files in `.checked/`:
    the same sample is not drawn again, and another one takes the images that they share from the earlier one.

    Args:
        record: id of the Zenodo record.
        table: the volunteers' table (CSV or Parquet), already on disk.
        archives: names of the record's image archives.
        galaxies: how many to draw, from those with an image.
        seed: any whole number.
        output: attributes table (the rows of the drawn galaxies, in the format and order of the table) and
            archive (a zip in the record's layout, `J###/J….png`).

    Raises:
        UserError: no such record or archive, too few galaxies, too little room, a server that does not send
            parts of files or keeps failing.
    """
    kept = Checked(output.table), Checked(output.archive)
    made_from = [str(record), hash_of_file(table), list(archives), galaxies, seed]
    if all(file.is_whole() and file.noted()["made_from"] == made_from for file in kept):
        for file in kept:
            file.show()
        log.info("The same sample was drawn before, and its %d galaxies are complete", galaxies)
        return
    found, client = resolve(record), Client(zenodo())
    files = [found.file(name) for name in archives]
    identifier, image_names = _image_names(Path(table))
    remote = [RemoteArchive(file.name, file.size, functools.partial(client.part, file)) for file in files]
    images = by_base_name([(archive, archive.infos()) for archive in remote])
    drawn = _draw({key: name for key, name in image_names.items() if name in images}, galaxies, seed, table)
    wanted = {name: images[name] for name in drawn.values()}
    log.info("%d of %d galaxies drawn, with %d images", len(drawn), len(image_names), len(wanted))
    archive = Path(output.archive)
    parts = archive.with_name(f".{archive.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    # For a moment each image exists twice: as a file, and in the archive.
    size = 2 * sum(info.file_size for _, info in wanted.values())
    require_room(parts, size, "the images of the sample", client.origin.room)
    _take_images(wanted, kept[1].file, parts)
    _fetch_images(wanted, parts)
    _write_rows(Path(table), identifier, set(drawn), kept[0].file)
    _pack_images(wanted, parts, kept[1].file)
    for file in kept:
        file.note(size_of(file.file), "sha256", hash_of_file(file.file), made_from)
        file.show()
    shutil.rmtree(parts)


def _take_images(wanted, archive, parts):
    """Take those images that an earlier sample has, whatever it was drawn for."""
    try:
        earlier = index([archive]) if archive.is_file() else {}
        for name in wanted.keys() & earlier.keys():
            if (parts / name).is_file():
                continue
            with whole(parts / name) as partial:
                partial.write_bytes(read_member(*earlier[name]))
    except UserError as error:
        # Images that are missing or damaged come from the server.
        log.warning("The earlier sample is damaged: %s", error)


def _pack_images(wanted, parts, archive):
    with whole(archive) as partial, zipfile.ZipFile(partial, "w") as packed:
        for name in sorted(wanted):
            about = zipfile.ZipInfo(f"{name[:4]}/{name}", TIME_STAMP)
            about.external_attr = 0o644 << 16
            packed.writestr(about, (parts / name).read_bytes())


def _image_names(table):
    """The identifier column of a volunteers' table, and {identifier: base name of the image}."""
    if table.suffix == ".parquet":
        columns = pq.read_schema(table).names
    else:
        with open(table, newline="", encoding="utf-8") as file:
            columns = next(csv.reader(file), [])
    identifier = find_column(columns, None, IDS, table, "")
    if identifier is None:
        raise UserError(
            f"{table}: has no column {' or '.join(IDS)} with the galaxies' names; a sample needs a"
            " volunteers' table in catalogs[0].table."
        )
    location = find_column(columns, None, LOCATIONS, table, "") or identifier
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
    # Not the hash that splits a catalogue: its smallest values are all in the training split.
    if len(candidates) < galaxies:
        raise UserError(
            f"{table}: {len(candidates)} of its galaxies have an image in the record's archives, and"
            f" zenodo.sample is {galaxies}; set it to {len(candidates)} or less."
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
        # As text: numbers that are read and written again may change.
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
