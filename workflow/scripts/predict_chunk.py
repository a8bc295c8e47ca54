"""Predict posteriors for one chunk of a target."""

from pathlib import Path

from zoolib.data.decoders import limit_pixels
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    from zoolib.job.gpus import use_threads

    use_threads(snakemake.threads)
    from zoolib.predict import predict_chunk

    limit_pixels(**snakemake.params.decoding)
    predict_chunk(
        galaxies=snakemake.input.galaxies,
        folders=[Path(path).parent for path in snakemake.input.models],
        part=(int(snakemake.wildcards.chunk), snakemake.params.predict["chunks"]),
        samples=snakemake.params.predict["samples"],
        views=snakemake.params.predict["views"],
        seed=snakemake.params.seed,
        output=snakemake.output,
        kept=snakemake.params.kept,
    )
