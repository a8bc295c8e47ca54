"""Rank the galaxies of a target by what they look like."""

from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    from zoolib.search import search_galaxies

    search_galaxies(
        representations=snakemake.input.representations,
        **snakemake.params.search,
        seed=snakemake.params.seed,
        output=snakemake.output,
    )
