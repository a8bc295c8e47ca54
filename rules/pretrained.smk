# Stage pretrained: published encoders become model folders, to train and to finetune from.


rule import_backbone:
    "make a model folder of one pretrained backbone"

    # This runs where Snakemake runs, because compute nodes have no internet.
    input:
        source=by("encoder", FILES.encoder_source),
    output:
        model="results/{run}/pretrained/{encoder}/model.keras",
        about="results/{run}/pretrained/{encoder}/model.json",
    log:
        "logs/{run}/import_backbone/{encoder}.log",
    benchmark:
        "benchmarks/{run}/import_backbone/{encoder}.tsv"
    wildcard_constraints:
        # Encoders of an earlier configuration are inputs like any other file.
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
        encoder=by("encoder", ENCODERS.get),
    script:
        "../workflow/scripts/import_backbone.py"


rule pretrained:
    "import the pretrained backbones that the configuration names"
    input:
        expand("results/{run}/pretrained/{encoder}/model.keras", run=RUN, encoder=ENCODERS),
    localrule: True
