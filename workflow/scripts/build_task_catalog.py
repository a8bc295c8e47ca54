"""Make the galaxies of a task from its labels and images."""

from zoolib.data.decoders import limit_pixels
from zoolib.data.tasks import build_task
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    limit_pixels(**snakemake.params.decoding)
    build_task(
        task=snakemake.params.task,
        fits=snakemake.params.fits,
        seed=snakemake.params.seed,
        output=snakemake.output,
        **snakemake.params.limits,
    )
