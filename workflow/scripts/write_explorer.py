"""Write a page on which the galaxies of a target are sorted, filtered and looked at."""

from types import SimpleNamespace

from zoolib.config.trees import DecisionTree
from zoolib.explore.page import write_explorer
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    write_explorer(
        program=snakemake.input.program,
        predicted=snakemake.input,
        images=snakemake.input.images,
        votes=snakemake.input.votes,
        about=SimpleNamespace(
            run=snakemake.wildcards.run,
            target=snakemake.wildcards.target,
            cuts=DecisionTree.from_dict(snakemake.params.tree).cuts,
        ),
        output=snakemake.output.page,
        threads=snakemake.threads,
    )
