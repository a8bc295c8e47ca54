"""Files that are damaged at random, one row for each reader of the pipeline.

A try damages one copy of a valid file and calls the function that the pipeline calls. It is survived if the
answer is right, or if the user gets one sentence (`UserError`, of which `BadImage` is one, or
`MachineError`). It is lost if another exception is raised, if the reader dies, needs more than `SECONDS` or
more than `MEMORY`, or if the answer is wrong without a message. What a wrong answer is depends on the format:

- PNG, packed FITS, zip, `.keras`, records of shards, predictions in HDF5, and our own catalogues and lists
  have checksums: all values are the same.
- JPEG, FITS, tables of users and safetensors have none, so a damaged number is another number. Then shapes
  and names must be possible ones, numbers must be finite, and no row of a CSV file that the damage did not
  touch may be missing or different.
- YAML is written by hand: another configuration or tree is an answer.

The readers run in two other processes, one of them for those that need TensorFlow. A process that takes too
long is stopped.
"""

import functools
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import traceback
from pathlib import Path

import image_readers as images
import model_readers as models
import table_readers as tables
from damage import damage, damage_text, write

REPO = Path(__file__).resolve().parents[2]
SECONDS = 20
# Bytes: what the rules of these readers have, and for those with TensorFlow what it needs itself besides.
MEMORY, MEMORY_TENSORFLOW = 2_000_000_000, 4_000_000_000


class Reader:
    """One reader.

    Args:
        name: what the table prints.
        cells: {variant: (function without arguments that returns {file: bytes}, the file to damage)}.
        read: function(folder, variant) that returns an answer.
        wrong: function(answer, right answer, folder, variant) that says what is wrong, or returns None.
        text: whether files are text.
        tensorflow: whether it needs TensorFlow.
    """

    def __init__(self, name, cells, read, wrong, text=False, tensorflow=False):
        self.name, self.variants, self.read, self.wrong = f"mutated {name}", cells, read, wrong
        self.cells, self.text, self.tensorflow, self.known = tuple(cells), text, tensorflow, {}

    def valid(self, cell):
        """The valid files of a variant, and the right answer; they are made once."""
        if cell not in self.known:
            files = self.variants[cell][0]()
            with tempfile.TemporaryDirectory(prefix="valid-") as folder:
                write(files, Path(folder))
                self.known[cell] = files, self.read(Path(folder), cell)
        return self.known[cell]

    def attempt(self, cell, seed, place):
        """Damage one file, in the process for this reader; returns None or what was lost."""
        return Worker.of(self.tensorflow).ask(self.name, cell, seed, place)

    def attempt_here(self, cell, seed, place):
        """`attempt` in this process."""
        from zoolib.job.logs import MachineError, UserError

        chance = random.Random(seed)
        files, right = self.valid(cell)
        file = self.variants[cell][1]
        damaged = (damage_text if self.text else damage)(files[file], chance, other_formats())
        write({**files, file: damaged}, place)
        try:
            answer = self.read(place, cell)
        except (UserError, MachineError) as error:
            message = str(error)
            if "\n" in message or not message.strip():
                return f"{cell}, seed '{seed}': the message is not one sentence: {message[:200]!r}"
            message.encode()
            return None
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)
            own = [step for step in where if "zoolib" in step.filename] or where
            at = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
            said = " ".join(str(error).split())[:150]
            return f"{cell}: {type(error).__name__} in {at} ({said}); seed '{seed}'"
        # Another valid file under the same name is right.
        same = damaged == files[file] or damaged in other_formats()
        wrong = None if same else self.wrong(answer, right, place, cell)
        return wrong and f"{cell}: {wrong}; seed '{seed}'"


@functools.cache
def other_formats():
    """Files of several formats, as bytes."""
    found = [
        b"",
        b"\x00" * 100,
        b"<html><body>504 Gateway Time-out</body></html>",
        b"{}",
        b"[]",
        b"a: 1\n",
        b"a,b\n1,2\n",
    ]
    return [
        *found,
        images.png_of("L"),
        images.fits_of("three bands"),
        images.zip_of("record"),
        tables.csv_of(),
    ]


def one(name, make):
    """A variant with one file."""
    return lambda: {name: make()}, name


PNG = {"grey": "L", "colour": "RGB", "palette": "P", "transparent": "RGBA", "16 bits": "I;16"}
FITS = ("one band", "three bands", "extensions", "tiles", "packed")
TABLES = ("votes", "labels", "a target")
ROWS = [
    Reader(
        "PNG",
        {cell: one("image", functools.partial(images.png_of, mode)) for cell, mode in PNG.items()},
        images.read_picture,
        images.same_array,
    ),
    Reader(
        "JPEG",
        {
            "grey": one("image", lambda: images.png_of("L", "jpeg")),
            "colour": one("image", lambda: images.png_of("RGB", "jpeg")),
            "EXIF": one("image", lambda: images.png_of("RGB", "jpeg", exif=images.turned())),
            "progressive": one("image", lambda: images.png_of("RGB", "jpeg", progressive=True)),
        },
        images.read_picture,
        images.possible_picture,
    ),
    Reader(
        "FITS",
        {cell: one("image", functools.partial(images.fits_of, cell)) for cell in FITS},
        images.read_picture,
        images.possible_fits,
    ),
    Reader(
        "zip",
        {
            cell: one("images.zip", functools.partial(images.zip_of, cell))
            for cell in ("record", "class folders")
        },
        images.read_zip,
        images.same_members,
    ),
    Reader(
        "CSV",
        {cell: (lambda: tables.with_images(tables.csv_of(), "csv"), "table.csv") for cell in TABLES},
        tables.read_user_table,
        tables.untouched_rows,
        text=True,
    ),
    Reader(
        "Parquet",
        {
            cell: (lambda: tables.with_images(tables.parquet_of(), "parquet"), "table.parquet")
            for cell in TABLES
        },
        tables.read_user_table,
        tables.untouched_rows,
    ),
    Reader(
        "catalogue",
        {"catalogue": one("train.parquet", tables.catalog_of), "list": one("list.parquet", tables.list_of)},
        tables.read_own_table,
        tables.same_table,
    ),
    Reader(
        "HDF5",
        {
            "predictions": (tables.predictions_of, "predictions.hdf5"),
            "collected": (tables.collected_of, "predictions.hdf5"),
            "part": (tables.collected_of, "chunks/1.hdf5"),
        },
        tables.read_predictions,
        tables.same_predictions,
    ),
    Reader(
        "YAML",
        {
            "configuration": one("config.yaml", (REPO / "config" / "test.yaml").read_bytes),
            "tree": one("tree.yaml", (REPO / "config" / "trees" / "gz_decals_5.yaml").read_bytes),
        },
        tables.read_yaml,
        tables.anything,
        text=True,
    ),
    Reader(
        "TFRecord",
        {"records": (models.shard_of, "0.tfrecord"), "sidecar": (models.shard_of, "0.json")},
        models.read_shard,
        models.same_records,
        tensorflow=True,
    ),
    Reader(
        ".keras",
        {
            "weights": (models.model_of, "model.keras"),
            "model.json": (models.model_of, "model.json"),
            "older, weights": (models.older_model, "model.keras"),
            "older, model.json": (models.older_model, "model.json"),
        },
        models.read_model,
        models.same_model,
        tensorflow=True,
    ),
    Reader(
        "safetensors",
        {
            "config.json": (models.encoder_of, "config.json"),
            "weights": (models.encoder_of, "model.safetensors"),
        },
        models.read_encoder,
        models.possible_weights,
        tensorflow=True,
    ),
]


# ---------------------------------------------------------------- processes


class Worker:
    """A process that makes tries one after the other, and is replaced when it dies or hangs.

    Args:
        tensorflow: whether its readers need TensorFlow, whose address space cannot be limited.
    """

    def __init__(self, tensorflow):
        self.tensorflow, self.process = tensorflow, None

    @staticmethod
    @functools.cache
    def of(tensorflow):
        """The only process with TensorFlow, or the only one without it."""
        return Worker(tensorflow)

    def ask(self, row, cell, seed, place):
        """Make one try; returns None or what was lost."""
        if self.process is None:
            self._start()
        # The first try of a reader imports what it needs and makes the valid files.
        self.pipe.send((row, cell, None, str(place)))
        if self._answer(row, 300):
            return f"{cell}: the valid files cannot be read; {self.last}"
        self.pipe.send((row, cell, seed, str(place)))
        if self._answer(row, SECONDS) and self.process is None:
            return f"{cell}: {self.last}; seed '{seed}'"
        return self.last

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, self.tensorflow), daemon=True)
        self.process.start()
        other.close()

    def _answer(self, row, seconds):
        """Wait for what was lost, and keep it in `last`."""
        try:
            if self.pipe.poll(seconds):
                self.last = self.pipe.recv()
                return self.last
            self.last = f"no answer after {seconds} s"
        except EOFError:
            self.process.join(10)
            self.last = f"the process has died ({self.process.exitcode})"
        self.process.kill()
        self.process.join()
        self.process = None
        return self.last


def _serve(pipe, tensorflow):
    import sys

    sys.path[:0] = [str(REPO / "tests" / "support"), str(REPO / "workflow" / "scripts")]
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    if not tensorflow:
        # Libraries reserve address space that they never use, and it counts too.
        resource.setrlimit(resource.RLIMIT_AS, (2 * MEMORY, 2 * MEMORY))
    most = MEMORY_TENSORFLOW if tensorflow else MEMORY
    rows, over = {row.name: row for row in ROWS}, False
    while True:
        try:
            name, cell, seed, place = pipe.recv()
        except EOFError:
            return
        if seed is None:
            try:
                rows[name].valid(cell)
                pipe.send(None)
            except Exception as error:
                pipe.send(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
            continue
        folder = Path(place)
        lost = rows[name].attempt_here(cell, seed, folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if peak > most and not over:
            over, lost = True, lost or f"{cell}: {peak / 1e9:.1f} GB of memory; seed '{seed}'"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        pipe.send(lost)
