"""Draw the paper's figures that need only tables."""

from zoolib.config.trees import DecisionTree
from zoolib.figures.paper_tables import draw_tables
from zoolib.figures.style import by_name
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    draw_tables(
        votes=list(snakemake.input.votes),
        tree=DecisionTree.from_dict(snakemake.params.tree),
        title=snakemake.params.title,
        earlier=dict(zip(snakemake.params.earlier, snakemake.input.earlier, strict=True)),
        models={
            name: (list(snakemake.input[key]), count)
            for name, (key, count) in snakemake.params.models.items()
        },
        published=snakemake.params.published,
        outputs=by_name(snakemake.output),
    )
