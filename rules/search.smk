# Stage search: rankings of a target's galaxies by what they look like, and a map of them.


rule search_galaxies:
    "rank the galaxies of a target by what they look like"
    input:
        representations=by("search", FILES.representations),
        examples=by("search", FILES.examples),
        answers=by("search", FILES.answers),
    output:
        ranked="results/{run}/search/{search}/ranked.csv",
        next="results/{run}/search/{search}/next.csv",
    log:
        "logs/{run}/search_galaxies/{search}.log",
    benchmark:
        "benchmarks/{run}/search_galaxies/{search}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 2
    resources:
        mem_mb=doubled(4000),
        runtime=60,
    params:
        code=fingerprint("search_galaxies", "search"),
        search=by("search", THIS.search_settings),
        seed=config["seed"],
    script:
        "../workflow/scripts/search_galaxies.py"


rule draw_search:
    "draw the first galaxies of a search"
    input:
        ranked="results/{run}/search/{search}/ranked.csv",
        following="results/{run}/search/{search}/next.csv",
        places=by("search", FILES.places),
    output:
        figure=report(
            "results/{run}/search/{search}/gallery.png",
            caption="../workflow/report/search.rst",
            category="Search",
            labels={"search": "{search}", "figure": "first galaxies"},
        ),
    log:
        "logs/{run}/draw_search/{search}.log",
    benchmark:
        "benchmarks/{run}/draw_search/{search}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(2000),
        runtime=30,
    params:
        code=fingerprint("draw_search", "figures.search"),
        how=by("search", lambda search: THIS.searches[search]["how"]),
    script:
        "../workflow/scripts/draw_search.py"


rule draw_map:
    "draw a map of a target's galaxies by what they look like"
    input:
        representations=by("search", FILES.representations),
        places=by("search", FILES.places),
    output:
        figure=report(
            "results/{run}/search/{search}/map.png",
            caption="../workflow/report/map.rst",
            category="Search",
            labels={"search": "{search}", "figure": "map"},
        ),
        positions="results/{run}/search/{search}/map.csv",
    log:
        "logs/{run}/draw_map/{search}.log",
    benchmark:
        "benchmarks/{run}/draw_map/{search}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=doubled(4000),
        runtime=30,
    params:
        code=fingerprint("draw_map", "figures.search"),
        seed=config["seed"],
    script:
        "../workflow/scripts/draw_map.py"


rule similar:
    "the galaxies that look most like given ones"
    input:
        FILES.searched("similar", "gallery.png"),
    localrule: True


rule more:
    "more galaxies like some examples, in rounds of yes and no"
    input:
        FILES.searched("more", "gallery.png"),
    localrule: True


rule odd:
    "the galaxies that look least like all others"
    input:
        FILES.searched("odd", "gallery.png"),
    localrule: True


rule search:
    "all searches, and a map"
    input:
        [FILES.searched(how, "gallery.png") for how in ("similar", "more", "odd")],
        FILES.searched("map", "map.png"),
    localrule: True
