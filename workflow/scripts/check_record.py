"""Check that the tables of a record have the expected numbers of rows."""

from zoolib.check_record import check_record
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    check_record(
        files=list(snakemake.input.tables),
        expected=snakemake.params.expected,
        output=snakemake.params.output,
    )
