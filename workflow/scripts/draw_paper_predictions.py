"""Draw the paper's figures of galaxies that no model was trained on."""

from zoolib.figures.paper_predictions import draw_predictions
from zoolib.figures.style import by_name
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    draw_predictions(
        predictions=snakemake.input.predictions,
        recalibrations=snakemake.input.recalibrations,
        catalog=snakemake.input.catalog,
        descriptions=list(snakemake.input.descriptions),
        min_votes=snakemake.params.min_votes,
        rule=snakemake.params.rule,
        published=snakemake.params.published,
        outputs=by_name(snakemake.output),
    )
