"""The environments: conda's versions are the lock's, and no file names a package index."""

import re

import pytest
import yaml


def pins(lock):
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize(("name", "tensorflow"), [("cpu", "tensorflow-cpu"), ("gpu", "tensorflow")])
def test_conda_names_the_versions_of_the_lock(repo, name, tensorflow):
    locked = pins(repo / "envs" / f"{name}.lock.txt")
    content = yaml.safe_load((repo / "envs" / f"{name}.yaml").read_text())
    packages = next(entry for entry in content["dependencies"] if isinstance(entry, dict))["pip"]
    named = dict(package.split("==") for package in packages)
    assert named == {name: locked[name] for name in named}
    assert {"snakemake", tensorflow, "keras", "pandas", "pillow", "h5py", "pyyaml"} <= set(named)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_lock_has_a_hash_for_every_package_and_no_address(repo, name):
    text = (repo / "envs" / f"{name}.lock.txt").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) == len(pins(repo / "envs" / f"{name}.lock.txt")) > 50
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "--index" not in text


def test_the_two_environments_differ_in_tensorflow_and_nvidias_libraries_alone(repo):
    cpu, gpu = (pins(repo / "envs" / f"{name}.lock.txt") for name in ("cpu", "gpu"))
    assert gpu.pop("tensorflow") == cpu.pop("tensorflow-cpu")
    libraries = {name: gpu.pop(name) for name in list(gpu) if name.startswith("nvidia-")}
    assert gpu == cpu
    # From 9.11 on cuDNN no longer runs on a V100, and from CUDA 13 on neither does anything else.
    assert tuple(map(int, libraries["nvidia-cudnn-cu12"].split(".")[:2])) < (9, 11)
    assert all(name.endswith("-cu12") for name in libraries)
    conda = yaml.safe_load((repo / "envs" / "gpu.yaml").read_text())["dependencies"][-1]["pip"]
    assert set(libraries.items()) <= {tuple(package.split("==")) for package in conda}
    assert "snakemake-executor-plugin-slurm==" + cpu["snakemake-executor-plugin-slurm"] in conda


def test_everything_that_is_asked_for_is_locked(repo):
    wanted = {
        re.split(r"[<>=]", line)[0]
        for line in (repo / "envs" / "cpu.in").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert wanted <= set(pins(repo / "envs" / "cpu.lock.txt"))
