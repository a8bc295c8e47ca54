"""Train one member of an ensemble."""

from zoolib.job.attempts import Budget
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    from zoolib.job.gpus import use_threads

    use_threads(snakemake.threads)
    from zoolib.config.trees import DecisionTree
    from zoolib.learning.fitting import Job
    from zoolib.train import Member, train_member

    train_member(
        Member(
            tree=DecisionTree.from_dict(snakemake.params.tree),
            image=snakemake.params.image,
            settings=snakemake.params.train,
            ensemble=snakemake.wildcards.ensemble,
            number=int(snakemake.wildcards.member),
            run_seed=snakemake.params.seed,
        ),
        train=(snakemake.input.shards, snakemake.input.about),
        validation=(snakemake.input.validation, snakemake.input.validation_about),
        job=Job(snakemake.output, snakemake.params.code, Budget(snakemake.resources.runtime)),
    )
