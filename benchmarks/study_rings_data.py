"""What the study of the real rings learns from: surveys, folds, and rings drawn into real galaxies."""

import numpy as np
import pandas as pd
from inject_rings import draw_ring, inject_ring
from PIL import Image
from scipy.special import expit
from sklearn.model_selection import StratifiedKFold
from zoolib.job.logs import whole
from zoolib.simulation.survey import FILES, write_record
from zoolib.simulation.volunteers import SCATTER, visible_strengths

SEEDS, FOLDS = (1, 2, 3), 5
# Times the noise of the simulation: the corners of real images have 1.6 times as much.
NOISE = {"quiet": 1.0, "noisy": 1.6}
# Images with a drawn ring for each galaxy without one.
COPIES = 3
# Every eighth galaxy that the drawn rings are learned from is their test; tested folds stay unseen.
TESTED = 8


def write_survey(folder, name, galaxies, size, threads):
    """Write a simulated survey whose volunteers are asked about rings too, unless it is there already.

    Args:
        folder: of all surveys.
        name: a key of `NOISE`.
        galaxies: number of galaxies.
        size: edge of the images in pixels.
        threads: number of processes that draw.
    """
    folder = folder / name
    table = folder / "volunteers.parquet"
    if table.is_file():
        return
    write_record(folder, galaxies, size, seed=1, threads=threads, noise=NOISE[name])
    votes = pd.read_parquet(folder / FILES["table"])
    asked = ask_about_rings(votes, pd.read_parquet(folder / FILES["truth"]), np.random.default_rng(2))
    with whole(table) as partial:
        votes.assign(**asked).to_parquet(partial, index=False)


def ask_about_rings(votes, truth, rng):
    """Votes of simulated volunteers on a ring; those who see a disc face on are asked.

    Their probabilities, their scatter and their random clicks are as those of the other questions.

    Args:
        votes: the record's table.
        truth: `truth.parquet`, in the same order.
        rng: a numpy `Generator`.

    Returns:
        {"ring_yes", "ring_no": (galaxies,) whole numbers}.
    """
    smooth = expit(9 * (visible_strengths(truth)["ring"] - 0.3))
    scattered = rng.beta(SCATTER * smooth, SCATTER * (1 - smooth))
    lapses = truth["lapses"].to_numpy()
    asked = votes["disk-edge-on_no"].to_numpy()
    yes = rng.binomial(asked, (1 - lapses) * scattered + lapses / 2)
    return {"ring_yes": yes, "ring_no": asked - yes}


def with_folds(table):
    """Add the columns `seed{seed}_fold{fold}`: train, val or test.

    Each fold is the test of one column and the validation of another; each seed divides in another way.

    Args:
        table: id_str, ring (0 or 1).

    Returns:
        The table in the order of its names, with a column for each seed and fold.
    """
    table = table.sort_values("id_str", ignore_index=True)
    for seed in SEEDS:
        fold = np.empty(len(table), int)
        parts = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(table, table["ring"])
        for number, (_, chosen) in enumerate(parts):
            fold[chosen] = number
        for number in range(FOLDS):
            words = np.where(fold == number, "test", np.where(fold == (number + 1) % FOLDS, "val", "train"))
            table[f"seed{seed}_fold{number}"] = words
    return table


def draw_rings_into(table, images, folder):
    """Draw rings into the galaxies without one, for each seed and fold only into those that it learns from.

    Args:
        table: of `with_folds`, with `file_loc`.
        images: the folder that `file_loc` starts from.
        folder: where images go, and `injected.csv`: id_str, file_loc, injected (0 or 1), and for each seed
            and fold train, val or test, blank for galaxies of the tested fold.
    """
    path = folder / "injected.csv"
    if path.is_file():
        return
    (folder / "injected").mkdir(parents=True, exist_ok=True)
    columns = [column for column in table if column.startswith("seed")]
    rows = []
    for number, host in enumerate(table[table["ring"] == 0].to_dict("records")):
        image = np.asarray(Image.open(images / host["file_loc"]).convert("RGB"))
        rng = np.random.default_rng([7, number])
        try:
            ringed = [inject_ring(image, draw_ring(rng)) for _ in range(COPIES)]
        except ValueError:
            # Too small, or larger than the image: nobody learns from it.
            continue
        tested = number % TESTED == 0
        parts = {column: _part(host[column], tested) for column in columns}
        for copy, pixels in enumerate([image, *ringed]):
            name = f"{host['id_str']}_{copy}"
            Image.fromarray(pixels).save(folder / "injected" / f"{name}.png")
            place = str((folder / "injected" / f"{name}.png").absolute())
            rows.append({"id_str": name, "file_loc": place, "injected": int(copy > 0), **parts})
    with whole(path) as partial:
        pd.DataFrame(rows).to_csv(partial, index=False)


def _part(word, tested):
    if word == "test":
        return ""
    return "test" if tested and word == "train" else word


def draw_sheet(injected, path):
    """Draw the first fifteen galaxies on one page, each as it is and with its first ring, five pairs a row.

    Args:
        injected: the table of `draw_rings_into`.
        path: PNG to write.
    """
    hosts = injected[injected["injected"] == 0].index[:15]
    sheet = Image.new("RGB", (10 * 102, 3 * 102))
    for number, host in enumerate(hosts):
        for side in (0, 1):
            image = Image.open(injected["file_loc"][host + side])
            margin = image.width // 4
            middle = image.crop((margin, margin, image.width - margin, image.height - margin)).resize(
                (100, 100)
            )
            sheet.paste(middle, ((2 * (number % 5) + side) * 102, number // 5 * 102))
    with whole(path) as partial:
        sheet.save(partial, "png", optimize=True)
