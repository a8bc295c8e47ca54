"""Download the labels of a task."""

from zoolib.addresses import download_url
from zoolib.logs import log_to

with log_to(snakemake.log[0]):
    download_url(**snakemake.params.url, output=snakemake.output.file)
