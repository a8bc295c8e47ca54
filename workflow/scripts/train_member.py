"""Train one member of an ensemble."""

from pathlib import Path

from zoolib.job.attempts import Budget
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    from zoolib.train import train_member

    train_member(
        train=(snakemake.input.shards, snakemake.input.about),
        validation=(snakemake.input.validation, snakemake.input.validation_about),
        tree=snakemake.params.tree,
        image=snakemake.params.image,
        settings=snakemake.params.train,
        seed=snakemake.params.seed,
        ensemble=snakemake.wildcards.ensemble,
        member=int(snakemake.wildcards.member),
        output=snakemake.output,
        folder=Path(snakemake.output.model).parent,
        code=snakemake.params.code,
        budget=Budget(snakemake.resources.runtime),
    )
