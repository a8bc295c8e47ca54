"""The paper's figures of galaxies that no model was trained on."""

from zoolib.figures.gallery import draw_surest
from zoolib.figures.paper_galleries import draw_entropies, draw_two_or_cannot_tell
from zoolib.figures.paper_posteriors import draw_posteriors
from zoolib.figures.paper_scores import draw_deviations, draw_volunteers
from zoolib.scores.held_out import held_out

# The galleries of the paper's supplement, A1 to A5.
SUREST = {
    "Strong bar": "bar_strong",
    "Edge-on, no\nbulge": "edge-on-bulge_none",
    "One arm": "spiral-arm-count_1",
    "Loose winding": "spiral-winding_loose",
    "Merger": "merging_merger",
}


def draw_predictions(
    predictions, catalog, descriptions, min_votes, rule, published, outputs, recalibrations=None
):
    """Draw figures 11, 12 and 15 to 18 of Walmsley et al. 2022, and the galleries of its supplement.

    Args:
        predictions: HDF5 of the evaluated galaxies.
        catalog: catalogue (Parquet) that says their votes and where the images are.
        descriptions: Parquet parts of their flat catalogue.
        min_votes: fewest votes on the first question, for galaxies that are compared with the volunteers.
        rule: which galaxies a question counts for, one of `RELEVANCE`.
        published: published numbers of the figures, {"figure_15", "figure_16"}.
        outputs: {"figure_11", "figure_12", "figure_15", "figure_16", "figure_17", "figure_18",
            "galleries": paths to write}; svg for 15 and 16, png for all.
        recalibrations: files of the members to correct the predictions by.
    """
    held = held_out(predictions, catalog, min_votes, rule, recalibrations)
    draw_posteriors(held, "has-spiral-arms", ["yes"], outputs["figure_11"])
    draw_posteriors(held, "bar", ["strong", "weak", "no"], outputs["figure_12"], count=5)
    draw_deviations(held, published["figure_15"], outputs["figure_15"])
    draw_volunteers(held, published["figure_16"], outputs["figure_16"])
    draw_two_or_cannot_tell(held, *outputs["figure_17"])
    draw_entropies(held, *outputs["figure_18"])
    draw_surest(descriptions, catalog, SUREST, "The surest of each kind", *outputs["galleries"])
