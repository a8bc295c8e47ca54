"""Count in a record's tables what is known of it."""

from zoolib.logs import log_to
from zoolib.record_check import check_record

with log_to(snakemake.log[0]):
    check_record(
        files=list(snakemake.input),
        expected=snakemake.params.expected,
        output=snakemake.params.output,
    )
