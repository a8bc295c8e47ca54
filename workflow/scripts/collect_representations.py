"""Join the representations of a target's chunks in one file."""

from zoolib.job.logs import log_to
from zoolib.likeness.representations import collect_representations

with log_to(snakemake.log[0]):
    collect_representations(parts=snakemake.input.parts, output=snakemake.output.representations)
