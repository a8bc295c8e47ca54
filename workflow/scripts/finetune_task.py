"""Finetune a trained model for a new label."""

from pathlib import Path

from zoolib.job.attempts import Budget
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    from zoolib.job.gpus import use_threads

    use_threads(snakemake.threads)
    from zoolib.finetune import finetune_task
    from zoolib.learning.fitting import Job

    finetune_task(
        galaxies=snakemake.input.galaxies,
        model=Path(snakemake.input.start[0]).parent,
        task=snakemake.params.task,
        seed=snakemake.params.seed,
        job=Job(snakemake.output, snakemake.params.code, Budget(snakemake.resources.runtime)),
        scratch=snakemake.params.scratch,
    )
