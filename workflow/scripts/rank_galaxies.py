"""Rank the galaxies of a target by how much a model would learn from votes on them."""

from zoolib.job.logs import log_to
from zoolib.posteriors.ranking import rank_galaxies

with log_to(snakemake.log[0]):
    rank_galaxies(
        parts=snakemake.input.parts,
        recalibrations=snakemake.input.recalibrations,
        output=snakemake.output.ranked,
        acquisition=snakemake.params.acquisition,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
    )
