"""Fit the recalibration of one member of an ensemble on the votes of the validation galaxies."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

from zoolib.data.decoders import limit_pixels
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]), tempfile.TemporaryDirectory() as folder:
    from zoolib.job.gpus import use_threads

    use_threads(snakemake.threads)
    from zoolib.predict import predict_chunk
    from zoolib.recalibrate import recalibrate_member

    limit_pixels(**snakemake.params.decoding)
    settings = {**snakemake.params.predict, "seed": snakemake.params.seed}
    # Nobody needs these predictions later.
    predicted = SimpleNamespace(predictions=Path(folder, "val.hdf5"), rejected=Path(folder, "rejected.csv"))
    predict_chunk(
        snakemake.input.galaxies, [Path(snakemake.input.model).parent], (0, 1), **settings, output=predicted
    )
    recalibrate_member(
        predictions=predicted.predictions,
        model=snakemake.input.model,
        catalog=snakemake.input.catalog,
        settings=settings,
        output=snakemake.output.recalibration,
    )
