"""Write the card of an exported model."""

from zoolib.export import write_card
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    write_card(
        about=snakemake.input.about,
        checks=snakemake.input.checks,
        tables=[snakemake.input.summary, *snakemake.input.scores],
        facts=snakemake.params.facts,
        licence=snakemake.params.licence,
        output=snakemake.output.card,
    )
