"""Compare a finetuned classifier with the labels of the test galaxies."""

from zoolib.evaluate import evaluate_labels
from zoolib.logs import log_to

with log_to(snakemake.log[0]):
    evaluate_labels(
        predictions=snakemake.input.predictions,
        test=snakemake.input.test,
        train=snakemake.input.train,
        label=snakemake.params.label,
        kind=snakemake.params.kind,
        scores=snakemake.output.scores,
        confusion=snakemake.output.confusion,
    )
