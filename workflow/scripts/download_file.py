"""Download one file of a Zenodo record."""

from zoolib.download import download_file, needed_files
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    download_file(
        record=snakemake.wildcards.record,
        name=snakemake.wildcards.file,
        output=snakemake.output.file,
        needed=needed_files(snakemake.config, snakemake.wildcards.file),
    )
