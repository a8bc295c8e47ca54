"""Score the fits of a task that learned from fewer labels, and draw score against number of labels."""

from zoolib.figures.label_counts import draw_label_counts
from zoolib.job.logs import log_to
from zoolib.scores.tasks import evaluate_label_counts

with log_to(snakemake.log[0]):
    evaluate_label_counts(
        galaxies=snakemake.input.galaxies,
        predictions=dict(zip(snakemake.params.fits, snakemake.input.predictions, strict=True)),
        probe=snakemake.input.probe,
        output=snakemake.output.scores,
    )
    draw_label_counts(
        table=snakemake.output.scores,
        outputs=[snakemake.output.figure],
        published=snakemake.input.published,
    )
