# Stage finetune: a trained backbone learns a new label.


# A rule each, as tasks have different trainings; one job makes the catalogues of them all.
for task in TASKS.values():

    rule:
        name:
            f"build_task_catalog_{task['name']}"
        input:
            labels=labelled_files(task),
            archives=archives_of(task),
        output:
            catalogs=fit_catalogs(task),
            rejected=f"results/{RUN}/finetune/{task['name']}/rejected.csv",
            summary=f"results/{RUN}/finetune/{task['name']}/summary.csv",
        log:
            f"logs/{RUN}/build_task_catalog/{task['name']}.log",
        benchmark:
            f"benchmarks/{RUN}/build_task_catalog/{task['name']}.tsv"
        conda:
            "../envs/cpu.yaml"
        threads: 1
        resources:
            mem_mb=doubled(2000),
            runtime=30,
        params:
            code=fingerprint("build_task_catalog", "data.tasks"),
            task=task_data(task),
            fits=fit_names(task),
            seed=config["seed"],
            limits={"max_rejected": config["shards"]["max_rejected"]},
        script:
            "../workflow/scripts/build_task_catalog.py"


rule finetune_task:
    # A task is trained once, or once for each of its folds or numbers of labels.
    input:
        train="results/{run}/finetune/{fit}/train.parquet",
        validation="results/{run}/finetune/{fit}/val.parquet",
        archives=lambda wildcards: archives_of(task_of(wildcards.fit)),
        start=start_model,
    output:
        model="results/{run}/finetune/{fit}/model.keras",
        about="results/{run}/finetune/{fit}/model.json",
        history="results/{run}/finetune/{fit}/history.csv",
    log:
        "logs/{run}/finetune_task/{fit}.log",
    benchmark:
        "benchmarks/{run}/finetune_task/{fit}.tsv"
    conda:
        environment_of("finetune_task")
    threads: 8
    resources:
        mem_mb=8000,
        runtime=720,
    params:
        code=fingerprint("finetune_task", "finetune"),
        task=task_settings,
        seed=config["seed"],
        scratch=from_scratch,
    script:
        "../workflow/scripts/finetune_task.py"


rule finetune:
    input:
        expand("results/{run}/finetune/{fit}/model.keras", run=RUN, fit=FITS),
        expand(
            "results/{run}/predict/{fit}/catalog/{chunk}.parquet",
            run=RUN,
            fit=FITS,
            chunk=range(config["predict"]["chunks"]),
        ),
        expand("results/{run}/evaluate/{task}/gallery.png", run=RUN, task=TASKS),
        [
            f"results/{RUN}/evaluate/{name}/label_counts.csv"
            for name, task in TASKS.items()
            if task["label_counts"]
        ],
    localrule: True
