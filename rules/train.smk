# Stage train: the members of each ensemble.


START_FROM = config["train"]["start_from"]


rule train_member:
    input:
        shards=learning_shards,
        about=learning_sidecars,
        validation=shard_files(SHARD_SUFFIX, "val"),
        validation_about=shard_files(".json", "val"),
        rejected="results/{run}/shards/rejected.csv",
        start_from=[f"{START_FROM}/model.keras", f"{START_FROM}/model.json"] if START_FROM else [],
    output:
        model="results/{run}/train/{ensemble}/{member}/model.keras",
        about="results/{run}/train/{ensemble}/{member}/model.json",
        history="results/{run}/train/{ensemble}/{member}/history.csv",
    log:
        "logs/{run}/train_member/{ensemble}-{member}.log",
    benchmark:
        "benchmarks/{run}/train_member/{ensemble}-{member}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 8
    resources:
        mem_mb=16000,
        runtime=2880,
    params:
        code=fingerprint("train_member", "train"),
        image=config["image"],
        train={key: value for key, value in config["train"].items() if key != "ensembles"},
        tree=TREE,
        seed=config["seed"],
    script:
        "../workflow/scripts/train_member.py"


rule train:
    input:
        [model_files(ensemble_folders(name), "model.keras") for name in ENSEMBLES],
    localrule: True
