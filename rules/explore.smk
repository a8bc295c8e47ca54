# Stage explore: a page of each target, in which galaxies are sorted, filtered, looked at and selected.


rule write_explorer:
    "write a page over the catalogue of a target, opened from the disk"

    # The page is opened from the disk. Its data and images are written to the folder files/ beside it.
    input:
        program=FILES.explorer,
        catalog=of_chunks("catalog/{chunk}.parquet"),
        chunks=of_chunks("chunks/{chunk}.hdf5"),
        recalibrations=by("target", FILES.recalibrations),
        ranked="results/{run}/predict/{target}/label_next.csv",
        images=by("target", FILES.pictured),
        votes=by("target", FILES.voted),
    output:
        page="results/{run}/explore/{target}/index.html",
    log:
        "logs/{run}/write_explorer/{target}.log",
    benchmark:
        "benchmarks/{run}/write_explorer/{target}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 2
    resources:
        mem_mb=doubled(4000),
        runtime=240,
    params:
        code=fingerprint("write_explorer", "explore.page"),
        # The tree's cuts define samples.
        tree=THIS.tree.without_title(published=True),
    script:
        "../workflow/scripts/write_explorer.py"


rule explore:
    "a page of each target and task: sort, filter, look at and select galaxies, without a server"
    input:
        expand("results/{run}/explore/{target}/index.html", run=RUN, target=[*TARGETS, *THIS.fits]),
    localrule: True
