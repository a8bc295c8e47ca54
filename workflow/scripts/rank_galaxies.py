"""Rank the galaxies of a target by what volunteers' votes on them would teach the model."""

from zoolib.logs import log_to
from zoolib.predictions import rank_galaxies

with log_to(snakemake.log[0]):
    rank_galaxies(parts=snakemake.input.parts, output=snakemake.output.ranked)
