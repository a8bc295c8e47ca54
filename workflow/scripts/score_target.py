"""Score the predictions of a target with the user's own labels of its galaxies, and draw the comparison."""

from zoolib.figures.task_results import draw_task_confusion, draw_task_curves
from zoolib.job.logs import log_to
from zoolib.scores.given_labels import score_target

with log_to(snakemake.log[0]):
    score_target(
        predictions=snakemake.input.predictions,
        labels=snakemake.input.labels[0],
        where=snakemake.params.where,
        seed=snakemake.params.seed,
        output=snakemake.output,
        recalibrations=snakemake.input.recalibrations,
        name=snakemake.params.name,
    )
    confusion, curves = snakemake.output.figures
    draw_task_confusion(snakemake.output.galaxies, snakemake.output.confusion, [confusion])
    draw_task_curves(snakemake.output.galaxies, [curves])
