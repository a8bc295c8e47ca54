"""The environments: the locks of users and developers, the conda files, and what pyproject.toml declares."""

import ast
import importlib.metadata
import re
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from setuptools import find_packages

DEVELOPERS = {"pytest", "pytest-xdist", "ruff", "snakefmt", "jax"}


def pins(lock):
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE))


def wanted(file):
    """The names of the packages that an .in file asks for."""
    lines = file.read_text().splitlines()
    return {re.split(r"[\[<>= ]", line)[0] for line in lines if line and not line.startswith("#")}


def locked_for(lock, **machine):
    """The packages that pip installs from a lock on a machine, {name: Requirement}."""
    lines = re.findall(r"^([A-Za-z0-9_.-]+==[^\\\n]+)", lock.read_text(), re.MULTILINE)
    entries = [
        entry for entry in map(Requirement, lines) if not entry.marker or entry.marker.evaluate(machine)
    ]
    return {entry.name: entry for entry in entries}


@pytest.fixture(scope="module")
def project(repo):
    return tomllib.loads((repo / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def citation(repo):
    return yaml.safe_load((repo / "CITATION.cff").read_text())


@pytest.mark.parametrize(("name", "tensorflow"), [("cpu", "tensorflow-cpu"), ("gpu", "tensorflow")])
def test_conda_names_the_versions_of_the_lock(repo, name, tensorflow):
    locked = pins(repo / "envs" / f"{name}.lock.txt")
    content = yaml.safe_load((repo / "envs" / f"{name}.yaml").read_text())
    packages = next(entry for entry in content["dependencies"] if isinstance(entry, dict))["pip"]
    named = dict(package.split("==") for package in packages)
    assert named == {name: locked[name] for name in named}
    assert {"snakemake", tensorflow, "keras", "pandas", "pillow", "h5py", "pyyaml"} <= set(named)


@pytest.mark.parametrize(("name", "more_than"), [("cpu", 50), ("gpu", 50), ("dev", 10), ("docs", 25)])
def test_the_lock_has_a_hash_for_every_package_and_no_address(repo, name, more_than):
    text = (repo / "envs" / f"{name}.lock.txt").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) == len(pins(repo / "envs" / f"{name}.lock.txt")) > more_than
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "--index" not in text


def test_the_two_environments_differ_in_tensorflow_and_nvidias_libraries_alone(repo):
    cpu, gpu = (pins(repo / "envs" / f"{name}.lock.txt") for name in ("cpu", "gpu"))
    assert gpu.pop("tensorflow") == cpu.pop("tensorflow") == cpu.pop("tensorflow-cpu")
    libraries = {name: gpu.pop(name) for name in list(gpu) if name.startswith("nvidia-")}
    assert gpu == cpu
    # From 9.11 on cuDNN no longer runs on a V100, and from CUDA 13 on neither does anything else.
    assert tuple(map(int, libraries["nvidia-cudnn-cu12"].split(".")[:2])) < (9, 11)
    assert all(name.endswith("-cu12") for name in libraries)
    conda = yaml.safe_load((repo / "envs" / "gpu.yaml").read_text())["dependencies"][-1]["pip"]
    assert set(libraries.items()) <= {tuple(package.split("==")) for package in conda}
    assert "snakemake-executor-plugin-slurm==" + cpu["snakemake-executor-plugin-slurm"] in conda


@pytest.mark.parametrize("python", ["3.11", "3.12"])
@pytest.mark.parametrize(
    ("system", "machine", "tensorflow"),
    [
        ("linux", "x86_64", "tensorflow-cpu"),
        ("linux", "aarch64", "tensorflow"),
        ("darwin", "arm64", "tensorflow"),
    ],
)
def test_every_supported_machine_has_one_tensorflow_and_everything_else(
    repo, project, system, machine, tensorflow, python
):
    here = {"sys_platform": system, "platform_machine": machine, "python_version": python}
    here |= {"python_full_version": f"{python}.9", "platform_system": system.title(), "os_name": "posix"}
    found = locked_for(repo / "envs/cpu.lock.txt", **here)
    assert {name for name in found if name.startswith("tensorflow")} == {tensorflow}
    extra = [Requirement(text) for text in project["optional-dependencies"]["cpu"]]
    assert {entry.name for entry in extra if entry.marker.evaluate(here)} == {tensorflow}
    assert wanted(repo / "envs/cpu.in") - set(found) <= {"tensorflow", "tensorflow-cpu"}


def test_a_developer_has_the_versions_of_a_user_and_more(repo):
    user, developer = (pins(repo / "envs" / f"{name}.lock.txt") for name in ("cpu", "dev"))
    both = set(user) & set(developer)
    assert {name: user[name] for name in both} == {name: developer[name] for name in both}
    assert not DEVELOPERS & set(user)
    assert wanted(repo / "envs/dev.in") == DEVELOPERS
    assert not set(developer) & {"tensorflow", "tensorflow-cpu", "tensorflow-probability", "tf-keras"}


def test_the_site_is_made_with_the_versions_of_a_user(repo):
    user, site = (pins(repo / "envs" / f"{name}.lock.txt") for name in ("cpu", "docs"))
    both = set(user) & set(site)
    assert {"docutils", "jinja2", "pygments"} <= both
    assert {name: user[name] for name in both} == {name: site[name] for name in both}


@pytest.mark.parametrize("name", ["cpu", "dev", "docs"])
def test_everything_that_is_asked_for_is_locked(repo, name):
    assert wanted(repo / "envs" / f"{name}.in") <= set(pins(repo / "envs" / f"{name}.lock.txt"))


def test_a_user_is_given_everything_that_the_pipeline_imports(repo):
    modules = set()
    for path in (repo / "workflow").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(node.module.partition(".")[0])
    modules -= {*sys.stdlib_module_names, "zoolib"}
    packages = importlib.metadata.packages_distributions()
    imported = {name.lower().replace("_", "-") for module in modules for name in packages[module]}
    assert {"keras", "pandas", "jsonschema"} <= imported
    # One of the two, by the machine.
    imported -= {"tensorflow", "tensorflow-cpu"}
    assert imported <= wanted(repo / "envs/cpu.in")


def test_pip_asks_for_what_the_lock_has(repo, project):
    locked = pins(repo / "envs/cpu.lock.txt")
    asked = {entry.name: entry for entry in map(Requirement, project["dependencies"])}
    # Which TensorFlow, an extra says. contourpy is there for its version alone.
    assert set(asked) == wanted(repo / "envs/cpu.in") - {"tensorflow", "tensorflow-cpu", "contourpy"}
    for name, entry in asked.items():
        assert [limit.operator for limit in entry.specifier] == [">="], name
        assert Version(locked[name]) in entry.specifier, name
    extras = {
        name: {Requirement(entry).name for entry in entries}
        for name, entries in project["optional-dependencies"].items()
    }
    assert extras == {"cpu": {"tensorflow-cpu", "tensorflow"}, "gpu": wanted(repo / "envs/gpu.in")}


def test_the_package_is_zoolib_with_all_that_it_holds(repo):
    settings = tomllib.loads((repo / "pyproject.toml").read_text())["tool"]["setuptools"]
    (folder,) = settings["packages"]["find"]["where"]
    assert settings["package-dir"] == {"": folder}
    found = find_packages(repo / folder, include=settings["packages"]["find"]["include"])
    files = (repo / folder / "zoolib").rglob("*.py")
    assert set(found) == {".".join(path.parent.relative_to(repo / folder).parts) for path in files}


def test_the_licence_and_the_version_are_the_same_everywhere(repo, project, citation):
    text = (repo / "LICENSE").read_text()
    assert text.startswith("BSD 3-Clause License\n\nCopyright (c) 2026, the zoo-pipeline authors\n")
    assert project["license"] == citation["license"] == "BSD-3-Clause"
    assert project["version"] == citation["version"]
    assert [author["name"] for author in project["authors"]] == ["the zoo-pipeline authors"]
    assert citation["authors"] == project["authors"]


def test_the_citation_names_the_papers_and_the_record(citation):
    """The keys that the schema of the Citation File Format 1.2.0 requires, and the sources."""
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type"} <= set(citation)
    cited = {entry["doi"]: entry for entry in citation["references"]}
    assert set(cited) == {"10.1093/mnras/stab2093", "10.1093/mnras/stz2816", "10.5281/zenodo.4573248"}
    for entry in cited.values():
        assert {"type", "title", "authors"} <= set(entry)
        assert entry["authors"][0] == {"given-names": "Mike", "family-names": "Walmsley"}
    paper = cited["10.1093/mnras/stab2093"]
    assert (paper["volume"], paper["start"], paper["year"]) == (509, 3966, 2022)
    papers = [entry["identifiers"][0]["value"] for entry in cited.values() if "identifiers" in entry]
    assert papers == ["arXiv:2102.08414", "arXiv:1905.07424"]
