"""Collect the rejected images of all shards, and stop if there are too many."""

from zoolib.job.logs import log_to
from zoolib.shards import check_rejected

with log_to(snakemake.log[0]):
    check_rejected(
        abouts=snakemake.input.abouts,
        rejected=snakemake.input.rejected,
        max_rejected=snakemake.params.max_rejected,
        output=snakemake.output.rejected,
    )
