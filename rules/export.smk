# Stage export: a trained model as others can use it, in other formats and with a card.

EXPORTS = Exports(FILES)


rule export_model:
    "write a model as Keras, ONNX and SavedModel files that give the same numbers"

    # Each format is loaded again and compared with the model before any of these files is written.
    input:
        model="results/{run}/{model}/model.keras",
        about="results/{run}/{model}/model.json",
    output:
        model="results/{run}/export/{model}/model.keras",
        about="results/{run}/export/{model}/model.json",
        onnx="results/{run}/export/{model}/model.onnx",
        saved_model=[
            "results/{run}/export/{model}/saved_model/saved_model.pb",
            "results/{run}/export/{model}/saved_model/fingerprint.pb",
            "results/{run}/export/{model}/saved_model/variables/variables.index",
            "results/{run}/export/{model}/saved_model/variables/variables.data-00000-of-00001",
        ],
        checks="results/{run}/export/{model}/checks.json",
    log:
        "logs/{run}/export_model/{model}.log",
    benchmark:
        "benchmarks/{run}/export_model/{model}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 2
    resources:
        mem_mb=doubled(8000),
        runtime=120,
    params:
        code=fingerprint("export_model", "learning.exchange"),
    script:
        "../workflow/scripts/export_model.py"


rule export_recalibration:
    "copy the recalibration of an exported model"

    # Of a model, and of an ensemble of several: zoolib finds it where it lies beside them.
    input:
        recalibration="results/{run}/{model}/recalibration.json",
    output:
        recalibration="results/{run}/export/{model}/recalibration.json",
    log:
        "logs/{run}/export_recalibration/{model}.log",
    benchmark:
        "benchmarks/{run}/export_recalibration/{model}.tsv"
    localrule: True
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(1000),
        runtime=10,
    params:
        code=fingerprint("export_recalibration"),
    script:
        "../workflow/scripts/export_recalibration.py"


rule write_card:
    "write the card of an exported model"

    # Apart from the formats, so that another licence or another score writes nothing but the card again.
    input:
        about="results/{run}/export/{model}/model.json",
        checks="results/{run}/export/{model}/checks.json",
        summary=by("model", EXPORTS.summary),
        scores=by("model", EXPORTS.scores),
    output:
        card="results/{run}/export/{model}/README.md",
    log:
        "logs/{run}/write_card/{model}.log",
    benchmark:
        "benchmarks/{run}/write_card/{model}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(1000),
        runtime=10,
    params:
        code=fingerprint("write_card", "export"),
        facts=by("model", EXPORTS.facts),
        licence=config["export"]["licence"],
    script:
        "../workflow/scripts/write_card.py"


rule export:
    "each trained model as Keras, ONNX and SavedModel files, with a card for those who use it"
    input:
        EXPORTS.cards(),
    localrule: True
