"""Copy what corrects the posteriors of a model or of an ensemble."""

import shutil

from zoolib.job.logs import log_to, whole

with log_to(snakemake.log[0]), whole(snakemake.output.recalibration) as partial:
    shutil.copyfile(snakemake.input.recalibration, partial)
