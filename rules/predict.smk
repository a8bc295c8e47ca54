# Stage predict: posteriors for a split, a catalogue, a folder, the archives, or shards from elsewhere.

# Targets with labels of the user, which their predictions are scored with.
LABELLED = [name for name, target in TARGETS.items() if target["labels"]]


checkpoint list_galaxies:
    "list the galaxies of a target for all of its chunks"

    # One list for all chunks; each chunk reads only its own galaxies from it. The list of a folder is continued.
    # A checkpoint, so that Snakemake looks again at the chunks when the list is written: their revisions decide.
    input:
        sources=by("target", FILES.listed),
    output:
        galaxies=update("results/{run}/predict/{target}/galaxies.parquet"),
    log:
        "logs/{run}/list_galaxies/{target}.log",
    benchmark:
        "benchmarks/{run}/list_galaxies/{target}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(4000),
        runtime=60,
    params:
        code=fingerprint("list_galaxies", "data.listing"),
        kind=by("target", THIS.listed_kind),
        images=by("target", THIS.listed_images),
        listing=by("target", THIS.listing),
        revisions=by("target", FILES.revisions),
    script:
        "../workflow/scripts/list_galaxies.py"


rule predict_chunk:
    "predict the posteriors of one chunk of a target"
    input:
        galaxies=listed_galaxies,
        pixels=by("target", FILES.pixels),
        models=by("target", FILES.model_files),
        about=by("target", FILES.model_abouts),
    output:
        predictions="results/{run}/predict/{target}/chunks/{chunk}.hdf5",
        rejected="results/{run}/predict/{target}/chunks/{chunk}.rejected.csv",
    log:
        "logs/{run}/predict_chunk/{target}-{chunk}.log",
    benchmark:
        "benchmarks/{run}/predict_chunk/{target}-{chunk}.tsv"
    conda:
        environment_of("predict_chunk")
    threads: 8
    resources:
        mem_mb=doubled(8000),
        runtime=720,
        accelerator=accelerator,
    params:
        code=fingerprint("predict_chunk", "predict"),
        decoding={"max_pixels": config["shards"]["max_pixels"]},
        predict={key: config["predict"][key] for key in ("samples", "views", "chunks")},
        kept=by("target", THIS.kept),
        revision=revision_of_chunk,
        seed=config["seed"],
    script:
        "../workflow/scripts/predict_chunk.py"


rule describe_posteriors:
    "describe the posteriors of one chunk in the flat catalogue"
    input:
        predictions="results/{run}/predict/{target}/chunks/{chunk}.hdf5",
        recalibrations=by("target", FILES.recalibrations),
        votes=by("target", FILES.votes),
    output:
        catalog="results/{run}/predict/{target}/catalog/{chunk}.parquet",
    log:
        "logs/{run}/describe_posteriors/{target}-{chunk}.log",
    benchmark:
        "benchmarks/{run}/describe_posteriors/{target}-{chunk}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 2
    resources:
        mem_mb=doubled(2000),
        runtime=120,
    params:
        code=fingerprint("describe_posteriors", "posteriors.files"),
        credible_level=config["predict"]["credible_level"],
        # The tree's cuts define samples.
        tree=THIS.tree.without_title(published=True),
    script:
        "../workflow/scripts/describe_posteriors.py"


rule collect_predictions:
    "join the chunks of a target in predictions.hdf5"
    input:
        galaxies=by("target", lambda target: [FILES.list_of(target)] if FILES.revisions(target) else []),
        parts=of_chunks("chunks/{chunk}.hdf5"),
        rejected=of_chunks("chunks/{chunk}.rejected.csv"),
    output:
        predictions="results/{run}/predict/{target}/predictions.hdf5",
        rejected="results/{run}/predict/{target}/rejected.csv",
        unfamiliar="results/{run}/predict/{target}/unfamiliar.csv",
    log:
        "logs/{run}/collect_predictions/{target}.log",
    benchmark:
        "benchmarks/{run}/collect_predictions/{target}.tsv"
    localrule: True
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(2000),
        runtime=30,
    params:
        code=fingerprint("collect_predictions", "posteriors.collect"),
        # The share is judged over all chunks together, as that of the shards.
        max_rejected=config["shards"]["max_rejected"],
        collect=config["predict"]["collect"],
    script:
        "../workflow/scripts/collect_predictions.py"


rule write_catalog:
    "write the flat catalogue of a target as one file"

    # The flat catalogue as one file, for TOPCAT and others.
    input:
        parts=of_chunks("catalog/{chunk}.parquet"),
        places=by("target", FILES.target_places),
        tables=by("target", FILES.target_tables),
    output:
        catalog="results/{run}/predict/{target}/catalog.{form}",
    log:
        "logs/{run}/write_catalog/{target}-{form}.log",
    benchmark:
        "benchmarks/{run}/write_catalog/{target}-{form}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(4000),
        runtime=120,
    params:
        code=fingerprint("write_catalog", "posteriors.formats"),
        keep=config["predict"]["catalog"]["keep"],
        name=by("target", THIS.name_column),
    script:
        "../workflow/scripts/write_catalog.py"


rule score_target:
    "score the predictions of a target with the user's own labels"

    # The user's own labels of some galaxies of a target: one job scores and draws, both take only seconds.
    input:
        predictions="results/{run}/predict/{target}/predictions.hdf5",
        parts=of_chunks("chunks/{chunk}.hdf5"),
        labels=by("target", FILES.target_labels),
        recalibrations=by("target", FILES.recalibrations),
    output:
        scores="results/{run}/predict/{target}/scores.csv",
        confusion="results/{run}/predict/{target}/confusion.csv",
        advice="results/{run}/predict/{target}/advice.csv",
        galaxies="results/{run}/predict/{target}/scored.parquet",
        rejected="results/{run}/predict/{target}/not_scored.csv",
        figures=[
            report(
                f"results/{{run}}/predict/{{target}}/{figure}.png",
                caption="../workflow/report/target_scores.rst",
                category="Predictions",
                subcategory="{target}",
                labels={"figure": what},
            )
            for figure, what in {"confusion": "confusion matrix", "curves": "curves and calibration"}.items()
        ],
    log:
        "logs/{run}/score_target/{target}.log",
    benchmark:
        "benchmarks/{run}/score_target/{target}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(4000),
        runtime=60,
    params:
        code=fingerprint("score_target", "scores.given_labels", "figures.task_results"),
        where=by("target", lambda target: f"predict.targets.{target}.labels"),
        name=by("target", THIS.name_column),
        seed=config["seed"],
    script:
        "../workflow/scripts/score_target.py"


rule draw_survey:
    "draw the galaxies of a target with the highest values, and those unlike the training set"
    input:
        descriptions=of_chunks("catalog/{chunk}.parquet"),
        places=by("target", FILES.target_places),
        pixels=by("target", FILES.pixels),
    output:
        figure=report(
            "results/{run}/predict/{target}/gallery.png",
            caption="../workflow/report/survey.rst",
            category="Predictions",
            subcategory="{target}",
            labels={"figure": "gallery"},
        ),
    log:
        "logs/{run}/draw_survey/{target}.log",
    benchmark:
        "benchmarks/{run}/draw_survey/{target}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(2000),
        runtime=60,
    params:
        code=fingerprint("draw_survey", "figures.survey"),
        title="{target}",
    script:
        "../workflow/scripts/draw_survey.py"


rule collect_representations:
    "join the representations of a target's chunks in one file"
    input:
        parts=of_chunks("chunks/{chunk}.hdf5"),
    output:
        representations="results/{run}/predict/{target}/representations.hdf5",
    log:
        "logs/{run}/collect_representations/{target}.log",
    benchmark:
        "benchmarks/{run}/collect_representations/{target}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(2000),
        runtime=120,
    params:
        code=fingerprint("collect_representations", "likeness.representations"),
    script:
        "../workflow/scripts/collect_representations.py"


rule rank_galaxies:
    "rank the galaxies of a target by what a model would learn from votes on them"
    input:
        parts=of_chunks("chunks/{chunk}.hdf5"),
        recalibrations=by("target", FILES.recalibrations),
    output:
        ranked="results/{run}/predict/{target}/label_next.csv",
    log:
        "logs/{run}/rank_galaxies/{target}.log",
    benchmark:
        "benchmarks/{run}/rank_galaxies/{target}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 2
    resources:
        mem_mb=doubled(2000),
        runtime=120,
    params:
        code=fingerprint("rank_galaxies", "posteriors.ranking"),
        acquisition=config["predict"]["acquisition"],
        seed=config["seed"],
    script:
        "../workflow/scripts/rank_galaxies.py"


rule write_manifest:
    "write a folder of galaxies to upload to Zooniverse"

    # The images are beside the manifest, in one folder to upload.
    input:
        ranked="results/{run}/predict/{target}/label_next.csv",
        places=by("target", FILES.target_places),
        voted=by("target", FILES.classified),
    output:
        manifest="results/{run}/predict/{target}/manifest/manifest.csv",
        rejected="results/{run}/predict/{target}/manifest.rejected.csv",
    log:
        "logs/{run}/write_manifest/{target}.log",
    benchmark:
        "benchmarks/{run}/write_manifest/{target}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(2000),
        runtime=60,
    params:
        code=fingerprint("write_manifest", "zooniverse.manifest"),
        galaxies=config["predict"]["manifest"],
        decoding={"max_pixels": config["shards"]["max_pixels"]},
    script:
        "../workflow/scripts/write_manifest.py"


rule predict:
    "posteriors of each target: predictions.hdf5, the flat catalogue, and what to label next"
    input:
        expand("results/{run}/predict/{target}/predictions.hdf5", run=RUN, target=TARGETS),
        expand("results/{run}/predict/{target}/label_next.csv", run=RUN, target=TARGETS),
        expand("results/{run}/predict/{target}/scores.csv", run=RUN, target=LABELLED),
        expand(
            "results/{run}/predict/{target}/manifest/manifest.csv",
            run=RUN,
            target=THIS.manifests,
        ),
        expand(
            "results/{run}/predict/{target}/catalog.{form}",
            run=RUN,
            target=TARGETS,
            form=THIS.catalog_suffixes,
        ),
        # A function: folders are looked at only if somebody asks for predictions.
        lambda wildcards: [
            path for target in TARGETS for path in FILES.chunks(target, "catalog/{chunk}.parquet")
        ],
    localrule: True


rule represent:
    "how the model sees the galaxies of each target, in one file"
    input:
        expand("results/{run}/predict/{target}/representations.hdf5", run=RUN, target=TARGETS),
    localrule: True
