# Stage report: what Snakemake's own report shows; `make report` writes it as one HTML file.

DATA_AND_TRAINING = ["catalog/summary.csv", "shards/rejected.csv", "evaluate/learning_curves.svg"]


rule describe_run:
    input:
        about=[model_files(ensemble_folders(name), "model.json") for name in TRAINED],
        tasks=expand("results/{{run}}/finetune/{task}/model.json", task=TASKS),
    output:
        configuration=report(
            "results/{run}/report/configuration.csv",
            caption="../workflow/report/configuration.rst",
            category="Run",
            labels={"table": "configuration"},
        ),
        provenance=report(
            "results/{run}/report/provenance.csv",
            caption="../workflow/report/provenance.rst",
            category="Run",
            labels={"table": "versions and data"},
        ),
    log:
        "logs/{run}/describe_run.log",
    benchmark:
        "benchmarks/{run}/describe_run.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        code=fingerprint("describe_run", "report_tables"),
        configuration=config,
    script:
        "../workflow/scripts/describe_run.py"


rule report:
    input:
        expand(
            "results/{run}/{table}",
            run=RUN,
            table=DATA_AND_TRAINING if TRAINED else [],
        ),
        rules.evaluate.input,
        expand(
            "results/{run}/evaluate/confusion_{subset}.svg",
            run=RUN,
            subset=["all", "confident"] if EVALUATED else [],
        ),
        expand(
            "results/{run}/evaluate/gallery/{question}.png",
            run=RUN,
            question=QUESTIONS if EVALUATED else [],
        ),
        expand("results/{run}/finetune/{task}/summary.csv", run=RUN, task=TASKS),
        expand("results/{run}/evaluate/{task}/gallery.png", run=RUN, task=TASKS),
        f"results/{RUN}/report/configuration.csv",
    localrule: True
