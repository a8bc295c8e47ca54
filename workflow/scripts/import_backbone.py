"""Make a model folder of a pretrained backbone."""

from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    from zoolib.job.gpus import load_tensorflow

    load_tensorflow()
    from zoolib.pretrained import import_backbone

    import_backbone(**snakemake.params.encoder, output=snakemake.output)
