# Stage paper: the paper's tables and figures, made from this run, and the counts of its record's tables.

COMPARED = THIS.is_comparable
EVERYTHING = next((name for name, target in TARGETS.items() if "archives" in target), None)
EARLIER = FILES.published_table("volunteers_1_and_2")
POSTERIORS = FILES.published_table("auto_posteriors")
# Figures, and their names in the report.
# Snakemake sorts the names as text.
FROM_TABLES = {
    "figure_02": "02: votes of each galaxy",
    "figure_03": "03: what active learning chose",
    "figure_10": "10: debiasing",
    "figure_20": "20: bulges and winding",
}
FROM_PREDICTIONS = {
    "figure_15": "15: deviation of each answer",
    "figure_16": "16: how many volunteers the model is worth",
}
PICTURES = {
    "figure_11": "11: posteriors for spiral arms",
    "figure_12": "12: posteriors for bars",
    "figure_17": "17: two arms, or can't tell",
    "figure_18": "18: from the surest to the least sure",
    "galleries": "A1 to A5: galleries",
}
DRAWN_TREES = {tree.name: tree for tree in THIS.trees.values()}
if COMPARED:
    # The number of galaxies in the models' panel of the paper's figure 20.
    ALL_SPIRALS = THIS.published["figures"]["figure_20"]["models"]
    # Figure A1, in addition to figure 4.
    DRAWN_TREES["gz_decals_1_2"] = THIS.known_tree("gz_decals_1_2")


rule draw_trees:
    "draw the decision trees"
    output:
        svg=[
            report(
                f"results/{{run}}/paper/tree_{name}.svg",
                caption="../workflow/report/paper_tree.rst",
                category="Paper" if COMPARED else "Data",
                labels={"figure": f"decision tree: {tree.title}"},
            )
            for name, tree in DRAWN_TREES.items()
        ],
        png=[f"results/{{run}}/paper/tree_{name}.png" for name in DRAWN_TREES],
    log:
        "logs/{run}/draw_trees.log",
    benchmark:
        "benchmarks/{run}/draw_trees.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(1000),
        runtime=10,
    params:
        code=fingerprint("draw_trees", "figures.tree"),
        trees={name: tree.to_dict() for name, tree in DRAWN_TREES.items()},
    script:
        "../workflow/scripts/draw_trees.py"


if COMPARED:

    rule compare_with_published:
        "write the scores beside those of the paper's Table 1"
        input:
            scores="results/{run}/evaluate/scores.csv",
        output:
            table="results/{run}/paper/table_1.csv",
            page=report(
                "results/{run}/paper/table_1.html",
                caption="../workflow/report/paper_table_1.rst",
                category="Paper",
                labels={"figure": "Table 1: this run beside the paper"},
            ),
        log:
            "logs/{run}/compare_with_published.log",
        benchmark:
            "benchmarks/{run}/compare_with_published.tsv"
        conda:
            "../envs/cpu.yaml"
        threads: 1
        resources:
            mem_mb=doubled(1000),
            runtime=10,
        params:
            code=fingerprint("compare_with_published", "paper"),
            published=THIS.published,
            warning=THIS.why_not_comparable,
        script:
            "../workflow/scripts/compare_with_published.py"

    rule draw_paper_tables:
        "draw the figures of the paper that need only tables"
        input:
            votes=FILES.catalog_tables(),
            earlier=EARLIER,
            posteriors=POSTERIORS,
            own=FILES.chunks(EVERYTHING or EVALUATED, "catalog/{chunk}.parquet"),
        output:
            svg=[
                report(
                    f"results/{{run}}/paper/{figure}.svg",
                    caption=f"../workflow/report/paper_{figure}.rst",
                    category="Paper",
                    labels={"figure": f"Figure {what}"},
                )
                for figure, what in FROM_TABLES.items()
            ],
            png=[f"results/{{run}}/paper/{figure}.png" for figure in FROM_TABLES],
        log:
            "logs/{run}/draw_paper_tables.log",
        benchmark:
            "benchmarks/{run}/draw_paper_tables.tsv"
        conda:
            "../envs/cpu.yaml"
        threads: 1
        resources:
            mem_mb=doubled(4000),
            runtime=30,
        params:
            code=fingerprint("draw_paper_tables", "figures.paper_tables"),
            tree=THIS.table_tree(config["catalogs"][0]["name"]),
            title="Simulated survey" if SIMULATED else THIS.tree.title,
            earlier=["Galaxy Zoo DECaLS 1 and 2"] if EARLIER else [],
            # {name in the figure: (the input, the number of galaxies in the paper)}.
            models={
                **({"Published posteriors": ("posteriors", ALL_SPIRALS)} if POSTERIORS else {}),
                **({"This run, every galaxy": ("own", ALL_SPIRALS)} if EVERYTHING else {}),
                **({} if EVERYTHING else {"This run, test galaxies": ("own", None)}),
            },
            published=THIS.published["figures"],
        script:
            "../workflow/scripts/draw_paper_tables.py"

    rule draw_paper_predictions:
        "draw the figures of the paper that need posteriors or images"
        input:
            predictions=rules.evaluate_predictions.input.predictions,
            parts=rules.evaluate_predictions.input.parts,
            recalibrations=RECALIBRATIONS,
            catalog=rules.evaluate_predictions.input.test,
            descriptions=rules.draw_gallery.input.descriptions,
            archives=FILES.catalog_archives(),
        output:
            shown=[
                report(
                    f"results/{{run}}/paper/{figure}.{'svg' if figure in FROM_PREDICTIONS else 'png'}",
                    caption=f"../workflow/report/paper_{figure}.rst",
                    category="Paper",
                    labels={"figure": f"Figure {what}"},
                )
                for figure, what in (FROM_PREDICTIONS | PICTURES).items()
            ],
            png=[f"results/{{run}}/paper/{figure}.png" for figure in FROM_PREDICTIONS],
        log:
            "logs/{run}/draw_paper_predictions.log",
        benchmark:
            "benchmarks/{run}/draw_paper_predictions.tsv"
        conda:
            "../envs/cpu.yaml"
        threads: 1
        resources:
            mem_mb=doubled(4000),
            runtime=30,
        params:
            code=fingerprint("draw_paper_predictions", "figures.paper_predictions"),
            min_votes=config["evaluate"]["min_votes"],
            rule=config["evaluate"]["relevant"],
            published=THIS.published["figures"],
        script:
            "../workflow/scripts/draw_paper_predictions.py"


rule check_record:
    "count the galaxies of the record and compare with the published numbers, without the zips"

    # The table that says which counts are wrong is no output: Snakemake deletes outputs of a failed job.
    input:
        tables=list(FILES.checked_tables().values()),
    log:
        f"logs/{RUN}/check_record.log",
    benchmark:
        f"benchmarks/{RUN}/check_record.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(4000),
        runtime=30,
    params:
        expected=str(FILES.checks),
        output=f"results/{RUN}/paper/check_record.csv",
    script:
        "../workflow/scripts/check_record.py"


rule paper:
    "the tables and figures of the paper, beside the published numbers"
    input:
        expand("results/{run}/paper/tree_{name}.svg", run=RUN, name=DRAWN_TREES if ENSEMBLES else []),
        expand(
            "results/{run}/paper/{file}",
            run=RUN,
            file=["table_1.html", "figure_02.svg", "figure_15.svg"] if COMPARED else [],
        ),
    localrule: True
