"""Write the tables of the report as HTML pages."""

from zoolib.job.logs import log_to
from zoolib.report import show_tables

with log_to(snakemake.log[0]):
    show_tables(tables=snakemake.input.tables, pages=snakemake.output.pages)
