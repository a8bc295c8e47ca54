# Stage predict: posteriors for a split, a catalogue, a folder, the archives or foreign shards.


def model_folders(wildcards):
    """The models that a target is predicted with: an ensemble's members, or a finetuned model."""
    if wildcards.target in TASKS:
        return [f"results/{RUN}/finetune/{wildcards.target}"]
    return ensemble_folders(TARGETS[wildcards.target]["ensemble"])


def target_models(wildcards):
    """Files of the models that a target is predicted with."""
    return model_files(model_folders(wildcards), "model.keras")


def target_abouts(wildcards):
    """Descriptions of the models that a target is predicted with."""
    return model_files(model_folders(wildcards), "model.json")


def target_galaxies(wildcards):
    """What a target's galaxies are read from: one catalogue, or the sidecars of shards."""
    if wildcards.target in TASKS:
        return [f"results/{RUN}/finetune/{wildcards.target}/test.parquet"]
    target = TARGETS[wildcards.target]
    if "split" in target:
        return shard_files(".json" if config["shards"]["enabled"] else ".parquet", target["split"])
    if "catalog" in target:
        return [target["catalog"]]
    if "shards" in target:
        return sorted(str(path) for path in Path(target["shards"]).glob("*.json"))
    return [f"results/{RUN}/predict/{wildcards.target}/galaxies.parquet"]


def target_pixels(wildcards):
    """The files that hold the pixels, where a rule makes or downloads them."""
    target = TARGETS.get(wildcards.target, {})
    if target.get("split") and config["shards"]["enabled"]:
        return shard_files(".tfrecord", target["split"])
    entry = TASKS.get(wildcards.target) or config["catalogs"][0]
    return [] if {"images", "catalog", "shards"} & set(target) else archives_of(entry)


def listed_sources(wildcards):
    """The archives whose images a target wants all of."""
    if "archives" not in TARGETS[wildcards.target]:
        return []
    return [path for entry in config["catalogs"] for path in archives_of(entry)]


rule list_galaxies:
    input:
        archives=listed_sources,
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
        mem_mb=4000,
        runtime=60,
    params:
        code=fingerprint("list_galaxies", "locations"),
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
        "../envs/cpu.yaml"
    threads: 8
    resources:
        mem_mb=8000,
        runtime=720,
    params:
        code=fingerprint("predict_chunk", "predict"),
        samples=config["predict"]["samples"],
        views=config["predict"]["views"],
        chunks=config["predict"]["chunks"],
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
        mem_mb=2000,
        runtime=120,
    params:
        code=fingerprint("describe_posteriors", "predictions"),
        credible_level=config["predict"]["credible_level"],
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
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=fingerprint("collect_predictions", "predictions"),
    script:
        "../workflow/scripts/collect_predictions.py"


rule predict:
    input:
        expand("results/{run}/predict/{target}/predictions.hdf5", run=RUN, target=TARGETS),
        expand(
            "results/{run}/predict/{target}/catalog/{chunk}.parquet",
            run=RUN,
            target=TARGETS,
            chunk=range(config["predict"]["chunks"]),
        ),
    localrule: True
