# Stage catalog: a table of votes and the images become one catalogue, cut into splits.


rule build_catalog:
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
