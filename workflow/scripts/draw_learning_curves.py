"""Draw the learning curves of an ensemble or of a finetuned task."""

from zoolib.figures.learning_curves import draw_learning_curves
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    draw_learning_curves(
        histories=list(snakemake.input.histories),
        names=snakemake.params.names,
        outputs=[snakemake.output.svg, snakemake.output.png],
        title=snakemake.params.title,
    )
