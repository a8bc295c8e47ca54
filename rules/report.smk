# Stage report: what Snakemake's own report shows; `make report` writes it as one HTML file.

# {table: (caption, category, task, name in the report)}.
TABLES = {
    "report/configuration": ("configuration", "Run", None, "configuration"),
    "report/provenance": ("provenance", "Run", None, "versions and data"),
}
if ENSEMBLES:
    TABLES["catalog/summary"] = ("catalog_summary", "Data", None, "galaxies left after each cut")
    for catalog in THIS.exports:
        counted = ("classifications", "Data", catalog, "classifications left after each step")
        TABLES[f"catalog/{catalog}/summary"] = counted
    TABLES["shards/rejected"] = ("rejected", "Data", None, "images that could not be read")
if EVALUATED:
    TABLES["evaluate/scores"] = ("scores", "Scores", None, "scores of each question")
    TABLES["evaluate/losses"] = ("losses", "Scores", None, "test loss beside a constant predictor's")
    TABLES["evaluate/coverage"] = ("coverage", "Calibration", None, "coverage of truth and votes")
if RECALIBRATIONS:
    before = "the same before the recalibration"
    TABLES["evaluate/coverage_as_trained"] = ("coverage", "Calibration", None, before)
if EVALUATED and SIMULATED:
    TABLES["evaluate/learning"] = ("learning", "Scores", None, "what was learned, between trivial and true")
for target in TARGETS:
    unlike = ("unfamiliar", "Predictions", target, "galaxies unlike the training set")
    if target in LABELLED:
        TABLES[f"predict/{target}/scores"] = ("task_scores", "Predictions", target, "scores")
    TABLES[f"predict/{target}/unfamiliar"] = unlike
for task in TASKS:
    summary = ("catalog_summary", "Finetuning", task, "galaxies left after each cut")
    TABLES[f"finetune/{task}/summary"] = summary
    TABLES[f"evaluate/{task}/scores"] = ("task_scores", "Finetuning", task, "scores")
    TABLES[f"evaluate/{task}/advice"] = ("task_advice", "Finetuning", task, "no better than what is simpler")
# Targets with pictures that no gallery of the evaluation shows.
SURVEYED = [name for name, target in TARGETS.items() if name != EVALUATED and "shards" not in target]
# What could not be used, and the figures of the first page, the most important first.
NOT_USED = ["results/{run}/catalog/rejected.csv", "results/{run}/shards/rejected.csv"] if ENSEMBLES else []
NOT_USED += expand("results/{{run}}/finetune/{task}/rejected.csv", task=TASKS)
NOT_USED += expand("results/{{run}}/predict/{target}/rejected.csv", target=TARGETS)
FIRST_FIGURES = []
if EVALUATED:
    FIRST_FIGURES += [f"results/{{run}}/evaluate/gallery/{QUESTIONS[0]}.png"]
    FIRST_FIGURES += ["results/{run}/evaluate/calibration.png"]
FIRST_FIGURES += expand(
    "results/{{run}}/evaluate/{task}/{figure}.png", task=TASKS, figure=["curves", "gallery"]
)
FIRST_FIGURES += expand("results/{{run}}/predict/{target}/gallery.png", target=SURVEYED)


rule describe_run:
    "write the report's tables of settings and versions"
    input:
        about=[each(FILES.members(name), "model.json") for name in ENSEMBLES],
        tasks=expand("results/{{run}}/finetune/{fit}/model.json", fit=THIS.fits),
    output:
        configuration="results/{run}/report/configuration.csv",
        settings="results/{run}/report/configuration.yaml",
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
    "write the tables of the report as HTML"

    # Snakemake's report shows HTML, but it offers CSV only for download.
    input:
        tables=expand("results/{{run}}/{table}.csv", table=TABLES),
    output:
        pages=[
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


rule write_first_page:
    "write the first page of the report"

    # The description of the workflow shows this piece of HTML: workflow/report/workflow.rst.
    input:
        models=[each(FILES.members(name), "model.json") for name in ENSEMBLES],
        fits=expand("results/{{run}}/finetune/{fit}/model.json", fit=THIS.fits),
        summary="results/{run}/catalog/summary.csv" if ENSEMBLES else [],
        task_summaries=expand("results/{{run}}/finetune/{task}/summary.csv", task=TASKS),
        scores="results/{run}/evaluate/scores.csv" if EVALUATED else [],
        losses="results/{run}/evaluate/losses.csv" if EVALUATED else [],
        confusion="results/{run}/evaluate/confusion.csv" if EVALUATED else [],
        coverage="results/{run}/evaluate/coverage.csv" if EVALUATED else [],
        table_1="results/{run}/paper/table_1.csv" if COMPARED else [],
        task_scores=expand("results/{{run}}/evaluate/{task}/scores.csv", task=TASKS),
        target_scores=expand("results/{{run}}/predict/{target}/scores.csv", target=LABELLED),
        advice=expand("results/{{run}}/evaluate/{task}/advice.csv", task=TASKS),
        unfamiliar=expand("results/{{run}}/predict/{target}/unfamiliar.csv", target=TARGETS),
        not_used=NOT_USED,
        figures=FIRST_FIGURES,
    output:
        page="results/{run}/report/first_page.html",
    log:
        "logs/{run}/write_first_page.log",
    benchmark:
        "benchmarks/{run}/write_first_page.tsv"
    localrule: True
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(1000),
        runtime=10,
    params:
        code=fingerprint("write_first_page", "figures.first_page"),
        tasks=list(TASKS),
        targets=list(TARGETS),
        labelled=LABELLED,
    script:
        "../workflow/scripts/write_first_page.py"


rule report:
    "the tables and figures that the report shows; make report CONFIG=… writes the page"
    input:
        rules.evaluate.input,
        rules.paper.input,
        expand("results/{run}/train/augmentations.png", run=RUN if ENSEMBLES else []),
        expand("results/{run}/evaluate/learning_curves.svg", run=RUN if ENSEMBLES else []),
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
        expand("results/{run}/predict/{target}/gallery.png", run=RUN, target=SURVEYED),
        f"results/{RUN}/report/report/configuration.html",
        f"results/{RUN}/report/first_page.html",
    localrule: True
