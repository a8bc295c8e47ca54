"""The page of all commands: the targets of both Makefiles, and the stages of Snakemake."""

import re

import reference_rules

HEAD = """# Every command

`make help` and `make -C benchmarks help` print the first and the last table, `snakemake
--list-target-rules` the second. The words of `make finetune` and `make predict` are in
[finetuning.md](../docs/finetuning.md#in-one-command) and [survey.md](../docs/survey.md#in-one-command).
"""


def targets(makefile):
    """{target: what it does} of a Makefile, from the words behind ##."""
    return dict(re.findall(r"^([a-z-]+):.*?## (.*)$", makefile.read_text(), re.M))


def _table(heading, rows):
    lines = ["", f"## {heading}", "", "| type | what it does |", "| --- | --- |"]
    return lines + [f"| `{command}` | {what.replace('|', chr(92) + '|')} |" for command, what in rows.items()]


def page(repo):
    """The page as Markdown: three tables."""
    stages = [rule for rule in reference_rules.read_rules(repo) if rule.is_target]
    made = {f"make {name}": what for name, what in targets(repo / "Makefile").items()}
    typed = {"snakemake": "everything that the configuration asks for"}
    typed |= {f"snakemake {rule.name}": rule.does for rule in stages}
    studied = {
        f"make -C benchmarks {name}": what for name, what in targets(repo / "benchmarks/Makefile").items()
    }
    parts = [("make", made), ("snakemake", typed), ("What developers measure", studied)]
    lines = [line for heading, rows in parts for line in _table(heading, rows)]
    return "\n".join([HEAD, *lines]) + "\n"
