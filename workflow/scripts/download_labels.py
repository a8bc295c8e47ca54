"""Download the labels of a task."""

from zoolib.job.logs import log_to
from zoolib.download import download_url, url_of

with log_to(snakemake.log[0]):
    # Not among the rule's params: the same bytes from another address are no reason to download them again.
    url = url_of(snakemake.config["finetune"]["tasks"], snakemake.wildcards.checksum)
    download_url(**url, output=snakemake.output.file)
