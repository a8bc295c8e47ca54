"""Count the votes in an export of a Zooniverse project."""

from zoolib.job.logs import log_to
from zoolib.zooniverse.votes import count_votes

table, subjects = [*snakemake.input.export, None][:2]

with log_to(snakemake.log[0]):
    count_votes(
        source={"table": table, "subjects": subjects, **snakemake.params.counting},
        tree=snakemake.params.tree,
        output=snakemake.output,
    )
