"""List the galaxies of a target; all chunks use this list."""

from zoolib.data.listing import list_galaxies
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    list_galaxies(
        kind=snakemake.params.kind,
        sources=[snakemake.params.images] if snakemake.params.images else snakemake.input.sources,
        output=snakemake.output.galaxies,
        **snakemake.params.listing,
    )
