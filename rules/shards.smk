# Stage shards: images and votes in files that training reads fast.


rule write_shard:
    "write one shard of a split"

    # Images are read directly from the record's zips: nothing is unpacked.
    input:
        catalog="results/{run}/catalog/{split}.parquet",
        archives=FILES.catalog_archives(),
    output:
        shard=f"results/{{run}}/shards/{{split}}/{{shard}}{FILES.shard_suffix}",
        about="results/{run}/shards/{split}/{shard}.json",
        rejected="results/{run}/shards/{split}/{shard}.rejected.csv",
    log:
        "logs/{run}/write_shard/{split}-{shard}.log",
    benchmark:
        "benchmarks/{run}/write_shard/{split}-{shard}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 2
    resources:
        mem_mb=doubled(2000),
        runtime=60,
    params:
        code=fingerprint("write_shard", "shards"),
        image=THIS.stored_image,
        decoding={"max_pixels": config["shards"]["max_pixels"]},
        of=by("split", config["shards"]["count"].get),
        enabled=config["shards"]["enabled"],
    script:
        "../workflow/scripts/write_shard.py"


rule check_rejected:
    "collect the rejected images of all shards, and stop if they are too many"

    # The share is judged over all shards together: one bad image in a small shard is no reason to stop.
    input:
        abouts=FILES.shards(".json", *SPLITS),
        rejected=FILES.shards(".rejected.csv", *SPLITS),
    output:
        rejected="results/{run}/shards/rejected.csv",
    log:
        "logs/{run}/check_rejected.log",
    benchmark:
        "benchmarks/{run}/check_rejected.tsv"
    localrule: True
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(1000),
        runtime=10,
    params:
        code=fingerprint("check_rejected", "shards"),
        max_rejected=config["shards"]["max_rejected"],
    script:
        "../workflow/scripts/check_rejected.py"


rule shards:
    "the images at the size of the training, packed with their votes"
    input:
        FILES.shards(FILES.shard_suffix, *SPLITS),
        f"results/{RUN}/shards/rejected.csv",
    localrule: True
