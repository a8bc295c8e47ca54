"""The simulated survey: a folder of simulated galaxies with the layout of the true record."""

import hashlib
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from zoolib.config.trees import DecisionTree
from zoolib.job.logs import UserError, log, whole
from zoolib.job.provenance import hash_of_file
from zoolib.simulation import volunteers
from zoolib.simulation.galaxies import draw_galaxies, render_all

TREE = Path(__file__).parents[4] / "config" / "trees" / "gz_decals_5.yaml"
# The files of the record and those beside it, by the names of the rule's outputs.
FILES = {
    "table_csv": "gz_decals_volunteers_5.csv",
    "table": "gz_decals_volunteers_5.parquet",
    "archive_1": "gz_decals_dr5_png_part1.zip",
    "archive_2": "gz_decals_dr5_png_part2.zip",
    "rings": "rings.csv",
    "truth": "truth.parquet",
    "record": "record.json",
}
RECORD = 99990003
# The date of every file in a zip: that of the record, so that the same seed gives the same bytes.
PUBLISHED = (2020, 12, 29, 0, 0, 0)
# A galaxy below the first strength has no ring, one above the second has a ring; others get no label.
GREY_ZONE = (0.12, 0.6)
# Smallest clarity at which a ring could be seen: bright, large and face-on enough.
CLEAR = 0.64
# Greatest disturbance, companion or artifact of a labelled galaxy.
UNTROUBLED = 0.4


def ring_labels(galaxies, labels, rng):
    """Label galaxies with and without a ring, the same number of each.

    Rings in the grey zone are left out. Galaxies on which a ring could not be seen are left out too,
    whether they have one or not; otherwise brightness or inclination would give the label away.

    Args:
        galaxies: the table of `draw_galaxies`.
        labels: most galaxies to label.
        rng: a numpy `Generator`.

    Returns:
        A data frame: id_str, ring (0 or 1).
    """
    strength = np.asarray(galaxies["ring_strength"])
    clear = np.asarray(galaxies["disc"] > 0) & (volunteers.clarity(galaxies) > CLEAR)
    clear &= np.asarray(galaxies[["disturbance", "companion", "artifact"]].max(axis=1) < UNTROUBLED)
    without = np.flatnonzero(clear & (strength < GREY_ZONE[0]))
    ringed = np.flatnonzero(clear & (strength > GREY_ZONE[1]))
    each = min(labels // 2, len(without), len(ringed))
    chosen = np.sort(np.concatenate([rng.permutation(group)[:each] for group in (without, ringed)]))
    ring = np.isin(chosen, ringed).astype(int)
    return pd.DataFrame({"id_str": galaxies["id_str"].to_numpy()[chosen], "ring": ring})


def write_record(output, galaxies, size, seed, threads=1, labels=1200, kind=volunteers.KINDS[0], noise=1.0):
    """Write a simulated record: a folder that the pipeline cannot tell from the downloaded one.

    Args:
        output: a folder, or an object whose attributes are the paths to write, named as in `FILES`.
        galaxies: number of galaxies.
        size: edge of the images in pixels.
        seed: all bytes follow from it, whatever the number of threads.
        threads: number of processes that draw.
        labels: most galaxies that are labelled in `rings.csv`.
        kind: how volunteers differ, one of `volunteers.KINDS`. Galaxies and images are the same for all.
        noise: times the usual noise; volunteers then see less.

    Raises:
        UserError: fewer than 10 galaxies, or images under 16 pixels.
    """
    if galaxies < 10 or size < 16:
        raise UserError(
            f"zenodo.simulate: found galaxies {galaxies} and size {size}; a survey needs at least"
            " 10 galaxies and images of 16 pixels, so raise the smaller one."
        )
    if isinstance(output, (str, Path)):
        output = SimpleNamespace(**{name: Path(output) / file for name, file in FILES.items()})
    tree = DecisionTree.load(TREE)
    rng = np.random.default_rng(seed)
    population = draw_galaxies(galaxies, rng)
    population["noise"] *= noise
    # A generator of its own: the survey is otherwise the same, whatever the volunteers are like.
    of_galaxies = np.random.default_rng([seed, galaxies])
    probabilities, smooth, lapses = volunteers.draw_probabilities(tree, population, kind, of_galaxies)
    totals = volunteers.draw_totals(galaxies, rng)
    votes = volunteers.draw_votes(tree, probabilities, totals, rng)
    table = volunteers.volunteers_table(tree, population, votes, rng)
    truth = pd.concat(
        [
            population.assign(lapses=lapses),
            pd.DataFrame(probabilities, columns=tree.columns),
            pd.DataFrame(smooth, columns=tree.columns).add_suffix("_smooth"),
        ],
        axis=1,
    )
    for path, frame in ((output.table_csv, table), (output.rings, ring_labels(population, labels, rng))):
        with whole(path) as partial:
            frame.to_csv(partial, index=False)
    for path, frame in ((output.table, table), (output.truth, truth)):
        with whole(path) as partial:
            frame.to_parquet(partial, index=False)
    _write_archives(
        output, population, rng.random(galaxies) < 0.5, render_all(population, size, seed, threads)
    )
    _write_description(output)
    log.info(
        "simulated %d galaxies of %d px with %d votes; %d of them have 34 or more volunteers",
        galaxies,
        size,
        votes.sum(),
        (totals >= 34).sum(),
    )


def _write_archives(output, population, first, images):
    """Two zips like the record's: the first has one folder around all others, the second has not."""
    with whole(output.archive_1) as one, whole(output.archive_2) as two:
        with zipfile.ZipFile(one, "w") as part_1, zipfile.ZipFile(two, "w") as part_2:
            for name, in_first, image in zip(population["id_str"], first, images, strict=True):
                top = f"{Path(FILES['archive_1']).stem}/" if in_first else ""
                member = zipfile.ZipInfo(f"{top}{name[:4]}/{name}.png", PUBLISHED)
                (part_1 if in_first else part_2).writestr(member, image)


def _write_description(output):
    """The description of the record as the server would send it: names, sizes and md5s."""
    address = f"https://zenodo.org/api/records/{RECORD}"
    files = []
    for name in ("archive_1", "archive_2", "table_csv", "table"):
        path, key = Path(getattr(output, name)), FILES[name]
        files.append(
            {
                "id": hashlib.md5(key.encode()).hexdigest(),
                "key": key,
                "size": path.stat().st_size,
                "checksum": f"md5:{hash_of_file(path, 'md5')}",
                "links": {"self": f"{address}/files/{key}/content"},
            }
        )
    description = {
        "id": RECORD,
        "conceptrecid": str(RECORD - 1),
        "doi": f"10.5072/zenodo.{RECORD}",
        "conceptdoi": f"10.5072/zenodo.{RECORD - 1}",
        "metadata": {
            "title": "simulated Galaxy Zoo DECaLS record",
            "version": "0.0.2",
            "license": {"id": "cc-by-4.0"},
            "access_right": "open",
        },
        "files": files,
        "links": {"self": address},
    }
    with whole(output.record) as partial:
        partial.write_text(json.dumps(description, indent=1))
