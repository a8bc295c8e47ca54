"""Draw the first galaxies of a ranking."""

from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    from zoolib.figures.search import draw_search

    draw_search(
        ranked=snakemake.input.ranked,
        following=snakemake.input.following,
        places=snakemake.input.places,
        how=snakemake.params.how,
        title=snakemake.wildcards.search,
        output=snakemake.output.figure,
    )
