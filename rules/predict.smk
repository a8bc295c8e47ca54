# Stage predict: posteriors for a split, a catalogue, a folder, the archives or foreign shards.


rule list_galaxies:
    # Once for all chunks, none of which reads more than its own galaxies.
    input:
        sources=listed_sources,
    output:
        galaxies="results/{run}/predict/{target}/galaxies.parquet",
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
        kind=listed_kind,
        images=lambda wildcards: TARGETS[wildcards.target].get("images"),
    script:
        "../workflow/scripts/list_galaxies.py"


rule predict_chunk:
    input:
        galaxies=target_galaxies,
        pixels=target_pixels,
        models=target_models,
        about=target_abouts,
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
    params:
        code=fingerprint("predict_chunk", "predict"),
        predict={key: config["predict"][key] for key in ("samples", "views", "chunks")},
        seed=config["seed"],
    script:
        "../workflow/scripts/predict_chunk.py"


rule describe_posteriors:
    input:
        predictions="results/{run}/predict/{target}/chunks/{chunk}.hdf5",
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
        # Its cuts name samples.
        tree=CUT_TREE,
    script:
        "../workflow/scripts/describe_posteriors.py"


rule collect_predictions:
    input:
        parts=expand(
            "results/{{run}}/predict/{{target}}/chunks/{chunk}.hdf5",
            chunk=range(config["predict"]["chunks"]),
        ),
        rejected=expand(
            "results/{{run}}/predict/{{target}}/chunks/{chunk}.rejected.csv",
            chunk=range(config["predict"]["chunks"]),
        ),
    output:
        predictions="results/{run}/predict/{target}/predictions.hdf5",
        rejected="results/{run}/predict/{target}/rejected.csv",
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
        code=fingerprint("collect_predictions", "posteriors.files"),
    script:
        "../workflow/scripts/collect_predictions.py"


rule rank_galaxies:
    input:
        parts=expand(
            "results/{{run}}/predict/{{target}}/catalog/{chunk}.parquet",
            chunk=range(config["predict"]["chunks"]),
        ),
    output:
        ranked="results/{run}/predict/{target}/label_next.csv",
    log:
        "logs/{run}/rank_galaxies/{target}.log",
    benchmark:
        "benchmarks/{run}/rank_galaxies/{target}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(4000),
        runtime=30,
    params:
        code=fingerprint("rank_galaxies", "posteriors.files"),
    script:
        "../workflow/scripts/rank_galaxies.py"


rule predict:
    input:
        expand("results/{run}/predict/{target}/predictions.hdf5", run=RUN, target=TARGETS),
        expand("results/{run}/predict/{target}/label_next.csv", run=RUN, target=TARGETS),
        expand(
            "results/{run}/predict/{target}/catalog/{chunk}.parquet",
            run=RUN,
            target=TARGETS,
            chunk=range(config["predict"]["chunks"]),
        ),
    localrule: True
