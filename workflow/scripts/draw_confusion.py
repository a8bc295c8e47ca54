"""Draw the confusion matrices of one subset of the test galaxies."""

from zoolib.figures.confusion import draw_confusion
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    draw_confusion(
        confusion=snakemake.input.confusion,
        subset=snakemake.params.subset,
        outputs=[snakemake.output.svg, snakemake.output.png],
    )
