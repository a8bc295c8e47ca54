"""Describe the posteriors of one chunk of galaxies in a flat catalogue."""

from zoolib.config.trees import DecisionTree
from zoolib.job.logs import log_to
from zoolib.posteriors.files import describe_posteriors

with log_to(snakemake.log[0]):
    describe_posteriors(
        predictions=snakemake.input.predictions,
        recalibrations=snakemake.input.recalibrations,
        output=snakemake.output.catalog,
        credible_level=snakemake.params.credible_level,
        cuts=DecisionTree.from_dict(snakemake.params.tree).cuts,
        threads=snakemake.threads,
        votes=snakemake.input.votes,
    )
