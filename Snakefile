# Galaxy Zoo, from a Zenodo record to posteriors: one command runs it, `snakemake`.
# The configuration is config/config.yaml, the paper's run; --configfile lays another file over it.

import os
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.20")


# Another workflow may import this one as a module (docs/export.md).
if not isinstance(workflow.current_basedir, os.PathLike):
    sys.exit(
        "This workflow needs its files on disk: clone its repository, and name the path of its Snakefile."
    )
if workflow.modifier.path_modifier.prefix or workflow.modifier.path_modifier.modifies_prefixes:
    sys.exit(
        "prefix and replace_prefix do not work with this workflow, whose configuration has paths too; remove them:"
        " all results are in results/<run>/, and the key run names it."
    )


# By the folder of this file: workflow.basedir is that of the workflow which imports it.
configfile: Path(workflow.current_basedir) / "config" / "config.yaml"


report: "workflow/report/workflow.rst"


include: "rules/common.smk"


if IMAGE:

    container: IMAGE


include: "rules/download.smk"
include: "rules/catalog.smk"
include: "rules/shards.smk"
include: "rules/pretrained.smk"
include: "rules/train.smk"
include: "rules/recalibrate.smk"
include: "rules/predict.smk"
include: "rules/finetune.smk"
include: "rules/search.smk"
include: "rules/explore.smk"
include: "rules/evaluate.smk"
include: "rules/paper.smk"
include: "rules/report.smk"
include: "rules/export.smk"


rule all:
    "everything that the configuration asks for; what a call without a target makes"
    default_target: True
    input:
        rules.predict.input,
        rules.finetune.input,
        rules.search.input,
        rules.evaluate.input,
        rules.report.input,
    localrule: True


onsuccess:
    # Only the call itself says where things are, not its jobs.
    typed = workflow.overwrite_configfiles, workflow.config_settings.config
    print("", *closing_lines(RUN, *typed), sep="\n", flush=True)
