"""The simulated survey: layout of the record, votes by the probabilities, images that give nothing away."""

import hashlib
import io
import json
import multiprocessing
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from PIL import Image
from zoolib.config.agreement import SIMULATED
from zoolib.config.trees import DecisionTree
from zoolib.job.logs import UserError
from zoolib.scores.baselines import constant_concentrations
from zoolib.simulation import galaxies, survey, volunteers
from zoolib.simulation.pixels import grey_pixels, pixel_concentrations, pixel_labels
from zoolib.simulation.truth import mean_loss, share_closed


@pytest.fixture(scope="module")
def tree():
    return DecisionTree.load(survey.TREE)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """A folder with 60 galaxies of 32 px."""
    folder = tmp_path_factory.mktemp("record")
    survey.write_record(folder, galaxies=60, size=32, seed=1)
    return folder


@pytest.fixture(scope="module")
def population():
    """6,000 galaxies without their pixels."""
    return galaxies.draw_galaxies(6000, np.random.default_rng(3))


def read_images(folder):
    """{id_str: PNG bytes} of both archives."""
    images = {}
    for name in ("archive_1", "archive_2"):
        with zipfile.ZipFile(folder / survey.FILES[name]) as archive:
            for member in archive.namelist():
                images[member.split("/")[-1].removesuffix(".png")] = archive.read(member)
    return images


def test_same_seed_gives_the_same_bytes_with_any_number_of_threads(record, tmp_path):
    survey.write_record(tmp_path / "again", galaxies=60, size=32, seed=1, threads=2)
    survey.write_record(tmp_path / "other", galaxies=60, size=32, seed=2)
    for name in survey.FILES.values():
        assert (record / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
        assert (record / name).read_bytes() != (tmp_path / "other" / name).read_bytes(), name


def test_a_mac_draws_without_forked_processes(population, monkeypatch):
    table = population.head(6)
    expected = list(galaxies.render_all(table, 32, 1, threads=2))
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(multiprocessing, "get_context", None)
    assert list(galaxies.render_all(table, 32, 1, threads=2)) == expected


def test_noise_is_a_factor_and_hides_features(record, tmp_path):
    survey.write_record(tmp_path, galaxies=60, size=32, seed=1, noise=1.6)
    usual, noisy = (pd.read_parquet(folder / survey.FILES["truth"]) for folder in (record, tmp_path))
    np.testing.assert_allclose(noisy["noise"], 1.6 * usual["noise"])
    assert (volunteers.clarity(noisy) < volunteers.clarity(usual)).all()
    parameters = usual.columns[: usual.columns.get_loc("lapses")].drop("noise")
    pd.testing.assert_frame_equal(noisy[parameters], usual[parameters])


def test_table_has_the_columns_of_the_real_one(record, real_data):
    real = pd.read_csv(real_data / "gz_decals_record" / survey.FILES["table_csv"], nrows=6)
    simulated = pd.read_csv(record / survey.FILES["table_csv"])
    assert list(simulated.columns) == list(real.columns)
    for column in real.columns:
        if real[column].notna().any() and simulated[column].notna().any():
            numbers = pd.api.types.is_numeric_dtype(real[column])
            assert numbers == pd.api.types.is_numeric_dtype(simulated[column]), column
    assert simulated["png_loc"].str.fullmatch(r"dr5/J\d{3}/J\d{6}\.\d{2}[+-]\d{6}\.\d\.png").all()


def test_both_forms_of_the_table_agree(record):
    from_csv = pd.read_csv(record / survey.FILES["table_csv"])
    parquet = pd.read_parquet(record / survey.FILES["table"])
    pd.testing.assert_frame_equal(from_csv, parquet, check_dtype=False, rtol=1e-12)


def test_archives_are_laid_out_as_the_record_s(record):
    tops = []
    for name in ("archive_1", "archive_2"):
        with zipfile.ZipFile(record / survey.FILES[name]) as archive:
            assert archive.namelist()
            tops.append({member.count("/") for member in archive.namelist()})
            for member in archive.namelist():
                folder, file = member.split("/")[-2:]
                assert file.startswith(folder) and len(folder) == 4
    assert tops == [{2}, {1}]
    images = read_images(record)
    assert set(images) == set(pd.read_csv(record / survey.FILES["table_csv"])["iauname"])
    for content in images.values():
        image = Image.open(io.BytesIO(content))
        assert (image.size, image.mode) == ((32, 32), "RGB")


def test_description_tells_sizes_and_md5s(record):
    description = json.loads((record / survey.FILES["record"]).read_text())
    assert len(description["files"]) == 4
    for file in description["files"]:
        content = (record / file["key"]).read_bytes()
        assert file["size"] == len(content)
        assert file["checksum"] == f"md5:{hashlib.md5(content).hexdigest()}"
        assert file["links"]["self"].endswith(f"/{file['key']}/content")


def test_paths_may_be_named_outputs(tmp_path):
    class Output:
        pass

    for name in survey.FILES:
        setattr(Output, name, str(tmp_path / name / "file"))
    survey.write_record(Output, galaxies=12, size=16, seed=1)
    assert all((tmp_path / name / "file").is_file() for name in survey.FILES)


@pytest.mark.parametrize(("count", "size"), [(9, 32), (60, 8)])
def test_too_small_a_survey_is_refused(tmp_path, count, size):
    with pytest.raises(UserError, match=f"galaxies {count} and size {size}"):
        survey.write_record(tmp_path / "record", galaxies=count, size=size, seed=1)
    assert not (tmp_path / "record").exists()


def test_probabilities_are_smooth_in_strength(tree):
    faint = galaxies.draw_galaxies(1, np.random.default_rng(0)).loc[[0] * 101].reset_index(drop=True)
    faint = faint.assign(disc=1.0, axis_ratio=0.9, bulge_share=0.1, ring_strength=0.0, spiral_strength=0.0)
    for name, column in (("bar_strength", "bar_strong"), ("spiral_strength", "has-spiral-arms_yes")):
        raised = faint.assign(bar_strength=0.0).assign(**{name: np.linspace(0, 1, 101)})
        found = volunteers.smooth_probabilities(tree, raised)[:, tree.columns.index(column)]
        assert np.all(np.diff(found) >= 0)
        assert np.diff(found).max() < 0.04
        assert found[-1] - found[0] > 0.4


@pytest.fixture(scope="module")
def drawn(tree, population):
    """The probabilities of varied volunteers, the smooth ones, and the shares of random clicks."""
    return volunteers.draw_probabilities(tree, population, "varied", np.random.default_rng(6))


def without_lapses(tree, probabilities, lapses):
    """The probabilities before the random clicks were mixed in."""
    at_random = np.concatenate([np.full(len(q.answers), 1 / len(q.answers)) for q in tree.questions])
    return (probabilities - lapses[:, None] * at_random) / (1 - lapses[:, None])


def test_random_clicks_are_a_beta_of_each_galaxy_and_the_same_for_all_questions(tree, drawn):
    probabilities, _, lapses = drawn
    assert scipy.stats.kstest(lapses, scipy.stats.beta(2, 23).cdf).pvalue > 1e-3
    assert lapses.mean() == pytest.approx(volunteers.LAPSES, abs=0.002)
    # No answer is rarer than random clicks make it, and the share of all questions is that of the galaxy.
    for question in tree.questions:
        floor = lapses / len(question.answers)
        rarest = probabilities[:, question.slice].min(axis=1)
        assert (rarest >= floor - 1e-12).all()
        assert (rarest - floor).min() < 5e-3


def test_answers_scatter_around_what_a_galaxy_looks_like_as_a_dirichlet(tree, drawn):
    probabilities, smooth, lapses = drawn
    scattered = without_lapses(tree, probabilities, lapses)
    for column in ("smooth-or-featured_smooth", "bar_no", "bulge-size_small", "has-spiral-arms_yes"):
        expected, found = (table[:, tree.columns.index(column)] for table in (smooth, scattered))
        middle = (expected > 0.02) & (expected < 0.98)
        # The marginal of a Dirichlet is a Beta; its cumulative probabilities are uniform.
        marginal = scipy.stats.beta(100 * expected[middle], 100 * (1 - expected[middle]))
        assert scipy.stats.kstest(marginal.cdf(found[middle]), "uniform").pvalue > 1e-3, column
    for question in tree.questions:
        np.testing.assert_allclose(probabilities[:, question.slice].sum(axis=1), 1)


def test_truths_do_not_pile_up_at_their_ends(tree, population, drawn):
    column = tree.columns.index("disk-edge-on_yes")
    identical, smooth, lapses = volunteers.draw_probabilities(tree, population, "identical", None)
    np.testing.assert_allclose(without_lapses(tree, identical, lapses), smooth, atol=1e-12)
    assert (lapses == 0.08).all()

    def fullest_point(truths):
        """The largest share of the truths in an interval of one hundredth."""
        truths = np.sort(truths)
        return (np.searchsorted(truths, truths + 0.01) - np.arange(len(truths))).max() / len(truths)

    assert fullest_point(identical[:, column]) > 0.6
    assert fullest_point(drawn[0][:, column]) < 0.2


def test_the_truth_is_what_the_votes_were_drawn_from(tmp_path, tree):
    for kind in volunteers.KINDS:
        survey.write_record(tmp_path / kind, galaxies=60, size=16, seed=4, kind=kind)
    varied, identical = (
        pd.read_parquet(tmp_path / kind / survey.FILES["truth"]) for kind in volunteers.KINDS
    )
    smooth = [f"{column}_smooth" for column in tree.columns]
    for truth in (varied, identical):
        expected = without_lapses(tree, truth[tree.columns].to_numpy(), truth["lapses"].to_numpy())
        same = np.abs(expected - truth[smooth].to_numpy()).max() < 1e-9
        assert same == (truth is identical)
    # Galaxies and their images are the same; only the volunteers differ.
    own = [*tree.columns, "lapses"]
    pd.testing.assert_frame_equal(varied.drop(columns=own), identical.drop(columns=own))
    assert read_images(tmp_path / "varied") == read_images(tmp_path / "identical")


@pytest.mark.parametrize("kind", volunteers.KINDS)
def test_votes_go_down_the_tree_and_follow_the_probabilities(tree, population, kind):
    rng = np.random.default_rng(5)
    probabilities, _, _ = volunteers.draw_probabilities(tree, population, kind, rng)
    totals = volunteers.draw_totals(len(population), rng)
    votes = volunteers.draw_votes(tree, probabilities, totals, rng)
    artifact = votes[:, tree.columns.index("smooth-or-featured_artifact")]
    for question in tree.questions:
        assert np.allclose(probabilities[:, question.slice].sum(1), 1)
        asked = votes[:, question.slice].sum(1)
        if question.after:
            assert np.array_equal(asked, votes[:, tree.parents(question)].sum(1))
        elif question.name == "merging":
            assert (asked == totals - artifact).mean() > 0.9
        else:
            assert np.array_equal(asked, totals)
        expected = (asked[:, None] * probabilities[:, question.slice]).sum(0)
        spread = np.sqrt(
            (asked[:, None] * probabilities[:, question.slice] * (1 - probabilities[:, question.slice])).sum(
                0
            )
        )
        assert np.all(np.abs(votes[:, question.slice].sum(0) - expected) < 5 * spread)


def test_vote_totals_are_spread_like_the_record_s():
    totals = volunteers.draw_totals(20000, np.random.default_rng(1))
    assert np.median(totals) == 5
    assert totals.min() >= 3 and 75 < totals.max() <= 80
    # The record has 59,337 galaxies of 253,286 with 30 votes or more.
    assert abs((totals >= 30).mean() - 59337 / 253286) < 0.05


def test_ring_labels_are_balanced_and_tell_nothing_but_rings(population):
    labels = survey.ring_labels(population, 400, np.random.default_rng(1))
    assert len(labels) == 400 and labels["ring"].mean() == 0.5 and labels["id_str"].is_unique
    chosen = population.set_index("id_str").loc[labels["id_str"]]
    ringed = labels["ring"].to_numpy(bool)
    assert chosen["ring_strength"][ringed].min() > survey.GREY_ZONE[1]
    assert chosen["ring_strength"][~ringed].max() < survey.GREY_ZONE[0]
    for name in ("radius", "brightness", "noise", "axis_ratio", "bulge_share", "redness"):
        assert scipy.stats.ks_2samp(chosen[name][ringed], chosen[name][~ringed]).pvalue > 1e-3, name


def test_names_are_unique_even_where_positions_are_not():
    names = galaxies.sky_names([123.552003, 123.552003, 359.99999], [22.148061, 22.148061, -0.5])
    assert names[0] == "J081412.48+220853.0"
    assert len(set(names)) == 3
    assert names[2].startswith("J235959.9") and "-003000.0" in names[2]


def test_a_ring_is_where_it_is_drawn():
    galaxy = galaxies.draw_galaxies(1, np.random.default_rng(0)).iloc[0].to_dict()
    galaxy |= {"disc": 1.0, "axis_ratio": 1.0, "radius": 0.6, "bulge_share": 0.05, "spiral_strength": 0.0}
    galaxy |= {"bar_strength": 0.0, "disturbance": 0.0, "companion": 0.0, "artifact": 0.0, "clumpiness": 0.0}
    galaxy |= {"ring_radius": 2.0, "ring_width": 0.09, "brightness": 0.1, "break_strength": 0.0}
    plain, ringed = (
        galaxies.render(galaxy | {"ring_strength": strength}, 128, 1).astype(float).mean(-1)
        for strength in (0.0, 1.0)
    )
    axis = (np.arange(128) + 0.5) / 64 - 1
    distance = np.hypot(*np.meshgrid(axis, axis)) * galaxies.SCALES / galaxy["radius"]
    brighter = [(ringed - plain)[np.abs(distance - r) < 0.1].mean() for r in np.arange(0.5, 4, 0.25)]
    assert np.arange(0.5, 4, 0.25)[np.argmax(brighter)] == pytest.approx(2.0, abs=0.25)
    assert max(brighter) > 15


def test_pixels_give_little_away(tree, tmp_path):
    """16 x 16 pixels are between the constant and the truth, and much nearer to the constant."""
    survey.write_record(tmp_path, galaxies=1500, size=48, seed=11, threads=2)
    images, table = read_images(tmp_path), pd.read_parquet(tmp_path / survey.FILES["table"])
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(images[name]))) for name in table["iauname"]])
    pixels, votes = grey_pixels(pixels), table[tree.columns].to_numpy()
    truth = pd.read_parquet(tmp_path / survey.FILES["truth"])[tree.columns].to_numpy()
    train, test = slice(0, 1000), slice(1000, None)
    constant = np.tile(constant_concentrations(tree, votes[train]), (500, 1))
    constant = mean_loss(tree, votes[test], constant)
    regression = pixel_concentrations(tree, pixels[train], votes[train], pixels[test])
    regression = mean_loss(tree, votes[test], regression)
    best = mean_loss(tree, votes[test], truth[test], "probabilities")
    assert best < constant - 3
    assert share_closed(constant, regression, best) < 0.18

    rings = pd.read_csv(tmp_path / survey.FILES["rings"])
    chosen = rings["id_str"].map({name: row for row, name in enumerate(table["iauname"])}).to_numpy()
    order = np.random.default_rng(1).permutation(len(chosen))
    learn, check = order[: len(order) * 6 // 10], order[len(order) * 6 // 10 :]
    ring = rings["ring"].to_numpy()
    found = pixel_labels(pixels[chosen[learn]], ring[learn], pixels[chosen[check]]) > 0.5
    assert (found == ring[check]).mean() < 0.7


def test_the_configuration_knows_the_files_of_the_survey():
    assert {value for value in survey.FILES.values() if isinstance(value, str)} == set(SIMULATED)
