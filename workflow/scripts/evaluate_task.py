"""Score the predictions of a finetuned task, or of all its folds, against the labels."""

from zoolib.job.logs import log_to
from zoolib.scores.tasks import evaluate_task

with log_to(snakemake.log[0]):
    evaluate_task(
        galaxies=snakemake.input.galaxies,
        predictions=dict(zip(snakemake.params.fits, snakemake.input.predictions, strict=True)),
        probe=snakemake.input.probe,
        recalibrations=snakemake.input.recalibrations,
        scratch=snakemake.input.scratch,
        seed=snakemake.params.seed,
        output=snakemake.output,
    )
