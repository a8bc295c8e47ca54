"""Pixels, tables, time stamps and places change under a run, and numbers of parts shrink."""

import io
import os
import random
import shutil
import zipfile
from functools import partial

import h5py
import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from pipeline import TEST, overlay
from runs import (
    CHAIN,
    Lost,
    copy_of_reference,
    differences,
    jobs_finished,
    kill_in,
    last_words,
    new_copy,
    run,
)

RESULTS = "results/test"
ARCHIVE = f"{RESULTS}/download/gz_decals_dr5_png_part1.zip"
VOTES = f"{RESULTS}/download/gz_decals_volunteers_5.parquet"
LABELS = f"{RESULTS}/download/rings.csv"
MEMBER = f"{RESULTS}/train/metrics/0"
RING = f"{RESULTS}/finetune/ring"
# Tasks have predictions of their own; the rule predict asks for those of the targets alone.
TASKS = ("ring", "chained")


class Row:
    """A fault with its cases.

    Args:
        name: of the fault, for the table.
        cells: {case: function(folder, random.Random) that raises `Lost`}.
    """

    def __init__(self, name, cells):
        self.name, self.tries = name, cells
        self.cells = tuple(cells)

    def attempt(self, cell, seed, place):
        """Try one case in an empty folder; returns None, or what was lost."""
        try:
            self.tries[cell](place, random.Random(seed))
        except Lost as lost:
            return str(lost)
        return None


def invert_images(repo):
    """Replace all images of one archive by their negatives, under the same names."""
    old = (repo / ARCHIVE).read_bytes()
    with zipfile.ZipFile(io.BytesIO(old)) as source, zipfile.ZipFile(repo / ARCHIVE, "w") as packed:
        for name in source.namelist():
            new = io.BytesIO()
            ImageOps.invert(Image.open(source.open(name)).convert("RGB")).save(new, "PNG")
            packed.writestr(name, new.getvalue())


def change_votes(repo):
    """Give every galaxy one more vote for a smooth one."""
    table = pd.read_parquet(repo / VOTES)
    column = next(name for name in table if name == "smooth-or-featured_smooth")
    table[column] += 1
    total = "smooth-or-featured_total-votes"
    if total in table:
        table[total] += 1
    table.to_parquet(repo / VOTES)


def change_labels(repo):
    """Exchange yes and no."""
    table = pd.read_csv(repo / LABELS)
    table.assign(ring=1 - table["ring"]).to_csv(repo / LABELS, index=False)


def trained_as_from_scratch(place, chance, change, folder, before=None):
    """A changed input gives the model that it gives in a new folder, whatever is left of the old training.

    Args:
        place: an empty folder.
        chance: random.Random.
        change: changes the downloaded files of a repository.
        folder: of the model, relative to the repository.
        before: called with the repository, before the change; it leaves something of an old training.
    """
    ours = copy_of_reference(place / "ours")
    variables = before(ours, folder, chance) if before else {}
    change(ours)
    (ours / folder / "model.keras").unlink(missing_ok=True)
    run(ours, f"{folder}/model.keras", *CHAIN, **variables)
    fresh = new_copy(place / "fresh")
    shutil.copytree(copy_of_reference(place / "old") / RESULTS / "download", fresh / RESULTS / "download")
    if folder == RING:
        shutil.copytree(place / "old" / MEMBER, fresh / MEMBER)
    change(fresh)
    run(fresh, f"{folder}/model.keras", *CHAIN)
    if not differences(ours, place / "old", f"{folder}/model.keras"):
        raise Lost("the old model was returned")
    if found := differences(ours, fresh, f"{folder}/model.keras"):
        raise Lost(f"the model is not that of a training from scratch: {found[0]}")


def keep(repo, folder, chance):
    """Train as under SLURM, where a finished model is kept under a second name."""
    variables = {"SLURM_JOB_ID": "1"}
    (repo / folder / "model.keras").unlink()
    run(repo, f"{folder}/model.keras", *CHAIN, **variables)
    if not (repo / folder / "kept").is_dir():
        raise Lost("nothing was kept")
    return variables


def interrupt(repo, folder, chance):
    """Leave the checkpoint of a training that was killed after an epoch."""
    rule = "finetune_task+ring" if folder == RING else "train_member+metrics-0"
    (repo / folder / "model.keras").unlink()
    kill_in(repo, rule, {"who": "group", "moment": "model"}, f"{folder}/model.keras", *CHAIN)
    if not list((repo / folder).rglob("checkpoint*")):
        raise Lost("the killed training left no checkpoint")
    return {}


def move_times(place, chance, of):
    """Time stamps of files go back by years, in no order; the next call gives the same results."""
    repo = copy_of_reference(place / "repo")
    files = [path for top in of for path in (repo / top).rglob("*") if path.is_file()]
    for path in files:
        moment = 1e9 + chance.randrange(10**8)
        os.utime(path, (moment, moment))
    run(repo, *CHAIN)
    _as_undisturbed(repo)


def go_on_elsewhere(place, chance, move):
    """A run that was moved makes what is missing, and nothing else.

    Args:
        place: an empty folder.
        chance: random.Random.
        move: moves a repository and returns its new folder.
    """
    repo = move(copy_of_reference(place / "repo"))
    missing = f"{RESULTS}/predict/test/catalog/0.parquet"
    (repo / missing).unlink()
    done = {path for outputs in jobs_finished(run(repo, *CHAIN)) for path in outputs.split(", ")}
    _as_undisturbed(repo)
    if extra := [path for path in done if "/train/" in path or "/shards/" in path or path.endswith(".keras")]:
        raise Lost(f"finished parts were done again: {extra}")


def _renamed(repo):
    return repo.rename(repo.parent / "another place")


def _linked(repo):
    (repo / "results").rename(repo.parent / "scratch disk")
    (repo / "results").symlink_to(repo.parent / "scratch disk")
    return repo


def _as_undisturbed(repo):
    if found := differences(repo):
        raise Lost(f"{len(found)} differences from the undisturbed run: {'; '.join(found[:5])}")


def shrink_chunks(place, chance):
    """Fewer chunks: every path that the documents name has each galaxy once."""
    repo = copy_of_reference(place / "repo")
    few = chance.choice([1, 2])
    of_tasks = [f"{RESULTS}/predict/{task}/predictions.hdf5" for task in TASKS]
    for count in (chance.choice([3, 4]), few):
        chunks = overlay(place, f"chunks{count}", {"predict": {"chunks": count}})
        run(repo, "predict", *of_tasks, *CHAIN, chunks)
    for target in ("test", *TASKS):
        folder = repo / RESULTS / "predict" / target
        _each_once(pd.read_parquet(folder / "catalog")["id_str"], f"{folder.name}/catalog")
        with h5py.File(folder / "predictions.hdf5") as ours:
            names = ours["id_str"].asstr()[:]
            _each_once(names, f"{folder.name}/predictions.hdf5")
            if np.isnan(ours["predictions"][:]).any():
                raise Lost(f"{folder.name}/predictions.hdf5 has missing values")
        parts = len(list((folder / "chunks").glob("*.hdf5")))
        if parts != few:
            raise Lost(f"{folder.name}/chunks has {parts} files, expected {few}")


def shrink_shards(place, chance):
    """Fewer shards: the folder has each galaxy once."""
    repo = copy_of_reference(place / "repo")
    for count in ({"train": chance.choice([3, 4]), "val": 2, "test": 2}, {"train": 1, "val": 1, "test": 1}):
        settings = overlay(place, f"shards{count['train']}", {"shards": {"count": count}})
        run(repo, "shards", *CHAIN, settings)
    for split in ("train", "val", "test"):
        parts = sorted(path.name for path in (repo / RESULTS / "shards" / split).glob("*"))
        if parts != ["0.json", "0.rejected.csv", "0.tfrecord"]:
            raise Lost(f"shards/{split} has {parts}, expected one shard")


def shrink_members(place, chance):
    """Fewer members: predictions are again those of the members that are left."""
    repo = copy_of_reference(place / "repo")
    two = overlay(place, "two", {"train": {"ensembles": [{"name": "metrics", "members": 2}]}})
    target = f"{RESULTS}/predict/test/predictions.hdf5"
    run(repo, target, *CHAIN, two)
    with h5py.File(repo / target) as file:
        if file["predictions"].shape[2] != 10:
            raise Lost(f"two members gave samples of shape {file['predictions'].shape}")
    run(repo, target, *CHAIN)
    if found := differences(repo, None, f"{RESULTS}/predict/test/predictions.hdf5"):
        raise Lost(f"after one member less: {found}")


def shrink_folds(place, chance):
    """Fewer folds: the scores are those of the folds that are left."""
    repo = copy_of_reference(place / "repo")
    task = {"name": "ring", "table": "rings.csv", "label": "ring", "epochs": 1}
    scores = repo / RESULTS / "evaluate/ring/scores.csv"
    seen = []
    for count in (4, 3):
        folds = overlay(place, f"folds{count}", {"finetune": {"tasks": [task | {"folds": count}]}})
        run(repo, scores.relative_to(repo), *TEST, folds)
        seen.append(pd.read_csv(scores))
    fresh = new_copy(place / "fresh")
    for part in ("download", "train"):
        shutil.copytree(repo / RESULTS / part, fresh / RESULTS / part)
    run(fresh, scores.relative_to(repo), *TEST, place / "folds3.yaml")
    pd.testing.assert_frame_equal(seen[1], pd.read_csv(fresh / scores.relative_to(repo)))


def _each_once(names, what):
    galaxies = len(set(names))
    if len(names) != galaxies:
        raise Lost(f"{what} has {len(names)} rows for {galaxies} galaxies; {last_words(what)}")


LEFT = {"nothing is left of it": None, "its model is kept": keep, "it was interrupted": interrupt}
ROWS = (
    Row(
        "changed pixels under unchanged tables",
        {
            f"{name}, {words}": partial(
                trained_as_from_scratch, change=invert_images, folder=folder, before=before
            )
            for name, folder in (("training", MEMBER), ("finetuning", RING))
            for words, before in LEFT.items()
        },
    ),
    Row(
        "changed tables under unchanged pixels",
        {
            f"{name}, {words}": partial(trained_as_from_scratch, change=change, folder=folder, before=before)
            for name, change, folder in (("votes", change_votes, MEMBER), ("labels", change_labels, RING))
            for words, before in LEFT.items()
        },
    ),
    Row(
        "time stamps moved backwards",
        {
            "of the downloads": partial(move_times, of=[f"{RESULTS}/download"]),
            "of all results": partial(move_times, of=["results"]),
            "of the code and configuration": partial(move_times, of=["workflow", "config", "rules"]),
        },
    ),
    Row(
        "results moved to another place",
        {
            "the project under another name": partial(go_on_elsewhere, move=_renamed),
            "results behind a link": partial(go_on_elsewhere, move=_linked),
        },
    ),
    Row(
        "fewer parts than before",
        {
            "chunks": shrink_chunks,
            "shards": shrink_shards,
            "members": shrink_members,
            "folds": shrink_folds,
        },
    ),
)
