"""Figures of finetuned tasks: which galaxies and numbers they show, for each kind of label."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from task_fits import KIND, RING, SIZE, VOTES, write_fits
from zoolib.figures.gallery import HEADER, MARGIN, TILE
from zoolib.figures.label_counts import draw_label_counts
from zoolib.figures.task_gallery import choose, draw_task_gallery
from zoolib.figures.task_results import _draw_ranks, draw_task_confusion, draw_task_curves
from zoolib.scores.outcomes import outcomes, read_galaxies, write_galaxies
from zoolib.scores.tasks import evaluate_task


def svg_text(path):
    """Matplotlib writes each text as a comment beside its outlines."""
    return re.findall(r"<!-- (.*?) -->", path.read_text(), flags=re.DOTALL)


def drawn(folder, labels, **settings):
    fits = write_fits(folder, labels, **settings)
    names = {"galaxies": "parquet", "scores": "csv", "confusion": "csv", "advice": "csv"}
    output = SimpleNamespace(**{name: folder / "out" / f"{name}.{suffix}" for name, suffix in names.items()})
    evaluate_task(fits.galaxies, fits.predictions, 1, output)
    draw_task_confusion(output.galaxies, output.confusion, [folder / "confusion.svg"])
    draw_task_curves(output.galaxies, [folder / "curves.svg"])
    found, table = read_galaxies(output.galaxies)
    tested = table[table["split"] == "test"].reset_index(drop=True)
    scores = pd.read_csv(output.scores).set_index(["label", "split", "score"]).sort_index()["value"]
    return SimpleNamespace(
        galaxies=output.galaxies,
        table=tested,
        outcomes=outcomes(found, tested),
        scores=scores,
        confusion=svg_text(folder / "confusion.svg"),
        curves=svg_text(folder / "curves.svg"),
    )


def test_figures_say_the_scores_of_the_table(tmp_path):
    found = drawn(tmp_path, [RING])
    scores = found.scores["ring", "test"]
    assert f"{scores['accuracy']:.1%} of 40 agree" in found.confusion
    assert f"Ring, area {scores['auc']:.3f}" in found.curves
    assert f"calibration error {scores['calibration_error']:.3f} (bars: 95 % intervals)" in found.curves


def test_every_class_and_every_number_has_its_panel(tmp_path):
    found = drawn(tmp_path, [KIND, SIZE])
    for name in ("Elliptical", "Spiral", "Edge on", "Merger"):
        assert any(text.startswith(f"{name}, area ") for text in found.curves)
    assert {"Type", "Size"} <= set(found.confusion)
    assert any(text.startswith("40 galaxies, scatter ") for text in found.confusion)
    assert {"Size, label", "share of labels inside", "share of the posterior below the label"} <= set(
        found.curves
    )


def test_votes_and_other_labels_have_their_panels(tmp_path):
    found = drawn(tmp_path, [RING, VOTES, SIZE])
    assert "Label" in found.confusion and "Volunteers say" not in found.confusion
    titles = [text for text in found.curves if "test galaxies" in text]
    assert [title.split(" (")[0] for title in titles] == ["Ring", "Size", "Shape", "Edge"]
    draw_task_gallery(found.galaxies, "mine", tmp_path / "gallery.png")


def test_votes_are_shown_question_by_question(tmp_path):
    found = drawn(tmp_path, [VOTES])
    assert {"Shape", "Edge", "Volunteers say"} <= set(found.confusion)
    assert {"Smooth", "Disk", "Star", "expected fraction"} <= set(found.curves)


@pytest.mark.parametrize("labels", [[RING, SIZE], [KIND], [VOTES]])
def test_one_test_galaxy_is_enough_to_draw(tmp_path, labels):
    found = drawn(tmp_path, labels, counts=(20, 5, 1))
    draw_task_gallery(found.galaxies, "one", tmp_path / "gallery.png")
    assert found.curves
    if labels == [RING, SIZE]:
        assert "all test galaxies have the same label" in found.curves


def test_the_gallery_shows_the_surest_the_least_sure_and_the_worst(tmp_path):
    found = drawn(tmp_path, [RING])
    [outcome], probability, truth = found.outcomes, found.table["ring_predicted"], found.table["ring"]
    rows = choose(outcome, 3)
    assert list(rows) == ["Surest ring", "Surest no ring", "Least sure", "Worst mistakes"]
    assert list(rows["Surest ring"]) == list(probability.nlargest(3).index)
    assert list(rows["Surest no ring"]) == list(probability.nsmallest(3).index)
    assert set(rows["Least sure"]) == set((probability - 0.5).abs().nsmallest(3).index)
    wrong = (probability > 0.5) != truth
    assert wrong.sum() > 0
    worst = (probability - truth).abs()[wrong].nlargest(3)
    assert list(rows["Worst mistakes"]) == list(worst.index)
    draw_task_gallery(found.galaxies, "ring", tmp_path / "gallery.png", across=3)
    first = Image.open(found.table["file_loc"][rows["Surest ring"][0]]).getpixel((5, 5))
    with Image.open(tmp_path / "gallery.png") as picture:
        assert picture.convert("RGB").getpixel((MARGIN + 20, HEADER + 20)) == first


def test_the_gallery_of_a_number_ranks_by_spread_and_error(tmp_path):
    found = drawn(tmp_path, [SIZE])
    rows = choose(found.outcomes[0], 4)
    assert list(rows["Surest"]) == list(found.table["size_spread"].nsmallest(4).index)
    assert list(rows["Least sure"]) == list(found.table["size_spread"].nlargest(4).index)
    error = (found.table["size_predicted"] - found.table["size"]).abs()
    assert list(rows["Worst mistakes"]) == list(error.nlargest(4).index)


def test_posteriors_that_are_right_hold_labels_evenly():
    """Each label counts for the bins of its piece: the bars' sum is the number of galaxies."""
    begin = np.random.default_rng(3).integers(0, 7, 400) / 7
    figure, panel = plt.subplots()
    _draw_ranks(panel, SimpleNamespace(ranks=np.stack([begin, begin + 1 / 7], axis=1)))
    heights = np.array([bar.get_height() for bar in panel.patches if bar.get_width() < 0.5])
    plt.close(figure)
    assert heights.sum() == pytest.approx(400)
    # Seven pieces in ten bins: bins that were counted by the middle of a piece would have 0 or 57 galaxies.
    assert len(heights) == 10 and np.all(np.abs(heights - 40) < 25)


def test_a_model_without_mistakes_has_none_to_show(tmp_path):
    found = drawn(tmp_path, [RING])
    outcome = found.outcomes[0]
    right = outcome.at((outcome.predicted[:, 0] > 0.5) == outcome.truth)
    assert len(choose(right, 3)["Worst mistakes"]) == 0


@pytest.fixture
def counts(tmp_path):
    rows = [
        (
            count,
            seed,
            start,
            "ring",
            "accuracy",
            0.5 + count / 400 + seed / 100 - 0.1 * (start == "scratch"),
            0.5,
        )
        for count in (20, 50, 100)
        for seed in range(3)
        for start in ("finetuned", "scratch")
    ]
    columns = ["labels", "seed", "start", "label", "score", "value", "constant"]
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(tmp_path / "counts.csv", index=False)
    return table


def test_label_counts_stand_beside_the_published_only_where_they_are_about_the_same(tmp_path, counts, repo):
    published = repo / "config/published/walmsley_2021_rings.yaml"
    draw_label_counts(tmp_path / "counts.csv", [tmp_path / "a.svg"], published)
    texts = svg_text(tmp_path / "a.svg")
    assert {"20", "50", "100", "Accuracy", "constant: the same answer for all galaxies"} <= set(texts)
    assert "finetuned, 3 seeds" in texts
    assert "from scratch, arXiv:2110.12735, digitised" in texts
    counts.assign(label="bar").to_csv(tmp_path / "bar.csv", index=False)
    draw_label_counts(tmp_path / "bar.csv", [tmp_path / "b.svg"], published)
    assert not any("2110.12735" in text for text in svg_text(tmp_path / "b.svg"))


def test_label_counts_of_votes_show_the_loss_of_all_questions(tmp_path, counts):
    parts = [counts.assign(label=name, score="log_loss") for name in ("shape", "all questions")]
    pd.concat(parts).to_csv(tmp_path / "votes.csv", index=False)
    draw_label_counts(tmp_path / "votes.csv", [tmp_path / "a.svg"])
    texts = svg_text(tmp_path / "a.svg")
    assert "All questions" in texts
    assert "Shape" not in texts
    assert "Loss (nats per galaxy)" in texts


def test_real_rings_in_a_gallery_have_their_colours(real_data, tmp_path):
    found = drawn(tmp_path, [RING], counts=(10, 5, 3))
    rings = [str(real_data / path) for path in pd.read_csv(real_data / "rings.csv")["file_loc"].head(3)]
    table = pd.read_parquet(found.galaxies)
    tested = np.flatnonzero(table["split"] == "test")
    table.loc[tested, "file_loc"] = rings
    write_galaxies(table, [RING], tmp_path / "real.parquet")
    draw_task_gallery(tmp_path / "real.parquet", "ring", tmp_path / "gallery.png", across=1)
    surest = table.loc[tested].nlargest(1, "ring_predicted")["file_loc"].iloc[0]
    with Image.open(tmp_path / "gallery.png") as picture, Image.open(surest) as galaxy:
        tile = np.asarray(picture.convert("RGB").crop((MARGIN, HEADER, MARGIN + TILE, HEADER + TILE)), float)
        small = galaxy.convert("RGB").resize(tile.shape[:2], Image.Resampling.LANCZOS)
        assert np.abs(tile - np.asarray(small, float)).mean() < 1
