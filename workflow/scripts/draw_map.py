"""Draw a map of a target's galaxies by what they look like."""

from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    from zoolib.figures.search import draw_map

    draw_map(
        representations=snakemake.input.representations,
        places=snakemake.input.places,
        seed=snakemake.params.seed,
        title=snakemake.wildcards.search,
        outputs=snakemake.output,
    )
