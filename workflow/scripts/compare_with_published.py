"""Write the scores of the run beside the published ones."""

from zoolib.job.logs import log_to
from zoolib.paper import compare_with_published

with log_to(snakemake.log[0]):
    compare_with_published(
        scores=snakemake.input.scores,
        published=snakemake.params.published,
        warning=snakemake.params.warning,
        output=snakemake.output,
    )
