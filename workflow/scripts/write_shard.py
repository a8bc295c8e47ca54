"""Write one shard of a catalogue."""

from zoolib.job.logs import log_to
from zoolib.shards import write_shard

with log_to(snakemake.log[0]):
    write_shard(
        catalog=snakemake.input.catalog,
        shard=int(snakemake.wildcards.shard),
        of=snakemake.params.of,
        image=snakemake.params.image,
        output=snakemake.output,
        enabled=snakemake.params.enabled,
        threads=snakemake.threads,
    )
