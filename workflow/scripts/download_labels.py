"""Download the labels of a task."""

from zoolib.download import download_url, url_of
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    # Not one of the rule's params, so that a new address of the same bytes does not start a new download.
    url = url_of(snakemake.config["finetune"]["tasks"], snakemake.wildcards.checksum)
    download_url(**url, output=snakemake.output.file)
