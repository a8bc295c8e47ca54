"""Compare the posteriors of the test galaxies with the volunteers."""

from zoolib.evaluate import evaluate
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    evaluate(
        predictions=snakemake.input.predictions,
        recalibrations=snakemake.input.recalibrations,
        test=snakemake.input.test,
        train=snakemake.input.train,
        **snakemake.params.limits,
        rule=snakemake.params.rule,
        output=snakemake.output,
    )
