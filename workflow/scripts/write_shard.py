"""Write one shard of a catalogue."""

from zoolib.data.decoders import limit_pixels
from zoolib.job.logs import log_to
from zoolib.shards import write_shard

with log_to(snakemake.log[0]):
    limit_pixels(**snakemake.params.decoding)
    write_shard(
        catalog=snakemake.input.catalog,
        shard=int(snakemake.wildcards.shard),
        of=snakemake.params.of,
        image=snakemake.params.image,
        output=snakemake.output,
        enabled=snakemake.params.enabled,
        threads=snakemake.threads,
    )
