"""Join the chunks of a target in one virtual file, without copying them."""

from zoolib.job.logs import log_to
from zoolib.posteriors.collect import collect_predictions

with log_to(snakemake.log[0]):
    collect_predictions(
        parts=snakemake.input.parts,
        rejected_parts=snakemake.input.rejected,
        max_rejected=snakemake.params.max_rejected,
        output=snakemake.output,
        copied=snakemake.params.collect == "copy",
        galaxies=next(iter(snakemake.input.galaxies), None),
    )
