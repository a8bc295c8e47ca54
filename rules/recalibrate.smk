# Stage recalibrate: what the votes of the validation galaxies say about the posteriors of each member.


rule recalibrate:
    # The file lies beside the model, so that other runs that predict with this model find it.
    input:
        model="results/{run}/train/{ensemble}/{member}/model.keras",
        about="results/{run}/train/{ensemble}/{member}/model.json",
        galaxies=FILES.galaxies_of("val"),
        pixels=FILES.pixels_of("val"),
        catalog="results/{run}/catalog/val.parquet",
    output:
        recalibration="results/{run}/train/{ensemble}/{member}/recalibration.json",
    log:
        "logs/{run}/recalibrate/{ensemble}-{member}.log",
    benchmark:
        "benchmarks/{run}/recalibrate/{ensemble}-{member}.tsv"
    conda:
        environment_of("recalibrate")
    threads: 8
    resources:
        mem_mb=doubled(8000),
        runtime=240,
        accelerator=accelerator,
    params:
        code=fingerprint("recalibrate", "predict", "recalibrate"),
        decoding={"max_pixels": config["shards"]["max_pixels"]},
        # The samples that all targets have.
        predict={key: config["predict"][key] for key in ("samples", "views")},
        seed=config["seed"],
    script:
        "../workflow/scripts/recalibrate.py"
