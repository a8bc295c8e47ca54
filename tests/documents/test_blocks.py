"""Every block of every page is run by a test, or the page says why not."""

import copy
import re
import shutil

import pytest
import yaml
from blocks import blocks
from pipeline import REPO, copy_of_the_repository
from snakemake.utils import update_config
from zoolib.config.run import read_run
from zoolib.config.trees import DecisionTree

PAGES = [
    str(path.relative_to(REPO))
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/*.md", "docs/tutorials/*.md", "*/README.md")
    for path in sorted(REPO.glob(pattern))
]
BLOCKS = [block for page in PAGES for block in blocks(page)]
TUTORIALS = "tests/documents/test_tutorials.py"
# What runs the commands of pages, beside the Snakemake commands, of which this file makes dry runs.
RUN_BY = {
    "make demo": ".ci/run",
    "make env-dev": ".ci/run",
    "make test": ".ci/run",
    "make test-docs": ".ci/run",
    "make test-faults": ".ci/run",
    "make finetune": TUTORIALS,
    "make predict": TUTORIALS,
    "make env": ".ci/run",
    "make estimate": TUTORIALS,
    "python -m zoolib.config.trees": TUTORIALS,
}
# What runs the Snakemake commands of a page, or makes dry runs of those that take hours.
SNAKEMAKE_RUN_BY = {
    **dict.fromkeys(("README.md", "config/README.md"), "tests/documents/test_documents.py"),
    **{
        f"docs/{name}.md": "tests/documents/test_documents.py"
        for name in ("cluster", "explore", "export", "reproducing", "survey")
    },
    "docs/finetuning.md": "tests/documents/test_guide.py",
    **dict.fromkeys(("docs/campaigns.md", "docs/zooniverse.md"), "tests/test_campaigns.py"),
    "examples/README.md": "tests/documents/test_examples.py",
}
# What runs the Python of a page.
PYTHON_RUN_BY = {
    "docs/finetuning.md": "tests/documents/test_guide.py",
    "docs/outputs.md": "tests/documents/test_documents.py",
    "docs/survey.md": "tests/documents/test_documents.py",
    "docs/search.md": TUTORIALS,
    "docs/export.md": "tests/workflow/test_module.py",
}
# What the paths of the pages' YAML lead to.
FOLDERS = [f"mine/{name}" for name in ("cutouts", "images", "gz2_images", "fits", "record")]
FOLDERS += ["mine/by_class/ring", "mine/by_class/none", "my_survey/images"]
FILES = [f"mine/{name}.csv" for name in ("rings", "labels", "votes", "gz2", "lenses")]
EXPORTS = ("classifications", "question_reducer_tides", "subjects")
FILES += [f"my_survey/{name}.csv" for name in ("votes", *EXPORTS)]
FILES += ["my_survey/decals.parquet"]
FILES += [f"mine/record/gz_decals_dr5_png_part{number}.zip" for number in range(1, 5)]
FILES += [f"mine/record/gz_decals_volunteers_5.{ending}" for ending in ("csv", "parquet")]
TREES = ["mine/tree.yaml", "my_survey/tree.yaml", "my_survey/tides.yaml"]
MODELS = [f"results/{name}" for name in ("demo/train/metrics/0", "gz_decals/train/catalog/0")]
MODELS += ["results/rings/finetune/ring", "mine/model"]
# First words of blocks that show what a file has, or what a command prints.
SHOWN = ("+---", "Tidal features in my survey:", "id_str,", "gz_decals: 253,286")


def test_every_block_is_run_or_the_page_says_why_not():
    assert len(BLOCKS) > 110
    for block in BLOCKS:
        if block.why_not:
            assert len(block.why_not) > 15, block
        elif block.language == "python":
            place = "docs/tutorials/" in block.page
            where = TUTORIALS if place else PYTHON_RUN_BY.get(block.page)
            assert where, f"{block}: no test runs this Python"
            assert place or block.page in (REPO / where).read_text(), block
        elif block.language == "":
            assert block.is_typed or block.text.startswith(SHOWN), f"{block}: neither typed nor shown"
        else:
            assert block.language in ("yaml", "csv"), block


def typed():
    """(block, line) of each command that is to be run; the tutorials are run by their own test."""
    for block in BLOCKS:
        if block.is_typed and not block.why_not and "tutorials/" not in block.page:
            for line in block.lines:
                yield block, line


def test_every_command_is_run_somewhere():
    for block, line in typed():
        command = re.sub(r"^(\w+=\S+ )+", "", line)
        if command.startswith("snakemake"):
            where = SNAKEMAKE_RUN_BY.get(block.page)
            name = block.page.removeprefix("docs/").removesuffix(".md")
            assert where and name in (REPO / where).read_text(), block
        else:
            found = [begin for begin in RUN_BY if f"{command} ".startswith(f"{begin} ")]
            assert found, f"{block}: nothing runs {line}"
    typed_in_tutorials = "".join(
        block.text for block in BLOCKS if "tutorials/" in block.page and not block.why_not
    )
    for begin, where in RUN_BY.items():
        assert begin in (typed_in_tutorials if where == TUTORIALS else (REPO / where).read_text()), begin


@pytest.fixture(scope="module")
def workplace(model_folder, tmp_path_factory):
    """A clone in which the files are that pages name, so that their commands can be planned."""
    clone = copy_of_the_repository(tmp_path_factory.mktemp("pages") / "clone")
    shutil.copytree(REPO / "examples", clone / "examples")
    for folder in FOLDERS:
        (clone / folder).mkdir(parents=True)
    for file in FILES:
        (clone / file).touch()
    for tree in TREES:
        shutil.copy(REPO / "examples/bar_tree.yaml", clone / tree)
    for folder in MODELS:
        shutil.copytree(model_folder, clone / folder)
    return clone


def configuration(name, *parts):
    """The paper's run with an overlay of config/, and with blocks of a page over both."""
    config = yaml.safe_load((REPO / "config/config.yaml").read_text())
    for part in (yaml.safe_load((REPO / "config" / name).read_text()), *parts):
        update_config(config, copy.deepcopy(part))
    return read_run(config, REPO)


def under(block):
    """The complete configurations that a page shows before a block."""
    before = [other for other in blocks(block.page) if other.language == "yaml" and other.line < block.line]
    return [content for other in before if "run" in (content := yaml.safe_load(other.text))]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_yaml_is_a_configuration_a_part_of_one_or_a_tree(block, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.syspath_prepend(str(REPO / "examples"))
    content = yaml.safe_load(block.text)
    base = re.search(r"--configfile config/(\w+\.yaml) my\.yaml", block.text)
    base = base[1] if base else "config.yaml" if {"run", "zenodo"} & set(content) else "demo.yaml"
    schema = yaml.safe_load((REPO / "workflow/schemas/config.schema.yaml").read_text())
    if "questions" in content:
        assert DecisionTree.from_dict({"name": "mine", **content}).questions
    elif set(content) <= {"published", "cuts", "zooniverse"}:
        pages = (block.page, "docs/campaigns.md")
        first = next(other for page in pages for other in blocks(page) if "questions:" in other.text)
        assert DecisionTree.from_dict({"name": "mine", **yaml.safe_load(first.text), **content})
    elif set(content) <= set(schema["properties"]) and content != {"split": "my_split"}:
        # my_survey/both.yaml is laid over the first file of its page; parts of survey.yaml belong to it.
        below = under(block) if block.page in ("docs/campaigns.md", "docs/survey.md") else []
        run = configuration(base, *below, content)
        assert set(content) <= set(run.config)
    else:
        task = {"name": "mine", "table": "rings.csv", "label": "ring", **content}
        run = configuration(base, {"finetune": {"tasks": [task]}})
        assert set(content) <= set(run.tasks["mine"])
