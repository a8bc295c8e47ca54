# What every stage needs: the checked configuration, what follows from it, and helpers for inputs and resources.

import os
import sys
import uuid
from functools import cache

import yaml
from snakemake.settings.types import DeploymentMethod
from snakemake.utils import update_config

# By the folder of this file, as all paths to files of the repository: another workflow may import this one.
ROOT = Path(workflow.current_basedir).parent
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from zoolib.config.closing import closing_lines
from zoolib.config.exports import Exports
from zoolib.config.files import Files
from zoolib.config.run import read_run
from zoolib.data.image_folder import listed_revisions, revisions
from zoolib.job.attempts import CALL
from zoolib.job.gpus import count_gpus
from zoolib.job.logs import UserError
from zoolib.job.provenance import fingerprint

# Jobs inherit this variable, on SLURM too: it says which attempts belong to the same call of Snakemake.
os.environ.setdefault(CALL, uuid.uuid4().hex)

if Path(workflow.main_snakefile) != ROOT / "Snakefile":
    # It gives the keys that differ from config/config.yaml, and its own configuration stays as it is.
    given, config = config, yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    update_config(config, given)

try:
    # This fills the defaults into `config` and adds nothing else.
    THIS = read_run(config, ROOT)
    TASKS, TARGETS, ENCODERS, ENSEMBLES = THIS.tasks, THIS.targets, THIS.encoders, THIS.used_ensembles
except UserError as error:
    # Snakemake would put the name of its own exception and a line number around the message.
    sys.exit(str(error))

# `--sdm apptainer` runs every job in the image of envs/apptainer.def.
IMAGE = None
if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
    IMAGE = str(ROOT / "galaxies.sif")
    if not Path(IMAGE).is_file():
        sys.exit(
            f"{IMAGE}: there is no such file, but --sdm apptainer runs all jobs in this image; build it with"
            " `apptainer build galaxies.sif envs/apptainer.def`, see docs/cluster.md."
        )

RUN = THIS.name
# A folder is compared with its list once for each call of Snakemake; the jobs of the call take the list as it is.
FILES = Files(THIS, cache(revisions if workflow.is_main_process else listed_revisions))
SPLITS = ["train", "val", "test"]
SIMULATED, SAMPLED = config["zenodo"]["simulate"], config["zenodo"]["sample"]


wildcard_constraints:
    # Results of other runs are inputs like any other file: no rule here makes them again.
    run=RUN,
    split="train|val|test",
    shard=r"\d+",
    ensemble="[A-Za-z0-9_-]+",
    member=r"\d+",
    # A task's name; if the task has several finetunings, it is followed by the name of one of them.
    target=r"[A-Za-z0-9_-]+(/(fold|labels|all-)[a-z0-9-]+)?",
    fit=r"[A-Za-z0-9_-]+(/(fold|labels|all-)[a-z0-9-]+)?",
    task="[A-Za-z0-9_-]+",
    chunk=r"\d+",
    catalog="[A-Za-z0-9_-]+",
    form="fits|vot|csv|parquet",
    search="[A-Za-z0-9_-]+",
    # A model's folder in the results of the run.
    model="(train|finetune)/[A-Za-z0-9_/-]+",


def by(wildcard, function):
    """An input function, or a param: it calls another function with the value of one wildcard."""

    def value(wildcards):
        return function(wildcards[wildcard])

    return value


def of_fits(form, names=THIS.scored_fits):
    """An input function: the same file of each finetuning of a task, such as "finetune/{fit}/history.csv"."""

    def files(wildcards):
        return FILES.of_fits(form, wildcards.task, names(wildcards.task))

    return files


def each(folders, name):
    """The file with this name in each of the folders."""
    return [f"{folder}/{name}" for folder in folders]


def of_members(name):
    """An input function: the same file of each member of an ensemble."""
    return by("ensemble", lambda ensemble: each(FILES.members(ensemble), name))


def of_chunks(form):
    """An input function: one file of each chunk of a target. A folder has more chunks when images come."""
    return by("target", lambda target: FILES.chunks(target, form))


def listed_galaxies(wildcards):
    """What a target's galaxies are read from. The list of a folder may be younger: its revisions decide."""
    found = FILES.galaxies(wildcards.target)
    return [ancient(path) for path in found] if FILES.revisions(wildcards.target) else found


def revision_of_chunk(wildcards):
    """How often images of a chunk have changed or gone; None for a target that is not a folder."""
    found = FILES.revisions(wildcards.target)
    return f"revision {found[int(wildcards.chunk)]}" if found else None


# Memory: measured with the demo's 8,000 galaxies (`make -C benchmarks resources`) and scaled up. Jobs that read
# complete tables grow with the number of galaxies (measured from 400 galaxies to the paper's 314,000: build_catalog
# takes 3.4 GB), the others with the size of a shard or a chunk. The result is rounded up to 1, 2, 4, 8 or 16 GB.
# SLURM counts 0.35 GB for Snakemake itself, too.
def doubled(megabytes):
    """Memory of a rule: doubled from the second attempt on, and not increased after that."""

    def memory(wildcards, attempt):
        return megabytes * min(attempt, 2)

    return memory


def training_memory(training_of, other=0, most=1):
    """Memory of a job that trains. It grows with its batch (docs/scale.md), and with attempts up to `most` times."""

    def memory(wildcards, attempt):
        training = training_of(wildcards)
        images = (training["batch_size"] or 32) * (2 if training.get("pretext") else 1)
        needed = 3000 + 90 * images * (config["image"]["final_size"] / 224) ** 2 + other
        size = next(size for size in (4000, 8000, 16000, 32000, int(needed)) if size >= int(needed))
        return size * min(attempt, most)

    return memory


machine_gpus = cache(count_gpus)


def accelerator(wildcards):
    """1 on a machine with GPUs: a job uses all of them, so profiles/default starts one job at a time."""
    return min(machine_gpus(), 1)


def environment_of(name):
    """The conda environment of a rule: the one for GPUs if the profile asks for a GPU."""

    def environment(wildcards):
        # In a workflow that imports this one, the rule may have another name.
        asked = getattr(rules, name).rule.resources
        return "../envs/gpu.yaml" if "gpu" in asked or "gres" in asked else "../envs/cpu.yaml"

    return environment
