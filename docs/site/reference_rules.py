"""The page of all rules, from rules/*.smk and their scripts, with a job of each in the demo."""

import ast
import functools
import re
import subprocess
import sys
from typing import NamedTuple

HEAD = """# Every rule

From `rules/*.smk`, in the order of the stages. *Input* and *output* name the files of one job; what is in
braces is replaced, and code stands where files follow from the configuration. *In the demo* shows one job
of a dry run of the demo with `examples/search.yaml`. Memory is doubled when a job that failed is tried
again, unless the rule says otherwise. [outputs.md](../docs/outputs.md) describes the files.
"""
RULE = re.compile(r"^( *)(?:rule|checkpoint) (\w+):\n((?:\1    .*\n|\n)+)", re.M)
# A path of an output or input: a text with a slash, and an ending or something in braces.
PATH = re.compile(r'f?"([^"\s]*/[^"\s]*[.}][^"\s]*)"')
DEMO = ("config/demo.yaml", "examples/search.yaml")


class Rule(NamedTuple):
    """A rule as its file says it.

    Attributes:
        name: of the rule.
        stage: the file that it is in, without its ending.
        sections: {"input", "output", "params", …: the text below it}; "" is what stands before the first one.
        does: a sentence: what the rule itself says, or the first line of its script.
    """

    name: str
    stage: str
    sections: dict
    does: str

    @property
    def is_target(self):
        """Whether it only collects files: a name to type behind `snakemake`."""
        return "script" not in self.sections

    @property
    def outputs(self):
        """Paths of its files, as patterns."""
        return list(dict.fromkeys(PATH.findall(_without_report(self.sections.get("output", "")))))


def read_rules(repo):
    """All rules, in the order of the stages.

    Args:
        repo: the root of the repository.

    Returns:
        A list of `Rule`.
    """
    stages = re.findall(r'^include: "rules/(\w+)\.smk"', (repo / "Snakefile").read_text(), re.M)
    rules = []
    for stage in stages:
        for indent, name, body in RULE.findall((repo / f"rules/{stage}.smk").read_text()):
            sections = _sections(body, len(indent) + 4)
            rules.append(Rule(name, stage, sections, _does(repo, sections)))
    return rules


def _sections(body, indent):
    found, name = {"": []}, ""
    for line in body.splitlines():
        start = re.match(rf" {{{indent}}}(\w+):(.*)", line)
        if start:
            name = start[1]
            found[name] = [start[2].strip()] if start[2].strip() else []
        else:
            found[name].append(line.strip())
    return {name: "\n".join(lines).strip() for name, lines in found.items()}


def _does(repo, sections):
    if "script" not in sections:
        return sections[""].strip('"\n ')
    (script,) = re.findall(r"workflow/scripts/\w+\.py", sections["script"])
    return ast.get_docstring(ast.parse((repo / script).read_text())).partition("\n")[0].rstrip(".")


def _without_report(text):
    """An output without what it says to the report: caption, category and labels."""
    return re.sub(r'(caption|category|subcategory)="[^"]*",?|labels=\{[^}]*\},?', "", text)


@functools.cache
def demo_jobs(repo):
    """A dry run of the demo: {rule: what Snakemake shows of its first job}."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--forceall", "--cores", "2", "--nocolor"]
    done = subprocess.run(
        [*command, "--configfile", *DEMO], cwd=repo, capture_output=True, text=True, check=True
    )
    jobs = re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):\n((?: {4}.*\n)+)", done.stdout, re.M)
    return {name: dict(re.findall(r"^ {4}(\w+): (.*)$", text, re.M)) for name, text in reversed(jobs)}


def _entries(text):
    """(name, what) of each entry of a section; code is shortened to one line."""
    text = re.sub(r"^#.*$", "", _without_report(text), flags=re.M)
    entries = re.split(r",\n(?=\w+=)", text.strip())
    for entry in entries:
        name, _, value = entry.partition("=") if re.match(r"\w+=", entry) else ("", "", entry)
        paths = PATH.findall(value)
        shown = ", ".join(f"`{in_braces(path)}`" for path in paths)
        yield name, shown or "`{}`".format(" ".join(value.split()).strip(', "'))


def in_braces(path):
    """A path of a rule as a reader writes it: an f-string has the braces of wildcards twice."""
    # With `shards.enabled: false` the same file is a short list of images.
    path = path.replace("{FILES.shard_suffix}", ".tfrecord")
    return path.replace("{{", "{").replace("}}", "}")


def _asks(sections):
    """What a job asks for, as text."""
    memory = re.search(r"mem_mb=(?:doubled\((\d+)\)|(\d+)|(training_memory))", sections["resources"])
    megabytes = memory[1] or memory[2]
    minutes = re.search(r"runtime=(\d+)", sections["resources"])
    words = [f"{sections['threads']} CPUs" if sections.get("threads", "1") != "1" else "1 CPU"]
    words.append(f"{int(megabytes):,} MB" if megabytes else "memory that grows with the batch")
    if minutes:
        words.append(f"at most {minutes[1]} minutes")
    if "accelerator" in sections["resources"]:
        words.append("a GPU where there is one")
    return ", ".join(words)


def _described(repo, rule):
    lines = ["", f"### {rule.name}", "", f"{rule.does[0].upper()}{rule.does[1:]}."]
    if rule.is_target:
        return [*lines, "", f"Type `snakemake {rule.name}`: it makes these files and all that they need."]
    lines += ["", "| | |", "| --- | --- |"]
    for section in ("input", "output"):
        lines += [
            f"| {section}{f' `{name}`' if name else ''} | {what} |"
            for name, what in _entries(rule.sections.get(section, ""))
            if what != "``"
        ]
    lines.append(f"| asks for | {_asks(rule.sections)} |")
    lines.append(f"| script | `{rule.sections['script'].strip(chr(34)).removeprefix('../')}` |")
    job = demo_jobs(repo).get(rule.name)
    if job:
        shown = " → ".join(
            ", ".join(f"`{path}`" for path in _few(job[key].split(", ")))
            for key in ("input", "output")
            if key in job
        )
        lines.append(f"| in the demo | {shown} |")
    return lines


def _few(paths, most=3):
    return [*paths[:most], "…"] if len(paths) > most else paths


def page(repo):
    """The page as Markdown: one part for each stage."""
    lines, stage = [HEAD], None
    for rule in read_rules(repo):
        if rule.stage != stage:
            stage = rule.stage
            lines += ["", f"## {stage}"]
        lines += _described(repo, rule)
    return "\n".join(lines) + "\n"
