"""Finetune a trained model for a new label."""

from pathlib import Path

from zoolib.job.attempts import Budget
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    from zoolib.finetune import finetune_task

    finetune_task(
        train=snakemake.input.train,
        validation=snakemake.input.validation,
        model=Path(snakemake.input.start[0]).parent,
        task=snakemake.params.task,
        seed=snakemake.params.seed,
        output=snakemake.output,
        folder=Path(snakemake.output.model).parent,
        code=snakemake.params.code,
        scratch=snakemake.params.scratch,
        budget=Budget(snakemake.resources.runtime),
    )
