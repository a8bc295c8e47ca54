"""Make the catalogue of each split from tables of votes and images."""

from zoolib.catalog import build_catalog
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    build_catalog(
        catalogs=snakemake.params.catalogs,
        split=snakemake.params.split,
        seed=snakemake.params.seed,
        output=snakemake.output,
    )
