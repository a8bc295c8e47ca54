"""Draw the galaxies of a survey with the highest values, and those unlike the training set."""

from zoolib.figures.survey import draw_survey
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    draw_survey(
        descriptions=list(snakemake.input.descriptions),
        places=list(snakemake.input.places),
        title=snakemake.params.title,
        output=snakemake.output.figure,
    )
