"""Draw the figures of a finetuned task: confusion matrix, learning curve and gallery."""

from zoolib.figures.confusion import draw_confusion
from zoolib.figures.gallery import draw_label_gallery
from zoolib.figures.learning_curves import draw_learning_curves
from zoolib.logs import log_to

with log_to(snakemake.log[0]):
    draw_confusion(
        confusion=snakemake.input.confusion,
        subset="all",
        outputs=[snakemake.output.confusion],
        truth="Label",
    )
    draw_learning_curves(
        histories=[snakemake.input.history],
        names=[snakemake.wildcards.task],
        outputs=[snakemake.output.learning_curve],
        title=f"Finetuning {snakemake.wildcards.task}",
        loss="Loss (binary cross-entropy)",
    )
    draw_label_gallery(
        descriptions=list(snakemake.input.descriptions),
        catalog=snakemake.input.catalog,
        label=snakemake.params.label,
        output=snakemake.output.gallery,
        across=snakemake.params.across,
    )
