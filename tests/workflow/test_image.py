"""The image for clusters without conda: its two recipes agree, and `--sdm apptainer` runs the jobs in it."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from pipeline import REPO, TEST, called, copy_of_the_repository, snakemake

IMAGE = "galaxies.sif"


def steps(commands):
    """Single commands, from lines with continuations and &&."""
    lines = commands.replace("\\\n", " ").replace("&&", "\n").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]


@pytest.fixture(scope="module")
def docker():
    """The instructions of the Dockerfile, [(word, the rest)]."""
    text = re.sub(r"^#.*\n", "", (REPO / "envs/Dockerfile").read_text(), flags=re.MULTILINE)
    return re.findall(r"^([A-Z]+) ((?:.*\\\n)*.*)$", text, re.MULTILINE)


@pytest.fixture(scope="module")
def apptainer():
    """The header and the sections of the Apptainer recipe, {name: text}."""
    text = re.sub(r"^#.*\n", "", (REPO / "envs/apptainer.def").read_text(), flags=re.MULTILINE)
    header, *parts = re.split(r"^%(\w+)\n", text, flags=re.MULTILINE)
    return {"header": header, **dict(zip(parts[::2], parts[1::2], strict=True))}


def test_both_recipes_have_the_same_base_steps_files_and_variables(docker, apptainer):
    found = {word: [rest for other, rest in docker if other == word] for word, _ in docker}
    assert set(found) == {"FROM", "ARG", "RUN", "COPY", "ENV"}
    assert steps(apptainer["header"]) == ["Bootstrap: docker", f"From: {found['FROM'][0]}"]
    assert steps(apptainer["arguments"]) == found["ARG"] == ["lock=cpu"]
    assert steps(apptainer["post"]) == steps("\n".join(found["RUN"]))
    # The context of docker build is the folder envs.
    (copied,) = found["COPY"]
    assert steps(apptainer["files"]) == ["envs/" + copied.replace("${lock}", "{{ lock }}")]
    # Apptainer has the home folder of its user.
    assert steps(apptainer["environment"]) == [
        f"export {pair}" for pair in found["ENV"] if pair != "HOME=/tmp"
    ]


@pytest.mark.parametrize("lock", ["cpu", "gpu"])
def test_the_image_installs_a_lock_of_the_repository_with_its_hashes(docker, lock):
    (copied,) = (rest for word, rest in docker if word == "COPY")
    source, target = copied.replace("${lock}", lock).split()
    assert (REPO / "envs" / source).is_file()
    (install,) = (step for word, rest in docker if word == "RUN" for step in steps(rest) if "pip" in step)
    assert install.endswith(f"--require-hashes --requirement {target}")


@pytest.mark.parametrize("made_in_the_image", [True, False])
def test_make_builds_no_environment_in_the_image(tmp_path, made_in_the_image):
    (tmp_path / "envs").mkdir()
    for file in ("Makefile", "envs/cpu.lock.txt"):
        shutil.copy(REPO / file, tmp_path / file)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "ZOO_"))}
    environment |= {"ZOO_IMAGE": "1"} if made_in_the_image else {}
    command = ["make", "--dry-run", "finetune", "LABELS=mine.csv"]
    shown = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "python -m zoolib.quick.finetune" in shown.stdout
    assert ("pip install" in shown.stdout) is not made_in_the_image


@pytest.fixture
def repo_with_stub(tmp_path):
    """A copy of the repository, and a PATH with an apptainer that notes its calls and runs the commands."""
    (tmp_path / "apptainer").write_text(
        "#!/bin/sh\n"
        '[ "$1" = --version ] && echo "apptainer version 1.4.5" && exit\n'
        f'echo "$@" >>{tmp_path}/calls\n'
        'while [ "$1" != -c ]; do shift; done\n'
        'exec bash "$@"\n'
    )
    # The Python of the image.
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for command in ("apptainer", "python"):
        (tmp_path / command).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return copy_of_the_repository(tmp_path / "repo"), {"PATH": path}


def test_jobs_run_in_the_image_if_apptainer_is_asked_for(repo_with_stub, tmp_path):
    repo, stub = repo_with_stub
    target = ("results/test/paper/tree_gz_decals_5.svg", *TEST)
    status, shown = called(repo, "--dry-run", *target, "--sdm", "apptainer", **stub)
    assert status == 1
    assert shown.rstrip().endswith("envs/apptainer.def`, see docs/cluster.md.")
    (repo / IMAGE).touch()
    _, shown = snakemake(repo, *target, "--sdm", "apptainer", "--apptainer-args=--nv", **stub)
    (call,) = (tmp_path / "calls").read_text().splitlines()[:1]
    assert call.startswith(f"exec --home {repo} --nv ") and f" {repo / IMAGE} " in call
    assert (repo / target[0]).read_text().startswith("<?xml")
    # Another call, without it, neither runs the job again nor mentions images.
    _, shown = snakemake(repo, *target, **stub)
    assert "Nothing to be done" in shown and "ontainer" not in shown
