"""Draw decision trees."""

from zoolib.config.trees import DecisionTree
from zoolib.figures.style import by_name
from zoolib.figures.tree import draw_tree
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    outputs = by_name(snakemake.output)
    for name, tree in snakemake.params.trees.items():
        draw_tree(DecisionTree.from_dict(tree), outputs[f"tree_{name}"])
