# Stage train: the members of each ensemble.


rule train_member:
    "train one member of an ensemble"
    input:
        shards=by("ensemble", FILES.learning_shards),
        about=by("ensemble", FILES.learning_sidecars),
        validation=FILES.shards(FILES.shard_suffix, "val"),
        validation_about=FILES.shards(".json", "val"),
        # Training waits for this check, but a repeated check with another limit causes no new training.
        rejected=ancient("results/{run}/shards/rejected.csv"),
        start=FILES.ensemble_start(),
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
        mem_mb=training_memory(by("ensemble", THIS.training_of_ensemble)),
        accelerator=accelerator,
        # One day per attempt, which every cluster allows; the next attempt continues.
        runtime=1440,
    params:
        code=fingerprint("train_member", "train"),
        image=config["image"],
        # It has the steps of the augmentation, so that an edit of their file causes a new training.
        train=by("ensemble", THIS.training_of_ensemble),
        tree=THIS.tree.without_title(),
        seed=config["seed"],
    script:
        "../workflow/scripts/train_member.py"


rule draw_augmentations:
    "draw galaxies as the training sees them"
    input:
        shards=FILES.shards(FILES.shard_suffix, "train"),
        about=FILES.shards(".json", "train"),
    output:
        figure=report(
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
        augmentations=THIS.augmentations,
        seed=config["seed"],
    script:
        "../workflow/scripts/draw_augmentations.py"


rule train:
    "train all members of the ensembles that are used"
    input:
        [each(FILES.members(name), "model.keras") for name in THIS.ensembles],
    localrule: True
