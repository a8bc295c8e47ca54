"""Write the tables of the report on the configuration and on the origin of the models."""

from zoolib.job.logs import log_to
from zoolib.report import write_configuration, write_provenance

with log_to(snakemake.log[0]):
    write_configuration(
        snakemake.params.configuration, snakemake.output.configuration, snakemake.output.settings
    )
    write_provenance([*snakemake.input.about, *snakemake.input.tasks], snakemake.output.provenance)
