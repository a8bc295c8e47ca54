"""The resources that each rule asks for and has used: `make resources CONFIG=config/demo.yaml`.

The requests come from a dry run of everything, the measurements from the tables that Snakemake wrote for
each job (`benchmark:` of the rules). A job on a cluster needs about 350 MB more than its script, for the
two processes of Snakemake that start it.
"""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd

JOB = re.compile(r"^ *(?:local)?rule (\w+):$(.*?)(?=^ *(?:local)?rule |\Z)", re.MULTILINE | re.DOTALL)
UNITS = {"MB asked": 0, "MB taken": 0, "min asked": 0, "min taken": 1, "CPUs asked": 0, "CPUs busy": 1}


def read_requests(shown):
    """The jobs of a dry run, and the resources that they ask for.

    Args:
        shown: what `snakemake --dry-run` printed.

    Returns:
        pandas.DataFrame with a row for each job that has a benchmark: rule, benchmark, MB asked,
        min asked, CPUs asked.
    """
    rows = []
    for name, text in JOB.findall(shown):
        found = {
            key: re.search(rf"\b{key}[:=] ?([^\s,]+)", text) for key in ("benchmark", "mem_mb", "runtime")
        }
        threads = re.search(r"\bthreads: (\d+)", text)
        if all(found.values()):
            memory, minutes = (float(found[key].group(1)) for key in ("mem_mb", "runtime"))
            cpus = int(threads.group(1)) if threads else 1
            rows.append((name, found["benchmark"].group(1), memory, minutes, cpus))
    return pd.DataFrame(rows, columns=["rule", "benchmark", "MB asked", "min asked", "CPUs asked"])


def read_measured(path):
    """The resources that one job used at most.

    Args:
        path: the table that Snakemake wrote.

    Returns:
        {"MB taken", "min taken", "CPUs busy"}; empty if the job has not run.
    """
    if not Path(path).is_file():
        return {}
    # For a job that ends at once Snakemake writes only the time.
    table = pd.read_csv(path, sep="\t", na_values="-").iloc[-1]
    seconds = float(table["s"])
    return {"MB taken": table["max_rss"], "min taken": seconds / 60, "CPUs busy": table["cpu_time"] / seconds}


def main(configuration):
    """Print the table."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--forceall", "--cores", "1000"]
    done = subprocess.run([*command, "--configfile", configuration], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr or done.stdout)
    jobs = read_requests(done.stdout)
    measured = pd.DataFrame([read_measured(path) for path in jobs["benchmark"]], index=jobs.index)
    # The columns are needed even if no job has run.
    jobs = jobs.join(measured.reindex(columns=["MB taken", "min taken", "CPUs busy"]))
    table = jobs.groupby("rule")[list(UNITS)].max()
    table.insert(0, "jobs", jobs.groupby("rule").size())
    shown = table.astype({"jobs": int}).to_string(
        formatters={name: f"{{:.{digits}f}}".format for name, digits in UNITS.items()}, na_rep="-"
    )
    print(shown)
    print(f"The most of all jobs of a rule; {jobs['min taken'].notna().sum()} of {len(jobs)} have run.")


if __name__ == "__main__":
    main(sys.argv[1])
