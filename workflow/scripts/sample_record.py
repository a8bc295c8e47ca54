"""Draw a sample of the galaxies of a Zenodo record, without its archives."""

from zoolib.download import sample_record
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    sample_record(
        **snakemake.params.sample,
        table=snakemake.input.table,
        seed=snakemake.params.seed,
        output=snakemake.output,
    )
