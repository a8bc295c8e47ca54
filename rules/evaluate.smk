# Stage evaluate: the posteriors compared with the volunteers, in tables and figures.

EVALUATED = config["evaluate"]["target"]
EVALUATED_SPLIT = TARGETS[EVALUATED]["split"] if EVALUATED else None
RECALIBRATIONS = FILES.recalibrations(EVALUATED) if EVALUATED else []
QUESTIONS = [question.name for question in THIS.tree.questions]


rule evaluate_predictions:
    "compare the posteriors of the evaluated target with the volunteers"
    input:
        predictions=f"results/{{run}}/predict/{EVALUATED}/predictions.hdf5",
        parts=FILES.chunks(EVALUATED, "chunks/{chunk}.hdf5"),
        recalibrations=RECALIBRATIONS,
        test=f"results/{{run}}/catalog/{EVALUATED_SPLIT}.parquet",
        train="results/{run}/catalog/train.parquet",
    output:
        scores="results/{run}/evaluate/scores.csv",
        losses="results/{run}/evaluate/losses.csv",
        confusion="results/{run}/evaluate/confusion.csv",
        metrics="results/{run}/evaluate/metrics.json",
    log:
        "logs/{run}/evaluate_predictions.log",
    benchmark:
        "benchmarks/{run}/evaluate_predictions.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(4000),
        runtime=60,
    params:
        code=fingerprint("evaluate_predictions", "evaluate"),
        limits={key: config["evaluate"][key] for key in ("min_votes", "confident")},
        rule=config["evaluate"]["relevant"],
    script:
        "../workflow/scripts/evaluate_predictions.py"


rule draw_confusion:
    "draw the confusion matrices of one subset of the scored galaxies"
    input:
        confusion="results/{run}/evaluate/confusion.csv",
    output:
        svg=report(
            "results/{run}/evaluate/confusion_{subset}.svg",
            caption="../workflow/report/confusion.rst",
            category="Scores",
            labels={"figure": "confusion matrices", "galaxies": "{subset}"},
        ),
        png="results/{run}/evaluate/confusion_{subset}.png",
    log:
        "logs/{run}/draw_confusion/{subset}.log",
    benchmark:
        "benchmarks/{run}/draw_confusion/{subset}.tsv"
    wildcard_constraints:
        subset="all|confident",
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(1000),
        runtime=10,
    params:
        code=fingerprint("draw_confusion", "figures.confusion"),
        subset="{subset}",
    script:
        "../workflow/scripts/draw_confusion.py"


rule calibrate:
    "count how often the posterior intervals hold the truth and the votes"
    input:
        predictions=rules.evaluate_predictions.input.predictions,
        parts=rules.evaluate_predictions.input.parts,
        recalibrations=RECALIBRATIONS,
        test=rules.evaluate_predictions.input.test,
        # Only a simulated survey knows the probabilities that its votes were drawn from.
        truth=rules.simulate_record.output.truth if SIMULATED else [],
    output:
        coverage="results/{run}/evaluate/coverage.csv",
        calibration="results/{run}/evaluate/calibration.csv",
        # The same before the recalibration.
        as_trained=(
            [
                "results/{run}/evaluate/coverage_as_trained.csv",
                "results/{run}/evaluate/calibration_as_trained.csv",
            ]
            if RECALIBRATIONS
            else []
        ),
    log:
        "logs/{run}/calibrate.log",
    benchmark:
        "benchmarks/{run}/calibrate.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(4000),
        runtime=60,
    params:
        code=fingerprint("calibrate", "scores.calibration"),
    script:
        "../workflow/scripts/calibrate.py"


rule draw_calibration:
    "draw how often the intervals hold the truth and the votes, and the paper's calibration figure"
    input:
        coverage=rules.calibrate.output.coverage,
        calibration=rules.calibrate.output.calibration,
        as_trained=rules.calibrate.output.as_trained,
    output:
        svg=report(
            "results/{run}/evaluate/calibration.svg",
            caption="../workflow/report/calibration.rst",
            category="Calibration",
            labels={"figure": "coverage of truth and votes"},
        ),
        png="results/{run}/evaluate/calibration.png",
    log:
        "logs/{run}/draw_calibration.log",
    benchmark:
        "benchmarks/{run}/draw_calibration.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(1000),
        runtime=10,
    params:
        code=fingerprint("draw_calibration", "figures.calibration"),
    script:
        "../workflow/scripts/draw_calibration.py"


rule draw_learning_curves:
    "draw the losses of each training, epoch by epoch"
    input:
        histories=[each(FILES.members(name), "history.csv") for name in ENSEMBLES],
    output:
        svg=report(
            "results/{run}/evaluate/learning_curves.svg",
            caption="../workflow/report/learning_curves.rst",
            category="Training",
            labels={"figure": "learning curves", "model": "all members"},
        ),
        png="results/{run}/evaluate/learning_curves.png",
    log:
        "logs/{run}/draw_learning_curves.log",
    benchmark:
        "benchmarks/{run}/draw_learning_curves.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(1000),
        runtime=10,
    params:
        code=fingerprint("draw_learning_curves", "figures.learning_curves"),
        names=[f"{name} {member}" for name, entry in ENSEMBLES.items() for member in range(entry["members"])],
        title="Learning curves",
    script:
        "../workflow/scripts/draw_learning_curves.py"


rule draw_gallery:
    "draw the galaxies with the highest posterior for each answer"
    input:
        descriptions=FILES.chunks(EVALUATED, "catalog/{chunk}.parquet"),
        catalog=f"results/{{run}}/catalog/{EVALUATED_SPLIT}.parquet",
        archives=FILES.catalog_archives(),
    output:
        figures=[
            report(
                f"results/{{run}}/evaluate/gallery/{question}.png",
                caption="../workflow/report/gallery.rst",
                category="Galleries",
                labels={"question": question},
            )
            for question in QUESTIONS
        ],
    log:
        "logs/{run}/draw_gallery.log",
    benchmark:
        "benchmarks/{run}/draw_gallery.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(2000),
        runtime=30,
    params:
        code=fingerprint("draw_gallery", "figures.gallery"),
        across=6,
    script:
        "../workflow/scripts/draw_gallery.py"


rule evaluate_task:
    "score the predictions of a task against its labels"
    input:
        predictions=of_fits("predict/{fit}/predictions.hdf5"),
        parts=by("task", FILES.scored_chunks),
        galaxies="results/{run}/finetune/{task}/galaxies.parquet",
        probe="results/{run}/finetune/{task}/probe.parquet",
        recalibrations=by("task", FILES.task_recalibrations),
        scratch=of_fits("predict/{fit}/predictions.hdf5", THIS.scratch_fits),
    output:
        galaxies="results/{run}/evaluate/{task}/galaxies.parquet",
        scores="results/{run}/evaluate/{task}/scores.csv",
        advice="results/{run}/evaluate/{task}/advice.csv",
        confusion="results/{run}/evaluate/{task}/confusion.csv",
    log:
        "logs/{run}/evaluate_task/{task}.log",
    benchmark:
        "benchmarks/{run}/evaluate_task/{task}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(2000),
        runtime=10,
    params:
        code=fingerprint("evaluate_task", "scores.tasks"),
        fits=by("task", THIS.scored_fits),
        seed=config["seed"],
    script:
        "../workflow/scripts/evaluate_task.py"


rule draw_task:
    "draw the figures of a task"
    input:
        galaxies="results/{run}/evaluate/{task}/galaxies.parquet",
        confusion="results/{run}/evaluate/{task}/confusion.csv",
        histories=of_fits("finetune/{fit}/history.csv"),
        archives=by("task", FILES.task_archives),
    output:
        confusion=report(
            "results/{run}/evaluate/{task}/confusion.png",
            caption="../workflow/report/task_confusion.rst",
            category="Finetuning",
            subcategory="{task}",
            labels={"figure": "confusion matrix"},
        ),
        curves=report(
            "results/{run}/evaluate/{task}/curves.png",
            caption="../workflow/report/task_curves.rst",
            category="Finetuning",
            subcategory="{task}",
            labels={"figure": "curves and calibration"},
        ),
        learning_curve=report(
            "results/{run}/evaluate/{task}/learning_curve.png",
            caption="../workflow/report/task_learning_curve.rst",
            category="Finetuning",
            subcategory="{task}",
            labels={"figure": "learning curve"},
        ),
        gallery=report(
            "results/{run}/evaluate/{task}/gallery.png",
            caption="../workflow/report/task_gallery.rst",
            category="Finetuning",
            subcategory="{task}",
            labels={"figure": "gallery"},
        ),
    log:
        "logs/{run}/draw_task/{task}.log",
    benchmark:
        "benchmarks/{run}/draw_task/{task}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(2000),
        runtime=10,
    params:
        code=fingerprint(
            "draw_task", "figures.task_results", "figures.learning_curves", "figures.task_gallery"
        ),
        fits=by("task", THIS.scored_fits),
        across=6,
    script:
        "../workflow/scripts/draw_task.py"


rule compare_label_counts:
    "score and draw what a task learns from fewer labels"

    # One job scores and draws: both take only seconds.
    input:
        predictions=of_fits("predict/{fit}/predictions.hdf5", THIS.counted_fits),
        galaxies="results/{run}/finetune/{task}/galaxies.parquet",
        probe="results/{run}/finetune/{task}/probe.parquet",
        published=THIS.folder / "published" / "walmsley_2021_rings.yaml",
    output:
        scores="results/{run}/evaluate/{task}/label_counts.csv",
        figure=report(
            "results/{run}/evaluate/{task}/label_counts.png",
            caption="../workflow/report/task_label_counts.rst",
            category="Finetuning",
            subcategory="{task}",
            labels={"figure": "score against number of labels"},
        ),
    log:
        "logs/{run}/compare_label_counts/{task}.log",
    benchmark:
        "benchmarks/{run}/compare_label_counts/{task}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(2000),
        runtime=10,
    params:
        code=fingerprint("compare_label_counts", "scores.tasks", "figures.label_counts"),
        fits=by("task", THIS.counted_fits),
    script:
        "../workflow/scripts/compare_label_counts.py"


# Tasks that are compared with a regression on plain pixels: {name: its only label, which is binary}.
COMPARED_WITH_PIXELS = {
    name: task["labels"][0]["name"]
    for name, task in TASKS.items()
    if not task["folds"] and [label["kind"] for label in task["labels"]] == ["binary"]
}

if SIMULATED:

    rule compare_with_truth:
        "compare the posteriors with the truth of the simulated survey"

        # Only a simulated survey knows the probabilities that its votes were drawn from.
        input:
            train="results/{run}/catalog/train.parquet",
            test=f"results/{{run}}/catalog/{EVALUATED_SPLIT}.parquet",
            archives=FILES.catalog_archives(),
            predictions=rules.evaluate_predictions.input.predictions,
            truth=rules.simulate_record.output.truth,
            losses=rules.evaluate_predictions.output.losses,
            metrics=rules.evaluate_predictions.output.metrics,
            task_galaxies=expand(
                "results/{{run}}/finetune/{task}/galaxies.parquet", task=COMPARED_WITH_PIXELS
            ),
            task_scores=expand("results/{{run}}/evaluate/{task}/scores.csv", task=COMPARED_WITH_PIXELS),
        output:
            learning="results/{run}/evaluate/learning.csv",
        log:
            "logs/{run}/compare_with_truth.log",
        benchmark:
            "benchmarks/{run}/compare_with_truth.tsv"
        conda:
            "../envs/cpu.yaml"
        threads: 1
        resources:
            mem_mb=doubled(4000),
            runtime=30,
        params:
            code=fingerprint("compare_with_truth", "simulation.truth"),
            labels=list(COMPARED_WITH_PIXELS.values()),
        script:
            "../workflow/scripts/compare_with_truth.py"


rule evaluate:
    "scores, calibration and galleries of the evaluated target"
    input:
        f"results/{RUN}/evaluate/scores.csv" if EVALUATED else [],
        f"results/{RUN}/evaluate/learning.csv" if EVALUATED and SIMULATED else [],
        f"results/{RUN}/evaluate/coverage.csv" if EVALUATED else [],
        expand("results/{run}/evaluate/{task}/scores.csv", run=RUN, task=TASKS),
        expand("results/{run}/evaluate/{task}/label_counts.csv", run=RUN, task=THIS.counted_tasks),
    localrule: True
