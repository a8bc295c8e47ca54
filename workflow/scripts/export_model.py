"""Write a trained model in other formats, each compared with the model."""

import os
from pathlib import Path

from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    # GPUs round products of float32 to fewer digits, so formats are compared on the processor.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    from zoolib.job.gpus import use_threads

    use_threads(snakemake.threads)
    from zoolib.learning.exchange import export_model

    export_model(Path(snakemake.input.model).parent, Path(snakemake.output.model).parent)
