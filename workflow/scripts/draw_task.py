"""Draw the figures of a finetuned task: confusion matrix, curves, learning curve and gallery."""

from zoolib.figures.learning_curves import draw_learning_curves
from zoolib.figures.task_gallery import draw_task_gallery
from zoolib.figures.task_results import draw_task_confusion, draw_task_curves
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    task, galaxies = snakemake.wildcards.task, snakemake.input.galaxies
    draw_task_confusion(galaxies, snakemake.input.confusion, [snakemake.output.confusion])
    draw_task_curves(galaxies, [snakemake.output.curves])
    draw_learning_curves(
        histories=list(snakemake.input.histories),
        names=[fit or task for fit in snakemake.params.fits],
        outputs=[snakemake.output.learning_curve],
        title=f"Finetuning {task}",
        loss="Loss",
    )
    draw_task_gallery(galaxies, task, snakemake.output.gallery, across=snakemake.params.across)
