"""Measure how often posterior intervals hold the truth and the votes, after and before a recalibration."""

from types import SimpleNamespace

from zoolib.job.logs import log, log_to
from zoolib.scores.calibration import calibrate

with log_to(snakemake.log[0]):
    about = {
        "predictions": snakemake.input.predictions,
        "test": snakemake.input.test,
        "truth": snakemake.input.truth or None,
    }
    if snakemake.output.as_trained:
        log.info("Before the recalibration:")
        coverage, calibration = snakemake.output.as_trained
        calibrate(**about, output=SimpleNamespace(coverage=coverage, calibration=calibration))
        log.info("After the recalibration:")
    calibrate(**about, output=snakemake.output, recalibrations=snakemake.input.recalibrations)
