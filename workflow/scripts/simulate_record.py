"""Simulate a survey: a folder like a record's, with galaxies and volunteers' votes."""

from zoolib.job.logs import log_to
from zoolib.simulation.survey import write_record

with log_to(snakemake.log[0]):
    survey = dict(snakemake.params.survey)
    write_record(
        output=snakemake.output,
        kind=survey.pop("volunteers"),
        **survey,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
    )
