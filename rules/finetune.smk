# Stage finetune: a trained backbone learns a new label.


rule build_task_catalog:
    "make the table of a task's galaxies from its labels and images"

    # One table for all finetunings of a task; each of them selects its own galaxies from it.
    input:
        labels=by("task", FILES.task_labels),
        archives=by("task", FILES.task_archives),
    output:
        galaxies="results/{run}/finetune/{task}/galaxies.parquet",
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
        mem_mb=doubled(2000),
        runtime=30,
    params:
        code=fingerprint("build_task_catalog", "data.tasks"),
        task=by("task", FILES.task_source),
        fits=by("task", THIS.fit_names),
        seed=config["seed"],
        limits={"max_rejected": config["shards"]["max_rejected"]},
        decoding={"max_pixels": config["shards"]["max_pixels"]},
    script:
        "../workflow/scripts/build_task_catalog.py"


rule finetune_task:
    "train one finetuning of a task"

    # A task is trained once, or once for each of its folds or numbers of labels.
    input:
        galaxies=by("fit", FILES.task_galaxies),
        archives=by("fit", FILES.task_archives),
        start=by("fit", FILES.fit_start),
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
        # Decoded images take up to 2 GB.
        mem_mb=training_memory(by("fit", THIS.training_of), other=2000, most=2),
        runtime=720,
        accelerator=accelerator,
    params:
        code=fingerprint("finetune_task", "finetune"),
        task=by("fit", THIS.training_of),
        # Not for the script: an edited strategy of one's own trains again.
        plans=by("fit", THIS.plans_of),
        seed=config["seed"],
        scratch=by("fit", THIS.starts_from_scratch),
    script:
        "../workflow/scripts/finetune_task.py"


rule probe_task:
    "fit linear probes on the frozen features that a task starts from"

    # What a regression makes of the features that the task starts from. Its pixels are those of the finetunings.
    input:
        galaxies="results/{run}/finetune/{task}/galaxies.parquet",
        archives=by("task", FILES.task_archives),
        start=by("task", FILES.fit_start),
        abouts=of_fits("finetune/{fit}/model.json"),
    output:
        probe="results/{run}/finetune/{task}/probe.parquet",
    log:
        "logs/{run}/probe_task/{task}.log",
    benchmark:
        "benchmarks/{run}/probe_task/{task}.tsv"
    conda:
        environment_of("probe_task")
    threads: 8
    resources:
        mem_mb=doubled(8000),
        runtime=240,
        accelerator=accelerator,
    params:
        code=fingerprint("probe_task", "scores.linear_probe"),
        fits=by("task", THIS.fit_names),
        scored=by("task", THIS.scored_fits),
    script:
        "../workflow/scripts/probe_task.py"


rule finetune:
    "finetune, score and predict each task"
    input:
        expand("results/{run}/finetune/{fit}/model.keras", run=RUN, fit=THIS.fits),
        [FILES.chunks(fit, "catalog/{chunk}.parquet") for fit in THIS.fits],
        expand("results/{run}/evaluate/{task}/gallery.png", run=RUN, task=TASKS),
        expand("results/{run}/evaluate/{task}/label_counts.csv", run=RUN, task=THIS.counted_tasks),
    localrule: True
