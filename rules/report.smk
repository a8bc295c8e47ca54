# Stage report: what Snakemake's own report shows; `make report` writes it as one HTML file.

# Table: caption, category, task, what the report calls it.
TABLES = {
    "report/configuration": ("configuration", "Run", None, "configuration"),
    "report/provenance": ("provenance", "Run", None, "versions and data"),
}
if TRAINED:
    TABLES["catalog/summary"] = ("catalog_summary", "Data", None, "galaxies left after each cut")
    TABLES["shards/rejected"] = ("rejected", "Data", None, "images that could not be read")
if EVALUATED:
    TABLES["evaluate/scores"] = ("scores", "Scores", None, "scores of each question")
    TABLES["evaluate/losses"] = ("losses", "Scores", None, "test loss beside a constant predictor's")
    TABLES["evaluate/coverage"] = ("coverage", "Calibration", None, "coverage of truth and votes")
if EVALUATED and ZENODO["simulate"]:
    TABLES["evaluate/learning"] = ("learning", "Scores", None, "what was learned, between trivial and true")
for task in TASKS:
    summary = ("catalog_summary", "Finetuning", task, "galaxies left after each cut")
    TABLES[f"finetune/{task}/summary"] = summary
    TABLES[f"evaluate/{task}/scores"] = ("task_scores", "Finetuning", task, "scores")


rule describe_run:
    input:
        about=[model_files(ensemble_folders(name), "model.json") for name in TRAINED],
        tasks=expand("results/{{run}}/finetune/{fit}/model.json", fit=FITS),
    output:
        configuration="results/{run}/report/configuration.csv",
        provenance="results/{run}/report/provenance.csv",
    log:
        "logs/{run}/describe_run.log",
    benchmark:
        "benchmarks/{run}/describe_run.tsv"
    localrule: True
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(1000),
        runtime=10,
    params:
        code=fingerprint("describe_run", "report"),
        configuration=config,
    script:
        "../workflow/scripts/describe_run.py"


rule show_tables:
    # Snakemake's report shows HTML; CSV it only offers for download.
    input:
        expand("results/{{run}}/{table}.csv", table=TABLES),
    output:
        [
            report(
                f"results/{{run}}/report/{table}.html",
                caption=f"../workflow/report/{caption}.rst",
                category=category,
                subcategory=task,
                labels={"table": what},
            )
            for table, (caption, category, task, what) in TABLES.items()
        ],
    log:
        "logs/{run}/show_tables.log",
    benchmark:
        "benchmarks/{run}/show_tables.tsv"
    localrule: True
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(1000),
        runtime=10,
    params:
        code=fingerprint("show_tables", "report"),
    script:
        "../workflow/scripts/show_tables.py"


rule report:
    input:
        rules.evaluate.input,
        rules.paper.input,
        expand("results/{run}/train/augmentations.png", run=RUN if TRAINED else []),
        expand("results/{run}/evaluate/learning_curves.svg", run=RUN if TRAINED else []),
        expand(
            "results/{run}/evaluate/confusion_{subset}.svg",
            run=RUN,
            subset=["all", "confident"] if EVALUATED else [],
        ),
        f"results/{RUN}/evaluate/calibration.svg" if EVALUATED else [],
        expand(
            "results/{run}/evaluate/gallery/{question}.png",
            run=RUN,
            question=QUESTIONS if EVALUATED else [],
        ),
        expand("results/{run}/evaluate/{task}/gallery.png", run=RUN, task=TASKS),
        f"results/{RUN}/report/report/configuration.html",
    localrule: True
