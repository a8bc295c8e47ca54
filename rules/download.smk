# Stage download: the files of a Zenodo record, a sample of it, or a simulated survey in its layout.

from zoolib.zenodo.checked import no_plain_file


# The file itself is in `.checked`, and the output is a link to it: Snakemake deletes outputs before and after jobs.
# The partial file is beside the output, so an interrupted download continues.
rule download_file:
    "download one file of the record, or continue a broken download"
    output:
        file="data/zenodo/{record}/{file}",
    log:
        "logs/download/{record}/{file}.log",
    benchmark:
        "benchmarks/download/{record}/{file}.tsv"
    wildcard_constraints:
        # Plain files are not this rule's: they were put there by hand, or by an earlier version.
        record=no_plain_file("data/zenodo") + r"\d+",
        file="[^/]+",
    localrule: True
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=1440,
        # Zenodo blocks clients that open more than two connections; the profiles allow two.
        download=1,
    script:
        "../workflow/scripts/download_file.py"


if SAMPLED:

    rule sample_record:
        "read a sample of galaxies out of the record's remote zips"

        # This reads single images from the remote zips, so it runs where Snakemake runs, with internet access.
        # As above, the outputs are links.
        input:
            table=FILES.downloaded(config["catalogs"][0]["table"]),
        output:
            table=f"results/{{run}}/download/{config['catalogs'][0]['table']}",
            archive="results/{run}/download/sample.zip",
        log:
            "logs/{run}/sample_record.log",
        benchmark:
            "benchmarks/{run}/sample_record.tsv"
        localrule: True
        conda:
            "../envs/cpu.yaml"
        threads: 1
        resources:
            mem_mb=4000,
            runtime=1440,
            download=1,
        params:
            sample={
                "record": config["zenodo"]["record"],
                "galaxies": SAMPLED,
                "archives": config["catalogs"][0]["archives"],
            },
            seed=config["seed"],
        script:
            "../workflow/scripts/sample_record.py"


if SIMULATED:

    rule simulate_record:
        "simulate galaxies and votes, as a record"
        output:
            table="results/{run}/download/gz_decals_volunteers_5.parquet",
            table_csv="results/{run}/download/gz_decals_volunteers_5.csv",
            archive_1="results/{run}/download/gz_decals_dr5_png_part1.zip",
            archive_2="results/{run}/download/gz_decals_dr5_png_part2.zip",
            rings="results/{run}/download/rings.csv",
            truth="results/{run}/download/truth.parquet",
            record="results/{run}/download/record.json",
        log:
            "logs/{run}/simulate_record.log",
        benchmark:
            "benchmarks/{run}/simulate_record.tsv"
        conda:
            "../envs/cpu.yaml"
        threads: 4
        resources:
            mem_mb=doubled(4000),
            runtime=60,
        params:
            code=fingerprint("simulate_record", "simulation.survey"),
            survey=SIMULATED,
            seed=config["seed"],
        script:
            "../workflow/scripts/simulate_record.py"


if any(task["url"] for task in TASKS.values()):

    rule download_labels:
        "download the labels of a task"

        # As above, the output is a link, and the partial file is beside it.
        output:
            file="data/labels/{checksum}/{file}",
        log:
            "logs/download/{checksum}/{file}.log",
        benchmark:
            "benchmarks/download/{checksum}/{file}.tsv"
        wildcard_constraints:
            checksum=no_plain_file("data/labels") + "[0-9a-f]{12}",
            file="[^/]+",
        localrule: True
        conda:
            "../envs/cpu.yaml"
        threads: 1
        resources:
            mem_mb=1000,
            runtime=1440,
            download=1,
        script:
            "../workflow/scripts/download_labels.py"


rule download:
    "the record: its table of votes and its zips of images, with checked sizes and md5 sums"
    input:
        FILES.published_table("volunteers_1_and_2"),
        FILES.published_table("auto_posteriors"),
        FILES.catalog_tables(),
        # A function: other jobs need not list the folders of labels to start.
        lambda wildcards: [path for task in TASKS for path in FILES.task_labels(task)],
        [FILES.archives(entry) for entry in [*config["catalogs"], *TASKS.values()]],
    localrule: True
