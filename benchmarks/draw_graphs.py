"""Draw the rules of the demo and the jobs of the smallest run, coloured by stage.

`make -C benchmarks rulegraph` calls this. It needs Graphviz (dot and tred).
"""

import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PICTURES = {
    "rulegraph": ("config/demo.yaml", "--rulegraph"),
    "dag": ("config/test.yaml", "--dag"),
}
COLORS = {
    "download": "#56b4e9",
    "catalog": "#0072b2",
    "shards": "#009e73",
    "pretrained": "#f0c000",
    "train": "#d55e00",
    "recalibrate": "#882255",
    "predict": "#cc79a7",
    "finetune": "#e69f00",
    "evaluate": "#666666",
    "paper": "#8c6d31",
    "report": "#000000",
}
STYLE = """ranksep=0.3; nodesep=0.12; bgcolor=white; margin=0.05;
node[shape=box, style=rounded, penwidth=2, height=0.3, margin="0.08,0.03"];
node[fontname="DejaVu Sans", fontsize=11];
edge[color="#999999", penwidth=1, arrowsize=0.6];
"""


def stages():
    """{rule: stage}; a stage is a file of rules/."""
    found = {}
    for file in (REPO / "rules").glob("*.smk"):
        for rule in re.findall(r"^ *rule (\w+):", file.read_text(), re.M):
            found[rule] = file.stem
    return found


def restyled(dot):
    """Snakemake's graph in the colours of the stages, without the target `all`.

    Args:
        dot: the graph in Graphviz's language, as `--rulegraph` or `--dag` print it.

    Returns:
        The new graph in Graphviz's language.
    """
    of_rule, lines, left_out = stages(), [], set()
    for number, label in re.findall(r'^\s*(\d+)\[label = "([^"]*)"', dot, re.M):
        rule, *wildcards = label.split("\\n")
        if rule == "all":
            left_out.add(number)
            continue
        about = [value for value in wildcards if not value.startswith("run: ")]
        text = "\\n".join([rule, *about])
        lines.append(f'{number}[label="{text}", color="{COLORS[of_rule[rule]]}"];')
    for source, target in re.findall(r"^\s*(\d+) -> (\d+)", dot, re.M):
        if target not in left_out:
            lines.append(f"{source} -> {target};")
    return "digraph rules {\n" + STYLE + "\n".join(lines) + "\n}\n"


def draw(name, configuration, graph):
    """Draw one picture; an arrow is left out if a longer path connects the same boxes."""
    command = [sys.executable, "-m", "snakemake", "--configfile", configuration, graph, "--forceall"]
    dot = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout
    reduced = subprocess.run(["tred"], input=restyled(dot), capture_output=True, text=True, check=True).stdout
    path = REPO / "docs" / f"{name}.svg"
    subprocess.run(["dot", "-Tsvg", "-o", path], input=reduced, text=True, check=True)
    print(f"{path.relative_to(REPO)}: {reduced.count('label=')} boxes")


if __name__ == "__main__":
    for name, (configuration, graph) in PICTURES.items():
        draw(name, configuration, graph)
