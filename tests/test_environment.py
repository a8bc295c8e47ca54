"""The environments: conda's versions are the lock's, and no file names a package index."""

import re

import yaml


def pins(lock):
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE))


def test_conda_names_the_versions_of_the_lock(repo):
    locked = pins(repo / "envs" / "cpu.lock.txt")
    content = yaml.safe_load((repo / "envs" / "cpu.yaml").read_text())
    packages = next(entry for entry in content["dependencies"] if isinstance(entry, dict))["pip"]
    named = dict(package.split("==") for package in packages)
    assert named == {name: locked[name] for name in named}
    assert {"snakemake", "tensorflow-cpu", "keras", "pandas", "pillow", "h5py", "pyyaml"} <= set(named)


def test_the_lock_has_a_hash_for_every_package_and_no_address(repo):
    text = (repo / "envs" / "cpu.lock.txt").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) == len(pins(repo / "envs" / "cpu.lock.txt")) > 50
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "--index" not in text


def test_everything_that_is_asked_for_is_locked(repo):
    wanted = {
        re.split(r"[<>=]", line)[0]
        for line in (repo / "envs" / "cpu.in").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert wanted <= set(pins(repo / "envs" / "cpu.lock.txt"))
