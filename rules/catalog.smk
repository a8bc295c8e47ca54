# Stage catalog: a table of votes and the images become one catalogue, cut into splits.


if THIS.exports:

    rule count_votes:
        "count the votes in an export of a Zooniverse project"
        input:
            export=by("catalog", FILES.export),
        output:
            votes="results/{run}/catalog/{catalog}/votes.csv",
            rejected="results/{run}/catalog/{catalog}/rejected.csv",
            summary="results/{run}/catalog/{catalog}/summary.csv",
        log:
            "logs/{run}/count_votes/{catalog}.log",
        benchmark:
            "benchmarks/{run}/count_votes/{catalog}.tsv"
        conda:
            "../envs/cpu.yaml"
        threads: 1
        resources:
            mem_mb=doubled(2000),
            runtime=120,
        params:
            code=fingerprint("count_votes", "zooniverse.votes"),
            counting=by("catalog", THIS.counting),
            tree=by("catalog", THIS.counted_tree),
        script:
            "../workflow/scripts/count_votes.py"


rule build_catalog:
    "make the catalogue of each split from the tables of votes"
    input:
        tables=FILES.catalog_tables(),
        archives=FILES.catalog_archives(),
    output:
        train="results/{run}/catalog/train.parquet",
        val="results/{run}/catalog/val.parquet",
        test="results/{run}/catalog/test.parquet",
        rejected="results/{run}/catalog/rejected.csv",
        summary="results/{run}/catalog/summary.csv",
    log:
        "logs/{run}/build_catalog.log",
    benchmark:
        "benchmarks/{run}/build_catalog.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(4000),
        runtime=30,
    params:
        code=fingerprint("build_catalog", "catalog"),
        catalogs=[
            {
                **FILES.resolved(entry),
                "min_votes": entry["min_votes"],
                "tree": THIS.table_tree(entry["name"]),
            }
            for entry in config["catalogs"]
        ],
        split=config["split"],
        seed=config["seed"],
    script:
        "../workflow/scripts/build_catalog.py"


rule catalog:
    "one table of galaxies with votes and the place of their image, divided into train, val and test"
    input:
        expand("results/{run}/catalog/{split}.parquet", run=RUN, split=SPLITS),
    localrule: True
