# Stage finetune: a trained backbone learns a new label.


rule build_task_catalog:
    input:
        tables=lambda wildcards: record_file(TASKS[wildcards.task]["table"]),
        archives=lambda wildcards: archives_of(TASKS[wildcards.task]),
    output:
        train="results/{run}/finetune/{task}/train.parquet",
        val="results/{run}/finetune/{task}/val.parquet",
        test="results/{run}/finetune/{task}/test.parquet",
        rejected="results/{run}/finetune/{task}/rejected.csv",
        summary="results/{run}/finetune/{task}/summary.csv",
    log:
        "logs/{run}/build_task_catalog/{task}.log",
    benchmark:
        "benchmarks/{run}/build_task_catalog/{task}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=fingerprint("build_catalog", "catalog"),
        catalogs=lambda wildcards: [
            {**resolved(TASKS[wildcards.task]), "labels": [TASKS[wildcards.task]["label"]]}
        ],
        split=lambda wildcards: TASKS[wildcards.task]["split"],
        seed=config["seed"],
        stratify=True,
        max_rejected=config["shards"]["max_rejected"],
    script:
        "../workflow/scripts/build_catalog.py"


rule finetune_task:
    input:
        train="results/{run}/finetune/{task}/train.parquet",
        validation="results/{run}/finetune/{task}/val.parquet",
        archives=lambda wildcards: archives_of(TASKS[wildcards.task]),
        start=start_model,
    output:
        model="results/{run}/finetune/{task}/model.keras",
        about="results/{run}/finetune/{task}/model.json",
        history="results/{run}/finetune/{task}/history.csv",
    log:
        "logs/{run}/finetune_task/{task}.log",
    benchmark:
        "benchmarks/{run}/finetune_task/{task}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 8
    resources:
        mem_mb=8000,
        runtime=720,
    params:
        code=fingerprint("finetune_task", "finetune"),
        task=task_settings,
        seed=config["seed"],
    script:
        "../workflow/scripts/finetune_task.py"


rule finetune:
    input:
        expand("results/{run}/finetune/{task}/model.keras", run=RUN, task=TASKS),
        expand("results/{run}/predict/{task}/predictions.hdf5", run=RUN, task=TASKS),
        expand(
            "results/{run}/predict/{task}/catalog/{chunk}.parquet",
            run=RUN,
            task=TASKS,
            chunk=range(config["predict"]["chunks"]),
        ),
    localrule: True
