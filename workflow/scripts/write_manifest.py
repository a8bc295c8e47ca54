"""Write the galaxies to label next, and their images, for an upload to a Zooniverse project."""

from zoolib.job.logs import log_to
from zoolib.zooniverse.manifest import write_manifest

with log_to(snakemake.log[0]):
    write_manifest(
        ranked=snakemake.input.ranked,
        places=snakemake.input.places,
        voted=snakemake.input.voted,
        count=snakemake.params.galaxies,
        output=snakemake.output,
        **snakemake.params.decoding,
    )
