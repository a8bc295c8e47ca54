"""List every image of some archives or of a folder."""

from zoolib.locations import list_images
from zoolib.logs import log_to

with log_to(snakemake.log[0]):
    list_images(
        paths=[snakemake.params.images] if snakemake.params.images else snakemake.input.archives,
        output=snakemake.output.galaxies,
    )
