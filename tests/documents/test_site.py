"""The documentation site: it is built without a warning, its links hold, and a real browser shows it."""

import html
import os
import re
import subprocess
from functools import cache
from urllib.parse import unquote, urlsplit

import build_site
import pytest
import reference_commands
import reference_files
import reference_keys
import reference_rules
import yaml
from browser import chromium
from pipeline import REPO
from zoolib.config.schema import known_keys

# Other sites that the pages name. Tests have no network: a new name is looked at by a person, once.
HOSTS = {
    "aggregation-caesar.zooniverse.org",
    "apptainer.org",
    "arxiv.org",
    "docs.astral.sh",
    "doi.org",
    "github.com",
    "huggingface.co",
    "keepachangelog.com",
}
HOSTS |= {
    "refreshless.com",
    "snakemake.github.io",
    "vuejs.org",
    "www.ivoa.net",
    "www.zooniverse.org",
    "zenodo.org",
}
# Those that Sphinx and its theme name below each page.
HOSTS |= {"www.sphinx-doc.org", "pradyunsg.me"}
PHONE = 400


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, as `make docs` builds it."""
    python = REPO / ".venv-docs/bin/python"
    if not python.is_file():
        pytest.skip("there is no .venv-docs; `make docs` makes it")
    folder = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        [python, REPO / "docs/site/build_site.py", folder],
        env={**os.environ, "PYTHONPATH": str(REPO / "workflow/scripts")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A running Chromium."""
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


def pages(site):
    """All pages of a site."""
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


@cache
def text_of(page):
    return page.read_text()


def names(page):
    """The anchors of a page."""
    return set(re.findall(r'\bid="([^"]+)"', text_of(page)))


def test_every_page_of_the_menu_is_there(site):
    menu = [name for part in build_site.navigation().values() for name in part]
    assert len(menu) == len(set(menu)) > 35
    assert all((site / f"{name}.html").is_file() for name in menu)
    # Sphinx stops at a page that is in no menu; it does not see one that is not copied.
    written = {str(path.relative_to(REPO).with_suffix("")) for path in (REPO / "docs").rglob("*.md")}
    assert written <= set(menu)


def test_every_link_leads_somewhere(site):
    links = 0
    for page in pages(site):
        for link in map(html.unescape, re.findall(r'\b(?:href|src)="([^"]+)"', text_of(page))):
            parts = urlsplit(link)
            if parts.scheme in ("data", "mailto"):
                continue
            if parts.netloc:
                assert parts.scheme == "https" and parts.hostname in HOSTS, f"{page.name}: {link}"
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.is_file(), f"{page.name}: {link}"
            if parts.fragment and target.suffix == ".html":
                assert unquote(parts.fragment) in names(target), f"{page.name}: {link}"
            links += 1
    assert links > 3000


def test_nothing_is_loaded_from_another_site(site):
    for page in pages(site):
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"([^\"]+)\"", text_of(page))
        assert not [address for address in loaded if "://" in address], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import", sheet.read_text()), sheet.name


def test_every_page_fits_a_phone_and_shows_no_error(site, opened):
    wide = []
    opened.size(PHONE, 800)
    for page in pages(site):
        opened.open(page.as_uri())
        if opened.do("document.documentElement.scrollWidth") > PHONE:
            wide.append(page.name)
        # The search writes its heading when it has found something.
        if page.name != "search.html":
            assert opened.do("document.querySelector('h1').innerText").strip(), page.name
    assert wide == [] and opened.errors == []


def test_the_search_finds_what_is_on_a_page(site, opened):
    opened.size(1200, 900)
    opened.open(f"{(site / 'search.html').as_uri()}?q=recalibration")
    found = opened.wait(
        "(() => {const links = [...document.querySelectorAll('#search-results li a')];"
        " return links.length > 3 && links.map(link => link.getAttribute('href'))})()"
    )
    assert any(link.startswith("docs/calibration.html") for link in found)
    assert opened.errors == []


def visible(page):
    """The text of a page without marks."""
    return html.unescape(re.sub(r"<[^>]+>", "", text_of(page)))


def test_the_reference_has_everything(site):
    schema = yaml.safe_load((REPO / "workflow/schemas/config.schema.yaml").read_text())
    keys = visible(site / "reference/keys.html")
    sections = {key for key, entry in known_keys(schema).items() if entry.get("type") == "object"}
    assert [key for key in known_keys(schema) if key not in keys and key not in sections] == []
    rules = names(site / "reference/rules.html")
    files = REPO.glob("rules/*.smk")
    found = {
        name
        for file in files
        for name in re.findall(r"^ *(?:rule|checkpoint) (\w+):", file.read_text(), re.M)
    }
    assert {name.replace("_", "-") for name in found} <= rules and len(found) > 45
    commands = visible(site / "reference/commands.html")
    made = reference_commands.targets(REPO / "Makefile")
    assert "docs" in made and all(f"make {name}" in commands for name in made)
    columns = visible(site / "reference/columns.html")
    for path, table in reference_files.tables(REPO).items():
        assert path in columns and all(name in columns for name in table)
    python = names(site / "reference/python.html")
    assert {
        "zoolib.api.finetune",
        "zoolib.predict.Predictor.predict",
        "zoolib.config.strategies.Stage",
    } <= python


def test_a_key_has_its_type_its_limits_and_its_default():
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", reference_keys.page(REPO), re.M))
    assert rows["train.dropout"].startswith("a number; at least 0; below 1 | `0.2` |")
    assert rows["train.optimizer"].startswith("one of `adam`, `adamw`, `sgd` | `adam` |")
    assert rows["finetune.tasks[].folds"].startswith("a whole number or null; at least 3 | `null` |")


def test_a_rule_is_read_as_snakemake_reads_it():
    (rule,) = [rule for rule in reference_rules.read_rules(REPO) if rule.name == "write_shard"]
    assert rule.stage == "shards" and not rule.is_target
    assert rule.outputs[1] == "results/{run}/shards/{split}/{shard}.json"
    job = reference_rules.demo_jobs(REPO)["write_shard"]
    assert re.fullmatch(r"results/demo/catalog/\w+\.parquet", job["input"].split(", ")[0])
