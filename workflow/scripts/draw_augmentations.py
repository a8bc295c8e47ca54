"""Draw some galaxies as training sees them, with each augmentation."""

from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    from zoolib.job.gpus import load_tensorflow

    load_tensorflow()
    from zoolib.figures.augmentations import draw_augmentations

    draw_augmentations(
        shards=list(snakemake.input.shards),
        sidecars=list(snakemake.input.about),
        image=snakemake.params.image,
        augmentations=snakemake.params.augmentations,
        seed=snakemake.params.seed,
        output=snakemake.output.figure,
    )
