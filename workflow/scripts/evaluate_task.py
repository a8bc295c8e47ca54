"""Score the predictions of a finetuned task, or of all its folds, against the labels."""

from zoolib.job.logs import log_to
from zoolib.scores.tasks import evaluate_task

with log_to(snakemake.log[0]):
    evaluate_task(
        fits=[
            dict(zip(("name", "predictions", "train", "val", "test"), fit, strict=True))
            for fit in zip(
                snakemake.params.fits,
                snakemake.input.predictions,
                snakemake.input.train,
                snakemake.input.val,
                snakemake.input.test,
                strict=True,
            )
        ],
        seed=snakemake.params.seed,
        output=snakemake.output,
    )
