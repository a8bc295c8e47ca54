"""Draw the coverage of truth and votes, and the calibration figure of the paper."""

from zoolib.figures.calibration import draw_calibration
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    draw_calibration(
        coverage=snakemake.input.coverage,
        calibration=snakemake.input.calibration,
        as_trained=(snakemake.input.as_trained or [None])[0],
        outputs=[snakemake.output.svg, snakemake.output.png],
    )
