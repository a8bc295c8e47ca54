"""Write the first page of the report: what was run, numbers, figures, and what to do next."""

from types import SimpleNamespace

from zoolib.figures.first_page import write_first_page
from zoolib.job.logs import log_to

with log_to(snakemake.log[0]):
    found = {name: [paths] if isinstance(paths, str) else paths for name, paths in snakemake.input.items()}
    write_first_page(
        found=SimpleNamespace(**found),
        tasks=snakemake.params.tasks,
        targets=snakemake.params.targets,
        labelled=snakemake.params.labelled,
        output=snakemake.output.page,
    )
