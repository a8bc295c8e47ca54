"""Write the tables of the report that say what was run."""

from zoolib.logs import log_to
from zoolib.report_tables import write_configuration, write_provenance

with log_to(snakemake.log[0]):
    write_configuration(snakemake.params.configuration, snakemake.output.configuration)
    write_provenance([*snakemake.input.about, *snakemake.input.tasks], snakemake.output.provenance)
