"""Make the catalogue of each split from tables of votes and images."""

from zoolib.catalog import build_catalog
from zoolib.job.logs import log_to

# Only messages use the names: among the params, another name would make everything again.
named = zip(snakemake.config["catalogs"], snakemake.params.catalogs, strict=True)

with log_to(snakemake.log[0]):
    build_catalog(
        catalogs=[{"name": entry["name"], **source} for entry, source in named],
        split=snakemake.params.split,
        seed=snakemake.params.seed,
        output=snakemake.output,
    )
