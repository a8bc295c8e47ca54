"""What a run will take, before it starts: `make estimate CONFIG=config/config.yaml GPUS=4`.

Jobs come from a dry run, downloads from the record, hours from `rates.yaml`, or from what the benchmarks have
measured on this machine (results/bench/). Without GPUS the run is on this machine, with GPUS=4 on a cluster.
"""

import heapq
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from pages import REPO
from snakemake.utils import available_cpu_count, update_config
from zoolib.config.files import Files
from zoolib.config.published import read_checks
from zoolib.config.run import read_run
from zoolib.data.tfrecords import read_sidecar
from zoolib.job.gpus import count_gpus
from zoolib.job.logs import UserError

# On a cluster: the cores beside each GPU, and those of all jobs without one together.
CORES_A_GPU, CORES = 8, 32
# The measured works are of images of this edge: in the archives, in shards, and as the network sees them.
ARCHIVED, STORED, SEEN = 424, 300, 224
SAMPLES, ANSWERS = 25, 34
# A simulated record has at most so many labels in this table.
RINGS, MOST_RINGS = "rings.csv", 1_200
# Bytes of a stored grey image, of one number of a posterior, of a row of the flat catalogue, and of a model.
BYTES = {"image": 55_000, "number": 3.1, "row": 1_100, "model": 20e6}
# Rules whose jobs load TensorFlow, which takes seconds however few galaxies there are.
SLOW = ("train_member", "predict_chunk", "finetune_task", "write_shard", "recalibrate_member", "probe_task")
GB = 1e9


class Machine:
    """How fast the machine of a run is.

    Args:
        gpus: V100s of a cluster; None for this machine.
    """

    def __init__(self, gpus):
        self.rates = yaml.safe_load((REPO / "benchmarks" / "rates.yaml").read_text())
        for part in ("processor", "gpu"):
            measured = REPO / "results" / "bench" / f"{part}.yaml"
            if measured.is_file():
                self.rates[part] = yaml.safe_load(measured.read_text())
        self.gpus = count_gpus() if gpus is None else gpus
        self.cores = available_cpu_count() if gpus is None else CORES
        # profiles/default runs jobs with a network one after another, profiles/slurm one on each GPU.
        self.networks_at_once = max(gpus or 1, 1)

    @property
    def name(self):
        """What the hours are for."""
        cards = f"{self.gpus} GPU{'s' * (self.gpus > 1)} ({self.rates['gpu']['machine']}) and "
        return f"{cards if self.gpus else ''}{self.cores} cores ({self.rates['processor']['machine']})"

    def seconds(self, work, images, image, network, mixed=False):
        """Seconds of one job that trains (`train`) or predicts (`forward`) so many images.

        Args:
            work: one of the two.
            images: how many.
            image: the `image` section of the configuration.
            network: its name.
            mixed: whether a GPU trains in mixed precision.
        """
        speed = self.rates["networks"].get(network, 1) * (SEEN / image["final_size"]) ** 2
        read = self.rates["processor"]["read"] * (STORED / image["size"]) ** 2
        if not self.gpus:
            return images * (1 / (speed * self.rates["processor"][work]) + 1 / read) / self.cores
        kind = "train_mixed" if mixed and work == "train" else work
        # The cores prepare images while the GPU computes.
        return images / min(speed * self.rates["gpu"][kind], read * CORES_A_GPU)

    def on_cores(self, work, count):
        """Seconds of a work that all cores share."""
        return count / self.rates["processor"][work] / self.cores

    def starts(self, jobs):
        """Seconds in which jobs start that do not all run at the same time, {rule: number}."""
        rates = self.rates["processor"]
        slow = sum(number for rule, number in jobs.items() if rule in SLOW) * rates["start"]
        others = sum(number for rule, number in jobs.items() if rule not in SLOW) * rates["small_job"]
        return slow / self.networks_at_once + others / self.cores


class Estimate:
    """What a run will take.

    Args:
        run: a `Run`.
        machine: a `Machine`.

    Raises:
        UserError: galaxies that a table or folder should have cannot be counted yet.
    """

    def __init__(self, run, machine):
        self.run, self.machine, self.files, self.config = run, machine, Files(run), run.config
        train = self.config["train"]
        self.network, self.mixed = (self.config["image"], train["backbone"]), train["mixed_precision"]
        used = run.used_ensembles or any(not entry["models"] for entry in run.targets.values())
        tables = [
            self.files.table_of(entry) if entry["zooniverse"] else entry["table"]
            for entry in (self.config["catalogs"] if used else [])
        ]
        self.labelled = sum(self.rows(table) for table in tables)
        self.targets = {name: self.galaxies(entry) for name, entry in run.targets.items()}

    def rows(self, table):
        """The galaxies of a table: of the file if it is there, of the record, or as many as are simulated."""
        path, zenodo = Path(self.files.of_record(table)), self.config["zenodo"]
        if path.is_file() and path.suffix == ".parquet":
            return pq.ParquetFile(path).metadata.num_rows
        if path.is_file():
            with open(path, "rb") as file:
                return sum(1 for _ in file) - 1
        if zenodo["simulate"]:
            return zenodo["simulate"]["galaxies"]
        if zenodo["sample"]:
            return zenodo["sample"]
        if table in self.counted:
            return self.counted[table]
        raise UserError(f"{path}: is not there yet, so its galaxies cannot be counted; make or download it.")

    @property
    def counted(self):
        """{table of the record: its galaxies}, as its publication counts them."""
        try:
            tables, counts = read_checks(self.files.checks)
        except UserError:
            return {}
        return {tables[one["table"]]: one["expected"] for one in counts if not one.get("where")}

    def galaxies(self, entry):
        """The galaxies of a target."""
        if "split" in entry:
            return round(self.labelled * self.config["split"][entry["split"]])
        if "catalog" in entry:
            return self.rows(entry["catalog"])
        if "archives" in entry:
            others = self.config["zenodo"]["simulate"] or self.config["zenodo"]["sample"]
            return max([self.labelled, *([] if others else self.counted.values())])
        folder = Path(entry.get("images") or entry["shards"])
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder to count the galaxies in; fix the path.")
        if "shards" in entry:
            return sum(read_sidecar(path)["count"] for path in folder.glob("*.json"))
        return sum(len(names) for _, _, names in os.walk(folder))

    def downloads(self):
        """Bytes of the record that are not there yet."""
        if self.config["zenodo"]["simulate"] or not self.files.checks.is_file():
            return 0
        content = yaml.safe_load(self.files.checks.read_text())["files"]
        sizes = {self.files.downloaded(name): about["size"] for name, about in content.items()}
        if not self.labelled:
            return 0
        wanted = {*self.files.catalog_tables(), *self.files.checked_tables().values()}
        archives = [name for name in sizes if name.endswith(".zip")]
        if sample := self.config["zenodo"]["sample"]:
            share = sample / max(self.counted.values())
            wanted |= {self.files.downloaded(entry["table"]) for entry in self.config["catalogs"]}
            return sum(sizes[path] for path in archives) * share + self._missing(sizes, wanted)
        return self._missing(sizes, wanted | set(self.files.catalog_archives()))

    def _missing(self, sizes, wanted):
        return sum(sizes.get(path, 0) for path in wanted if not Path(path).is_file())

    def stages(self):
        """A list of (rule, seconds, remark) for what takes long."""
        found = []
        if self.run.used_ensembles:
            edge = (self.config["zenodo"]["simulate"] or {}).get("size", ARCHIVED)
            images = self.labelled * (edge / ARCHIVED) ** 2
            found += [("write_shard", self.machine.on_cores("shard", images), ""), self.training()]
        if self.targets:
            seconds = sum(self.predicting(name) for name in self.targets)
            rows = sum(self.samples(name) for name in self.targets) / SAMPLES * self.answers / ANSWERS
            found.append(("predict_chunk", seconds, ""))
            found.append(("describe_posteriors", self.machine.on_cores("describe", rows), ""))
        if self.run.tasks:
            seconds = sum(self.finetuning(name) for name in self.run.tasks)
            found.append(("finetune_task", seconds, "at most"))
        return found

    @property
    def answers(self):
        """How many answers the tree has."""
        return len(self.run.tree.columns)

    def training(self):
        """The stage of the members of all ensembles."""
        epochs, split, members = self.config["train"]["epochs"], self.config["split"], []
        for entry in self.run.used_ensembles.values():
            images = self.labelled * sum(split[part] for part in entry["splits"]) * epochs
            seconds = self.machine.seconds("train", images, *self.network, self.mixed)
            members += [seconds] * entry["members"]
        remark = f"at most: {len(members)} of {epochs} epochs, {duration(max(members))} each"
        return "train_member", side_by_side(members, self.machine.networks_at_once), remark

    def passes(self, target):
        """How often the network sees a galaxy of a target, all models together."""
        return len(self.files.models(target)) * max(self.config["predict"]["views"], 1)

    def samples(self, target):
        """Samples of the posteriors of all galaxies of a target."""
        return self.targets[target] * self.passes(target) * self.config["predict"]["samples"]

    def predicting(self, target):
        """Seconds of a target."""
        seconds = self.machine.seconds("forward", self.targets[target] * self.passes(target), *self.network)
        return seconds / self.machine.networks_at_once

    def finetuning(self, name):
        """Seconds of all finetunings of a task."""
        task = self.run.tasks[name]
        folder = task["folders"] and Path(task["folders"])
        labels = self.rows(task["table"]) if task["table"] else sum(1 for _ in folder.rglob("*.*"))
        if self.config["zenodo"]["simulate"] and task["table"] == RINGS:
            labels = min(labels, MOST_RINGS)
        strategy = task["strategy"] if isinstance(task["strategy"], str) else task["strategy"]["name"]
        # A frozen backbone sees each image twice: for its features, and for the predictions.
        work, epochs = ("forward", 2) if strategy == "freeze" else ("train", task["epochs"])
        seconds = self.machine.seconds(work, labels * epochs, *self.network, self.mixed)
        return seconds * len(self.run.fit_names(name)) / self.machine.networks_at_once

    def disk(self):
        """{what: bytes}."""
        image, members = self.config["image"], sum(one["members"] for one in self.run.used_ensembles.values())
        shards = self.labelled * BYTES["image"] * (image["size"] / STORED) ** 2 * (3 if image["color"] else 1)
        return {
            "downloads": self.downloads(),
            "shards": shards if members and self.config["shards"]["enabled"] else 0,
            "models": members * BYTES["model"],
            "posteriors": sum(self.samples(name) for name in self.targets) * self.answers * BYTES["number"],
            "catalogues": sum(self.targets.values()) * BYTES["row"],
        }


def count_jobs(configuration):
    """{rule: its jobs} of the complete run, as Snakemake plans it."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--forceall", "--quiet", "rules"]
    command += ["--cores", "1", "--configfile", configuration]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise UserError("\n".join(line for line in said if not line.startswith("Using workflow specific")))
    table = done.stdout.partition("\ntotal")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def side_by_side(jobs, places):
    """Seconds until the last of some jobs ends, if each goes to the place that is free first."""
    busy = [0.0] * places
    for seconds in sorted(jobs, reverse=True):
        heapq.heapreplace(busy, busy[0] + seconds)
    return max(busy)


def duration(seconds):
    """A time as one word: minutes, hours or days."""
    for unit, name in ((86400, "d"), (3600, "h")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:,.1f} {name}"
    return f"{math.ceil(seconds / 60):,} min"


def lines(configuration, gpus):
    """The estimate of a configuration, as lines of text.

    Args:
        configuration: path of a YAML file that is laid over config/config.yaml.
        gpus: V100s of a cluster; None for this machine.
    """
    jobs = count_jobs(configuration)
    config = yaml.safe_load((REPO / "config" / "config.yaml").read_text())
    update_config(config, yaml.safe_load(Path(configuration).read_text()))
    machine = Machine(gpus)
    estimate = Estimate(read_run(config, REPO), machine)
    stages, disk = estimate.stages(), estimate.disk()
    download = disk["downloads"] / 1e6 / machine.rates["download"]
    waits = machine.starts(jobs)
    most = sorted(jobs.items(), key=lambda one: -one[1])[:3]
    listed = ", ".join(f"{rule} {count}" for rule, count in most)
    sizes = ", ".join(f"{name} {size / GB:.1f}" for name, size in disk.items() if size >= GB / 20)
    rows = [
        ("jobs", f"{sum(jobs.values()):,}", f"{listed}, others"),
        ("disk", f"{sum(disk.values()) / GB:,.1f} GB", sizes),
        ("download", duration(download), f"with {machine.rates['download']} MB/s"),
        *((rule, duration(seconds), remark) for rule, seconds, remark in stages),
        ("starts of jobs", duration(waits), "and jobs that are not listed here"),
        ("together", duration(download + waits + sum(seconds for _, seconds, _ in stages)), "without queues"),
    ]
    return [
        f"{estimate.run.name}: {estimate.labelled:,} galaxies to learn from and to check with,"
        f" {sum(estimate.targets.values()):,} to predict, on {machine.name}",
        *(f"{name:<21}{value:>10}  {remark}".rstrip() for name, value, remark in rows),
    ]


def main(configuration, gpus=""):
    """Print the estimate."""
    try:
        if gpus and not re.fullmatch("[1-9][0-9]*", gpus):
            raise UserError(f"GPUS is '{gpus}', expected a number such as 4; leave it out for this machine.")
        if not Path(configuration).is_file():
            raise UserError(f"CONFIG is '{configuration}', but there is no such file; fix the path.")
        print("\n".join(lines(configuration, int(gpus) if gpus else None)))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
