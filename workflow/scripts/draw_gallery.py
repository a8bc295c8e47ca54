"""Draw the galaxies with the highest vote fraction for each answer, one picture for each question."""

from zoolib.figures.gallery import draw_galleries
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    draw_galleries(
        descriptions=list(snakemake.input.descriptions),
        catalog=snakemake.input.catalog,
        outputs=snakemake.output.figures,
        across=snakemake.params.across,
    )
