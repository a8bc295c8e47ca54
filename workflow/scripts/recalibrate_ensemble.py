"""Fit the factor of an ensemble of recalibrated members on the votes of the validation galaxies."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

from zoolib.data.decoders import limit_pixels
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]), tempfile.TemporaryDirectory() as folder:
    from zoolib.job.gpus import use_threads

    use_threads(snakemake.threads)
    from zoolib.predict import predict_chunk
    from zoolib.recalibrate import recalibrate_ensemble

    limit_pixels(**snakemake.params.decoding)
    settings = {**snakemake.params.predict, "seed": snakemake.params.seed}
    # Nobody needs these predictions later.
    predicted = SimpleNamespace(predictions=Path(folder, "val.hdf5"), rejected=Path(folder, "rejected.csv"))
    models = [Path(model).parent for model in snakemake.input.models]
    predict_chunk(snakemake.input.galaxies, models, (0, 1), **settings, output=predicted)
    recalibrate_ensemble(
        predictions=predicted.predictions,
        recalibrations=snakemake.input.recalibrations,
        catalog=snakemake.input.catalog,
        settings=settings,
        output=snakemake.output.recalibration,
    )
