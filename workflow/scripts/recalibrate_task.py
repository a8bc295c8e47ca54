"""Fit the recalibration of a finetuned model on the labels of its validation galaxies."""

from zoolib.job.logs import log_to
from zoolib.recalibrate import recalibrate_task

with log_to(snakemake.log[0]):
    recalibrate_task(
        predictions=snakemake.input.predictions,
        model=snakemake.input.model,
        galaxies=snakemake.input.galaxies,
        fit=snakemake.params.fit,
        seed=snakemake.params.seed,
        output=snakemake.output.recalibration,
    )
