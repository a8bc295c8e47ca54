"""Measure how often posterior intervals hold the truth and the votes."""

from zoolib.job.logs import log_to
from zoolib.scores.calibration import calibrate

with log_to(snakemake.log[0]):
    calibrate(
        predictions=snakemake.input.predictions,
        test=snakemake.input.test,
        truth=snakemake.input.truth or None,
        output=snakemake.output,
    )
