"""Write the flat catalogue of a target as one table."""

from zoolib.job.logs import log_to
from zoolib.posteriors.formats import write_table

with log_to(snakemake.log[0]):
    write_table(
        parts=snakemake.input.parts,
        places=snakemake.input.places,
        tables=snakemake.input.tables,
        keep=snakemake.params.keep,
        output=snakemake.output.catalog,
        name=snakemake.params.name,
    )
