"""How a model sees galaxies, for Python users: representations of a catalogue, a folder or shards.

A target of a run has its representations from the same pass as its predictions; this needs no predictions,
so it also takes a published backbone, which has no head.
"""

import tempfile
from pathlib import Path

import numpy as np

from zoolib.data.listing import list_galaxies
from zoolib.job.logs import UserError, log, progress, whole
from zoolib.learning import datasets, models
from zoolib.learning.augment import augmentation_of
from zoolib.learning.chunks import open_galaxies
from zoolib.learning.familiar import Familiar
from zoolib.learning.features import features_of
from zoolib.likeness.representations import WHAT, representations_file


def represent(galaxies, model, output, kind="pca"):
    """Write the representations of galaxies, in the upright, central view.

    Args:
        galaxies: a folder of images, a folder of shards (with their `.json`), or a table with id_str and
            file_loc.
        model: a model folder; a pretrained backbone without a head is one, too.
        output: HDF5 to write, with the datasets `representations` (galaxies, numbers), float16, and `id_str`.
        kind: `features`: the pooled features of the backbone; `pca`: along the axes of the largest variance
            of the model's training galaxies, at most 64.

    Returns:
        `output`. A galaxy whose image cannot be read is left out, and the log has its name.

    Raises:
        UserError: there are no galaxies, no image can be read, the model cannot be read, or it does not say
            what its training galaxies look like and `kind` is `pca`.
    """
    loaded = models.load_model(model)
    known = Familiar(loaded.about)
    if kind not in ("features", "pca"):
        raise UserError(f"kind is '{kind}', expected features or pca.")
    if kind == "pca" and not known.said:
        raise UserError(
            f"{model}: does not say what its training galaxies look like, as pretrained backbones and older"
            " models do not; set kind to 'features'."
        )
    loaded.backbone.compile(jit_compile=False)
    bad = {}

    def on_bad(row, reason):
        bad[row["id_str"]] = reason

    with tempfile.TemporaryDirectory() as folder, whole(output) as partial:
        listed = Path(folder) / "galaxies.parquet"
        list_galaxies(*_source_of(galaxies), listed)
        blocks, _, _, count = open_galaxies([listed], loaded.about["image"], 0, 1, on_bad)
        found = _written(partial, blocks, count, loaded, known, kind, bad)
    for name, reason in bad.items():
        log.warning("%s: left out, %s", name, reason)
    log.info("%s: %s galaxies, %d images could not be read", output, f"{found:,}", len(bad))
    return output


def _source_of(galaxies):
    """What `list_galaxies` takes for a folder of images, a folder of shards, or a table."""
    path = Path(galaxies)
    if not path.is_dir():
        return "catalog", [str(path)]
    shards = sorted(str(each) for each in path.glob("*.json"))
    return ("shards", shards) if shards else ("images", [str(path)])


def _written(path, blocks, count, model, known, kind, bad):
    """Write the blocks one after the other; returns the number of galaxies."""
    sight, written = (augmentation_of(model.about), model.about["image"]), 0
    about = {"what": WHAT, "kind": kind, "model": model.about.get("checksums", {}).get("model.keras", "")}
    with (
        representations_file(path, count, about) as append,
        progress(None, "representing galaxies", total=count) as meter,
    ):
        for names, pixels, _ in blocks:
            seen = datasets.cut_views(pixels, names, *sight, 0, None)
            features = features_of(model.backbone, seen)
            ids = np.array([name.decode() for name in names.numpy()])
            good = np.array([name not in bad for name in ids], bool)
            append(ids[good].tolist(), known.represent(features[good], kind))
            written += int(good.sum())
            meter.update(len(ids))
    if not written:
        raise UserError(f"No image could be read; the first reason is: {next(iter(bad.values()))}")
    return written
