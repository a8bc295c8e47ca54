# Stage pretrained: published encoders become model folders, to train and to finetune from.


rule import_backbone:
    # Where Snakemake runs, as compute nodes have no internet.
    input:
        source=lambda wildcards: files_of_source(ENCODERS[wildcards.encoder]["source"]),
    output:
        model="results/{run}/pretrained/{encoder}/model.keras",
        about="results/{run}/pretrained/{encoder}/model.json",
    log:
        "logs/{run}/import_backbone/{encoder}.log",
    benchmark:
        "benchmarks/{run}/import_backbone/{encoder}.tsv"
    wildcard_constraints:
        # Others, left there by another configuration, are inputs like any file.
        encoder="|".join(ENCODERS) or "none",
    localrule: True
    conda:
        "../envs/cpu.yaml"
    threads: 2
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=fingerprint("import_backbone", "pretrained"),
        encoder=lambda wildcards: ENCODERS[wildcards.encoder],
    script:
        "../workflow/scripts/import_backbone.py"


rule pretrained:
    input:
        expand("results/{run}/pretrained/{encoder}/model.keras", run=RUN, encoder=ENCODERS),
    localrule: True
