"""Build the documentation site: `make docs` calls it with the folder of the site.

The pages are the repository's Markdown files as they are. They are copied into one folder, in the same
places, so that their links hold; the reference is written beside them; Sphinx makes HTML of both, and stops
at a warning.
"""

import re
import shutil
import sys
from pathlib import Path

import reference_commands
import reference_files
import reference_keys
import reference_python
import reference_rules
import yaml

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
STAGED = REPO / "build" / "site"
REFERENCE = {
    "keys": reference_keys.page,
    "commands": reference_commands.page,
    "rules": reference_rules.page,
    "files": reference_files.page_of_files,
    "columns": reference_files.page_of_columns,
    "python": reference_python.page,
}


def navigation():
    """The menu of the site: {heading: names of its pages}."""
    return yaml.safe_load((HERE / "navigation.yaml").read_text())


def stage(folder):
    """Put the pages, what they link to, and the reference into a folder.

    Args:
        folder: what Sphinx will read; what is in it is deleted.
    """
    shutil.rmtree(folder, ignore_errors=True)
    written = [name for names in navigation().values() for name in names if not name.startswith("reference/")]
    for name in ("README", *written):
        page = REPO / f"{name}.md"
        text = page.read_text()
        for link in set(re.findall(r"\]\(([^)#\s]+)", text)):
            if "://" not in link and not link.endswith(".md"):
                _copy(page.parent / link, folder)
        # Sites begin with index.html, and GitHub with README.md.
        _write(folder / ("index.md" if name == "README" else f"{name}.md"), text)
    with open(folder / "index.md", "a") as start:
        start.write("".join(map(_menu, navigation().items())))
    for name, page in REFERENCE.items():
        _write(folder / "reference" / f"{name}.md", page(REPO))


def _copy(file, folder):
    if not file.is_file():
        # Sphinx says which page names it.
        return
    place = folder / file.resolve().relative_to(REPO)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, place)


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _menu(part):
    heading, names = part
    lines = ["", "", "```{toctree}", ":hidden:", f":caption: {heading}", "", *names, "```", ""]
    return "\n".join(lines)


def main(site):
    """Build the site into a folder; returns Sphinx's exit status."""
    from sphinx.cmd.build import main as sphinx

    stage(STAGED)
    settings = ["-c", str(HERE), "-W", "--keep-going", "-q", "-E", "-d", str(STAGED.with_name("doctrees"))]
    return sphinx(["-b", "html", *settings, str(STAGED), str(site)])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
