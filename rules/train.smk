# Stage train: the members of each ensemble.


rule train_member:
    input:
        shards=learning_shards,
        about=learning_sidecars,
        validation=shard_files(SHARD_SUFFIX, "val"),
        validation_about=shard_files(".json", "val"),
        # Has to be judged first; judged again by another limit, it is no reason to train.
        rejected=ancient("results/{run}/shards/rejected.csv"),
        start=model_to_start_from(),
    output:
        model="results/{run}/train/{ensemble}/{member}/model.keras",
        about="results/{run}/train/{ensemble}/{member}/model.json",
        history="results/{run}/train/{ensemble}/{member}/history.csv",
    log:
        "logs/{run}/train_member/{ensemble}-{member}.log",
    benchmark:
        "benchmarks/{run}/train_member/{ensemble}-{member}.tsv"
    conda:
        environment_of("train_member")
    threads: 8
    resources:
        mem_mb=16000,
        # A day at a time, which every cluster grants; the next attempt goes on.
        runtime=1440,
    params:
        code=fingerprint("train_member", "train"),
        image=config["image"],
        # The steps themselves, so that an edit of their file trains anew.
        train={key: value for key, value in TRAIN.items() if key != "ensembles"},
        tree=TREE,
        seed=config["seed"],
    script:
        "../workflow/scripts/train_member.py"


rule draw_augmentations:
    input:
        shards=shard_files(SHARD_SUFFIX, "train"),
        about=shard_files(".json", "train"),
    output:
        report(
            "results/{run}/train/augmentations.png",
            caption="../workflow/report/augmentations.rst",
            category="Training",
            labels={"figure": "augmentations", "model": "all members"},
        ),
    log:
        "logs/{run}/draw_augmentations.log",
    benchmark:
        "benchmarks/{run}/draw_augmentations.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(2000),
        runtime=10,
    params:
        code=fingerprint("draw_augmentations", "figures.augmentations"),
        image=config["image"],
        augmentations=AUGMENTATIONS,
        seed=config["seed"],
    script:
        "../workflow/scripts/draw_augmentations.py"


rule train:
    input:
        [model_files(ensemble_folders(name), "model.keras") for name in ENSEMBLES],
    localrule: True
