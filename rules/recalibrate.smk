# Stage recalibrate: what the votes or labels of the validation galaxies say about the posteriors of each model, and
# of an ensemble of several.


rule recalibrate_member:
    "fit the recalibration of one member on the votes of the validation galaxies"

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
        "logs/{run}/recalibrate_member/{ensemble}-{member}.log",
    benchmark:
        "benchmarks/{run}/recalibrate_member/{ensemble}-{member}.tsv"
    conda:
        environment_of("recalibrate_member")
    threads: 8
    resources:
        mem_mb=doubled(8000),
        runtime=240,
        accelerator=accelerator,
    params:
        code=fingerprint("recalibrate_member", "predict", "recalibrate"),
        decoding={"max_pixels": config["shards"]["max_pixels"]},
        # The samples that all targets have.
        predict={key: config["predict"][key] for key in ("samples", "views")},
        seed=config["seed"],
    script:
        "../workflow/scripts/recalibrate_member.py"


rule recalibrate_ensemble:
    "fit one more factor for an ensemble of recalibrated members"
    input:
        models=of_members("model.keras"),
        abouts=of_members("model.json"),
        recalibrations=of_members("recalibration.json"),
        galaxies=FILES.galaxies_of("val"),
        pixels=FILES.pixels_of("val"),
        catalog="results/{run}/catalog/val.parquet",
    output:
        recalibration="results/{run}/train/{ensemble}/recalibration.json",
    log:
        "logs/{run}/recalibrate_ensemble/{ensemble}.log",
    benchmark:
        "benchmarks/{run}/recalibrate_ensemble/{ensemble}.tsv"
    conda:
        environment_of("recalibrate_ensemble")
    threads: 8
    resources:
        mem_mb=doubled(8000),
        runtime=240,
        accelerator=accelerator,
    params:
        code=fingerprint("recalibrate_ensemble", "predict", "recalibrate"),
        decoding={"max_pixels": config["shards"]["max_pixels"]},
        predict={key: config["predict"][key] for key in ("samples", "views")},
        seed=config["seed"],
    script:
        "../workflow/scripts/recalibrate_ensemble.py"


rule recalibrate_task:
    "fit the recalibration of one finetuning on the labels of its validation galaxies"

    # The galaxies of a task are predicted anyway, those of validation too.
    input:
        model="results/{run}/finetune/{fit}/model.keras",
        predictions="results/{run}/predict/{fit}/predictions.hdf5",
        parts=by("fit", FILES.parts),
        galaxies=by("fit", FILES.task_galaxies),
    output:
        recalibration="results/{run}/finetune/{fit}/recalibration.json",
    log:
        "logs/{run}/recalibrate_task/{fit}.log",
    benchmark:
        "benchmarks/{run}/recalibrate_task/{fit}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(2000),
        runtime=30,
    params:
        code=fingerprint("recalibrate_task", "recalibrate"),
        fit=by("fit", THIS.fit_in_task),
        seed=config["seed"],
    script:
        "../workflow/scripts/recalibrate_task.py"


rule recalibrate:
    "correct the posteriors by the votes of the validation galaxies"
    input:
        [FILES.recalibrations_of(name) for name in THIS.ensembles if THIS.recalibrates],
        [path for fit in THIS.fits for path in FILES.recalibrations(fit)],
    localrule: True
