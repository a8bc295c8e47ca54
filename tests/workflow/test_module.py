"""Another workflow imports this one as a module: from another folder, with rules of other names."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from blocks import blocks
from pipeline import PARTS, REPO, TEST, conda_stub, dry_run, jobs_of, planned, snakemake
from pipeline import copy_of_the_repository as copy

SNAKEFILE = """
import copy

configfile: "mine.yaml"

before = copy.deepcopy(config)

{module}

assert config == before

rule mine:
    default_target: True
    input: "results/test/catalog/summary.csv"
    output: "mine.txt"
    shell: "cp {{input}} {{output}}"
"""


@pytest.fixture
def outer(tmp_path):
    """A function that writes a workflow which imports this one, and gives its folder."""

    def write(snakefile=None, more=""):
        (module,) = [block.text for block in blocks("docs/export.md") if block.language == "python"]
        path = snakefile or repr(str(REPO / "Snakefile"))
        module = module.replace('"/path/to/the/repository/Snakefile"', path)
        module = module.replace('config["zoo"]\n', f'config["zoo"]\n{more}\n')
        (tmp_path / "Snakefile").write_text(SNAKEFILE.format(module=module))
        run = yaml.safe_load((REPO / TEST[1]).read_text())
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"zoo": run, "mine": 1}))
        return tmp_path

    return write


def test_an_importing_workflow_plans_all_jobs(outer, tmp_path_factory):
    folder = outer()
    own = planned(copy(tmp_path_factory.mktemp("own") / "repo"), *TEST)
    found = jobs_of(dry_run(folder, "zoo_all")[1])
    assert {rule.removeprefix("zoo_"): count for rule, count in found.items() if rule != "zoo_all"} == own
    # Captions and conda files lie beside the included files, too.
    stub = conda_stub(folder / "conda")
    command = [sys.executable, "-m", "snakemake", "zoo_all", "--sdm", "conda", "--list-conda-envs"]
    environment = {**os.environ, "PATH": f"{stub}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert set(re.findall(r"envs/(\w+)\.yaml", done.stdout)) == {"cpu"}, done.stderr


def test_an_importing_workflow_makes_a_catalogue(outer):
    folder = outer()
    _, shown = snakemake(folder)
    assert "Traceback" not in shown
    assert (folder / "mine.txt").read_text().endswith("split test,84\n")


@pytest.mark.parametrize("more", ['    prefix: "pre"', '    replace_prefix: {"results/": "there/"}'])
def test_a_prefix_is_refused(outer, more):
    status, shown = dry_run(outer(more=more), check=False)
    assert status and "prefix and replace_prefix do not work with this workflow" in shown


def test_an_import_from_git_is_refused(outer, tmp_path_factory):
    repo = copy(tmp_path_factory.mktemp("git") / "repo")
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    for words in (["init", "-q"], ["add", *PARTS], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=repo, check=True)
    status, shown = dry_run(outer(f"gitfile({str(repo)!r}, path='Snakefile', ref='HEAD')"), check=False)
    assert status and "clone its repository, and name the path of its Snakefile" in shown


def test_the_catalogue_of_workflows_knows_what_is_supported():
    content = yaml.safe_load((REPO / ".snakemake-workflow-catalog.yml").read_text())
    assert set(content) == {"usage"}
    assert set(content["usage"]) == {"mandatory-flags", "software-stack-deployment"}
    assert content["usage"]["software-stack-deployment"] == {"conda": True, "report": True}
    # Every rule that runs a script has a conda file.
    for path in (REPO / "rules").glob("*.smk"):
        rules = re.split(r"^ *(?:rule|checkpoint) ", path.read_text(), flags=re.M)[1:]
        assert all("conda:" in rule for rule in rules if "script:" in rule), path
