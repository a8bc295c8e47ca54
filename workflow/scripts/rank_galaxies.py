"""Rank the galaxies of a target by what volunteers' votes on them would teach the model."""

from zoolib.job.logs import log_to
from zoolib.posteriors.files import rank_galaxies

with log_to(snakemake.log[0]):
    rank_galaxies(parts=snakemake.input.parts, output=snakemake.output.ranked)
