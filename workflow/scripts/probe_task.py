"""Fit linear probes of a task's frozen features, one for each of its finetunings."""

from pathlib import Path

from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    from zoolib.job.gpus import use_threads

    use_threads(snakemake.threads)
    from zoolib.scores.linear_probe import probe_task

    probe_task(
        galaxies=snakemake.input.galaxies,
        model=Path(snakemake.input.start[0]).parent,
        fits=snakemake.params.fits,
        abouts=dict(zip(snakemake.params.scored, snakemake.input.abouts, strict=True)),
        output=snakemake.output.probe,
    )
