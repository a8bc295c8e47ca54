"""The paper's figures again: arithmetic by hand, pictures from little data, messages where there is none."""

import itertools

import numpy as np
import pandas as pd
import pytest
from drawn import some_survey
from PIL import Image
from scipy import stats
from zoolib.figures import paper_galleries, paper_posteriors, paper_scores, paper_tables
from zoolib.figures.paper_predictions import draw_predictions
from zoolib.scores.held_out import HeldOut, held_out


def texts(path):
    """Matplotlib writes each text of an SVG as a comment beside its outlines."""
    return [part.split("-->")[0].strip() for part in path.read_text().split("<!--")[1:]]


# Figures from predictions


@pytest.fixture(scope="module")
def survey(tmp_path_factory, tree):
    return some_survey(tmp_path_factory.mktemp("survey"), tree, 400)


def test_the_error_of_a_few_volunteers_is_that_of_all_their_choices():
    votes = np.array([[3, 1, 2], [0, 5, 1]])
    errors = []
    for of_galaxy in votes:
        people = np.repeat(range(3), of_galaxy)
        for chosen in itertools.combinations(people, 2):
            fractions = np.bincount(chosen, minlength=3) / 2
            errors.append(np.abs(fractions - of_galaxy / 6).mean())
    assert paper_scores.expected_volunteer_error(votes, 2) == pytest.approx(np.mean(errors))
    assert paper_scores.expected_volunteer_error(votes, 6) == pytest.approx(0)
    by_hand = np.abs(votes / 6 - 1 / 3).mean()
    assert paper_scores.expected_volunteer_error(votes, 0) == pytest.approx(by_hand)


def test_the_most_voted_stand_in_where_few_have_many_votes():
    many = np.r_[np.full(300, 40), np.full(30, 80)]
    assert paper_scores.most_voted(many, 75).sum() == 30
    few = np.arange(300) % 60
    few[:5] = 90
    chosen = paper_scores.most_voted(few, 75)
    assert chosen[:5].all()
    assert 100 <= chosen.sum() < 110
    assert few[chosen].min() == few[~chosen].max() + 1
    assert not paper_scores.most_voted(np.array([5, 6]), 75).any()


def test_deviations_by_hand(tree):
    votes, fractions = np.zeros((2, 34)), np.zeros((2, 34))
    votes[:, :3] = [[8, 2, 0], [0, 0, 10]]
    fractions[:, :3] = [[0.5, 0.4, 0.1], [0.1, 0.2, 0.7]]
    held = HeldOut(tree, "concentrations", None, votes, None, fractions, 1)
    counts, deviations = paper_scores.fraction_deviations(held)
    assert counts == [2, *[0] * 9]
    assert deviations[:3] == pytest.approx([(0.3 + 0.1) / 2, (0.2 + 0.2) / 2, (0.1 + 0.3) / 2])
    assert np.isnan(deviations[3:]).all()


def test_vote_predictions_are_scipys():
    found = paper_posteriors.vote_predictions([[2.0, 5.0], [3.0, 1.0]], 7, "concentrations")
    expected = stats.dirichlet_multinomial.pmf([[k, 7 - k] for k in range(8)], [5.0, 1.0], 7)
    np.testing.assert_allclose(found[1], expected)
    found = paper_posteriors.vote_predictions([[0.2], [0.8]], 7, "probabilities")
    np.testing.assert_allclose(found[0], stats.binom.pmf(range(8), 7, 0.2))


def test_entropy_of_votes_is_that_of_all_ways_they_can_fall():
    values = np.array([[[4.0, 1.0], [2.0, 9.0]], [[90.0, 90.0], [1.0, 1.0]]])
    found = paper_galleries.vote_entropies(values, "concentrations", asked=10)
    mixture = stats.betabinom.pmf(range(11), 10, values[0, 0][:, None], values[0, 1][:, None]).mean(axis=0)
    assert found[0] == pytest.approx(stats.entropy(mixture))
    assert found[1] < found[0]


def test_the_votes_of_a_sample_that_is_a_mixture_are_those_of_its_components():
    values = np.array([[2.0, 9.0, 4.0, 30.0], [3.0, 1.0, 4.0, 2.0]])
    weights = np.array([0.05, 0.45, 0.3, 0.2])
    found = paper_posteriors.vote_predictions(values, 7, "concentrations", weights, per_sample=2)
    each = paper_posteriors.vote_predictions(values, 7, "concentrations")
    np.testing.assert_allclose(found, [0.1 * each[0] + 0.9 * each[1], 0.6 * each[2] + 0.4 * each[3]])
    np.testing.assert_allclose(found.mean(axis=0), weights @ each)
    # A recalibration makes several equal components of one, without weights.
    equal = paper_posteriors.vote_predictions(values, 7, "concentrations", None, per_sample=2)
    np.testing.assert_allclose(equal, [each[:2].mean(axis=0), each[2:].mean(axis=0)])
    entropy = paper_galleries.vote_entropies(values[None], "concentrations", 7, weights[None])
    assert entropy[0] == pytest.approx(stats.entropy(weights @ each))


def test_galaxies_of_the_posteriors_are_spread_by_their_votes(survey):
    held = held_out(*survey.files, min_votes=20)
    question = held.question("bar")
    chosen = paper_posteriors.spread_galaxies(held, question, 0, 5)
    votes = held.votes[chosen][:, question.slice]
    fractions = votes[:, 0] / votes.sum(axis=1)
    assert len(set(chosen)) == 5
    assert (np.diff(fractions) >= 0).all()
    assert fractions[-1] - fractions[0] > 0.5


FROM_PREDICTIONS = ("figure_11", "figure_12", "figure_15", "figure_16", "figure_17", "figure_18", "galleries")


@pytest.mark.parametrize("min_votes", [20, 1000])
def test_figures_of_predictions_are_drawn_also_without_a_galaxy(survey, published, tmp_path, min_votes):
    vector = {"figure_15", "figure_16"}
    outputs = {name: [tmp_path / f"{name}.png"] for name in FROM_PREDICTIONS}
    for name in vector:
        outputs[name].append(tmp_path / f"{name}.svg")
    flat = survey.files[0].with_name("flat.parquet")
    draw_predictions(*survey.files, [flat], min_votes, "product", published["figures"], outputs)
    for paths in outputs.values():
        with Image.open(paths[0]) as image:
            assert min(image.size) > 250
    shown = {name: " ".join(texts(tmp_path / f"{name}.svg")) for name in vector}
    if min_votes == 1000:
        assert "No galaxy has enough votes" in shown["figure_15"]
        assert "Too few galaxies (0 with more than 75 votes; this figure needs 20)" in shown["figure_16"]
    else:
        assert "More than 4" in shown["figure_15"]
        assert "galaxies with 76 votes or more" in shown["figure_16"]
        assert "worth" in shown["figure_16"]


# Figures from tables


def test_bulge_and_winding_by_hand():
    passes = {"smooth-or-featured_featured-or-disk": 0.5, "disk-edge-on_no": 0.8, "has-spiral-arms_yes": 0.7}
    passes |= {"merging_none": 0.6, "bulge-size_small": 0.4, "bulge-size_moderate": 0.3}
    passes |= {"bulge-size_large": 0.2, "bulge-size_dominant": 0.1, "spiral-winding_medium": 0.4}
    passes |= {"spiral-winding_tight": 0.5}
    table = pd.DataFrame([passes, passes | {"merging_none": 0.5}, passes | {"merging_none": np.nan}])
    bulge, winding = paper_tables.bulge_and_winding(table.add_suffix("_fraction"))
    assert bulge == pytest.approx([0.25 * 0.4 + 0.5 * 0.3 + 0.75 * 0.2 + 0.1])
    assert winding == pytest.approx([0.5 * 0.4 + 0.5])


def simulated_table(tree, galaxies=600):
    """A table like the record's, in which active learning chose the featured galaxies."""
    random = np.random.default_rng(3)
    totals = random.integers(30, 60, galaxies)
    votes, columns = np.zeros((galaxies, len(tree.columns)), int), {}
    for question in tree.questions:
        asked = votes[:, tree.parents(question)].sum(axis=1) if question.after else totals
        # Most galaxies pass the cuts of figure 20.
        weights = np.array([5 if column in paper_tables.CUTS else 1 for column in question.columns])
        votes[:, question.slice] = random.multinomial(asked, weights / weights.sum())
        for column, answered in zip(question.columns, votes[:, question.slice].T, strict=True):
            columns[column] = answered
            columns[f"{column}_debiased"] = np.clip(answered / np.maximum(asked, 1) * 1.2, 0, 1)
    table = pd.DataFrame(columns)
    featured = table["smooth-or-featured_featured-or-disk"] / totals
    table["upload_group"] = np.where(featured > featured.median(), "active_priority", "pre_active")
    return table.assign(
        iauname=[f"J{i}" for i in range(galaxies)],
        redshift=random.uniform(0.02, 0.15, galaxies),
        petro_theta=random.uniform(3, 20, galaxies),
        in_gzd_ab=False,
    )


def draw(folder, votes, tree, published, earlier=(), models=()):
    names = ("figure_02", "figure_03", "figure_10", "figure_20")
    outputs = {name: [folder / f"{name}.svg", folder / f"{name}.png"] for name in names}
    paper_tables.draw_tables(
        [votes], tree, "GZD-5", dict(earlier), dict(models), published["figures"], outputs
    )
    return {name: " ".join(texts(folder / f"{name}.svg")) for name in names}


def test_figures_of_predictions_of_a_multinomial_head(tmp_path, tree, published):
    made = some_survey(tmp_path, tree, 60, "probabilities")
    outputs = {name: [tmp_path / f"{name}.png"] for name in FROM_PREDICTIONS}
    draw_predictions(*made.files, [tmp_path / "flat.parquet"], 20, "asked", published["figures"], outputs)
    assert all(paths[0].stat().st_size > 5000 for paths in outputs.values())


def test_debiasing_counts_the_galaxies_that_mostly_have_an_answer(tmp_path, tree):
    table = simulated_table(tree)
    table.loc[::9, [f"{column}_debiased" for column in tree.columns]] = np.nan
    table.loc[1::7, "redshift"] = 0.2
    # Few votes on the last question.
    few = table.index % 5 == 0
    table.loc[few, ["has-spiral-arms_yes", "has-spiral-arms_no"]] = [4, 1]
    table.to_parquet(tmp_path / "votes.parquet")
    read = paper_tables.read_record_table(tmp_path / "votes.parquet", tree)
    counts, galaxies = paper_tables.counts_by_redshift(read, tree, "has-spiral-arms_yes")
    chain = ("smooth-or-featured_featured-or-disk", "disk-edge-on_no")
    expected, used = {"_fraction": [], "_debiased": []}, 0
    for row in table.to_dict("records"):
        asked = row["has-spiral-arms_yes"] + row["has-spiral-arms_no"]
        if np.isnan(row["has-spiral-arms_yes_debiased"]) or asked <= 5 or row["redshift"] > 0.15:
            continue
        used += 1
        share = {}
        for column in (*chain, "has-spiral-arms_yes"):
            question = column.rsplit("_", 1)[0]
            share[column] = row[column] / sum(row[c] for c in tree.columns if c.rsplit("_", 1)[0] == question)
        for end, of in (("_fraction", share), ("_debiased", {c: row[f"{c}_debiased"] for c in share})):
            if of["has-spiral-arms_yes"] > 0.5 and of[chain[0]] * of[chain[1]] > 0.5:
                expected[end].append(row["redshift"])
    assert galaxies == used > 200
    for end, redshifts in expected.items():
        assert list(counts[end]) == list(np.histogram(redshifts, np.linspace(0.02, 0.15, 14))[0])
    # Debiasing makes fractions larger here.
    assert 20 < counts["_fraction"].sum() < counts["_debiased"].sum()


def test_figures_of_tables_say_what_they_count(tmp_path, tree, published):
    table = simulated_table(tree)
    table.to_parquet(tmp_path / "votes.parquet")
    shown = draw(tmp_path, tmp_path / "votes.parquet", tree, published)
    assert "GZD-5: 600 galaxies" in shown["figure_02"]
    assert "100% with 30 or more" in shown["figure_02"]
    chosen = (table["upload_group"] == "active_priority").sum()
    assert f"Chosen by active learning ({chosen})" in shown["figure_03"]
    assert "Featured or disk (600 galaxies)" in shown["figure_10"]
    assert "before debiasing" in shown["figure_10"]
    assert "after" in shown["figure_10"]
    read = paper_tables.read_record_table(tmp_path / "votes.parquet", tree)
    bulge, _ = paper_tables.bulge_and_winding(paper_tables.chosen_by_volunteers(read))
    assert 20 < len(bulge) < 300
    assert f"{len(bulge)} galaxies (paper: 5,378)" in shown["figure_20"]
    assert "rank correlation" in shown["figure_20"]


def test_the_galaxy_datasets_naming_is_read_too(tmp_path, tree):
    table = simulated_table(tree, 50)
    naming = tree.vote_columns([c.replace("_", "-dr5_", 1) for c in tree.columns], "a table")
    renamed = table.rename(columns=naming)
    assert "bar-dr5_strong" in renamed
    table.to_csv(tmp_path / "a.csv", index=False)
    renamed.to_csv(tmp_path / "b.csv", index=False)
    first, second = (paper_tables.read_record_table(tmp_path / f"{name}.csv", tree) for name in "ab")
    columns = ["total", "bar_strong", "bar_strong_fraction"]
    pd.testing.assert_frame_equal(first[columns], second[columns])


def test_a_table_without_a_column_gives_a_message_in_the_figure(tmp_path, tree, published):
    simulated_table(tree)[["iauname", *tree.columns]].to_csv(tmp_path / "votes.csv", index=False)
    shown = draw(tmp_path, tmp_path / "votes.csv", tree, published)
    assert "Other or unknown (600)" in shown["figure_02"]
    assert "The table has no column upload_group." in shown["figure_03"]
    assert "The table has no column redshift." in shown["figure_10"]
    assert "Volunteers" in shown["figure_20"]


def test_the_miniatures_real_tables(tmp_path, tree, published, real_data):
    folder = real_data / "gz_decals_record"
    shown = draw(
        tmp_path,
        folder / "gz_decals_volunteers_5.csv",
        tree,
        published,
        earlier={"GZD-1 and 2": folder / "gz_decals_volunteers_1_and_2.csv"},
        models={"Published": ([folder / "gz_decals_auto_posteriors.csv"], 43672)},
    )
    assert "GZD-1 and 2: 6 galaxies, median 30 votes, 50% with 30 or more" in shown["figure_02"]
    assert "GZD-5: 1,457 galaxies, median 27 votes" in shown["figure_02"]
    assert "Too few galaxies for this figure (2 of pre_active, 1 of active_priority" in shown["figure_03"]
    assert "(3 with debiased fractions; it needs 20 or more)" in shown["figure_10"]
    assert "0 galaxies (paper: 43,672)" in shown["figure_20"]
    # The record's own fractions are those of its votes.
    own = paper_tables.read_record_table(folder / "gz_decals_volunteers_5.csv", tree)
    given = pd.read_csv(folder / "gz_decals_volunteers_5.csv")
    for column in ("bar_weak", "disk-edge-on_no", "spiral-arm-count_cant-tell"):
        np.testing.assert_allclose(own[f"{column}_fraction"], given[f"{column}_fraction"])
