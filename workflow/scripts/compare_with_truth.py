"""Compare a model with the truth of its simulated survey."""

from zoolib.job.logs import log_to
from zoolib.simulation.truth import compare_with_truth

with log_to(snakemake.log[0]):
    compare_with_truth(
        train=snakemake.input.train,
        test=snakemake.input.test,
        predictions=snakemake.input.predictions,
        truth=snakemake.input.truth,
        losses=snakemake.input.losses,
        metrics=snakemake.input.metrics,
        tasks=list(
            zip(
                snakemake.params.labels,
                snakemake.input.task_galaxies,
                snakemake.input.task_scores,
                strict=True,
            )
        ),
        output=snakemake.output.learning,
    )
