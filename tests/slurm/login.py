"""The login node: `snakemake --profile slurm` in a copy of the repository, as a user types it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import yaml
from cluster import end_with_the_parent, jobs, wait_until
from pipeline import REPO, copy_of_the_repository

# The tests change only this in the profile. Snakemake checks jobs earlier than after 20 seconds, and does not
# give a hundred jobs at once to a machine with two cores.
IN_A_HURRY = ("--slurm-init-seconds-before-status-checks", "2", "--jobs", "4")
GPU_RULES = ("train_member", "recalibrate_member", "predict_chunk", "finetune_task", "probe_task")


def profile():
    """The profile of the repository."""
    return yaml.safe_load((REPO / "slurm" / "config.yaml").read_text())


def partitions():
    """(CPU partition, GPU partition) of the profile."""
    return (
        profile()["default-resources"]["slurm_partition"],
        profile()["set-resources"]["train_member"]["slurm_partition"],
    )


def clone(folder):
    """Copy the repository, with the link that `--profile slurm` needs."""
    repo = copy_of_the_repository(folder)
    shutil.copy2(REPO / "slurm", repo / "slurm", follow_symlinks=False)
    return repo


class Call:
    """One call of Snakemake that runs beside the test.

    Args:
        repo: the folder of the call.
        targets: files or rules to make; everything by default.
        config: configuration files that are laid over config/test.yaml.
        options: more options of Snakemake.
    """

    def __init__(self, repo, *targets, config=(), options=()):
        self.repo = repo
        self.known = {job["JobId"] for job in jobs(repo)}
        self.shown = repo / f"snakemake-{time.monotonic_ns()}.out"
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", *IN_A_HURRY]
        command += ["--configfile", "config/test.yaml", *config, *options, "--", *targets]
        with open(self.shown, "w") as shown:
            self.process = subprocess.Popen(
                list(map(str, command)),
                cwd=repo,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "ZOO_FAKE_GPU": "1"},
                stdout=shown,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_the_parent,
            )

    def jobs(self, rule=""):
        """The jobs of a rule that this call has submitted to SLURM, oldest first."""
        submitted = [job for job in jobs(self.repo) if job["JobId"] not in self.known]
        return [job for job in submitted if job.get("Comment", "").startswith(f"rule_{rule}")]

    def wait(self, seconds=600):
        """Wait until it ends, without an error; returns the output of the terminal."""
        try:
            status = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not done after {seconds} s: {self.shown.read_text()[-6000:]}") from None
        shown = self.shown.read_text()
        assert status == 0, shown[-6000:]
        return shown

    def kill(self):
        """Kill it as a reboot of the login node does, so that it cancels none of its jobs."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def epochs_done(log):
    """The last epoch in the log of a training; 0 before the first."""
    found = re.findall(r"epoch (\d+): loss", log.read_text()) if log.exists() else []
    return int(found[-1]) if found else 0


def wait_for_epoch(log, epoch, call, seconds=180):
    """Wait until a training is past an epoch."""

    def is_past():
        assert call.process.poll() is None, call.shown.read_text()[-6000:]
        return epochs_done(log) >= epoch

    wait_until(is_past, seconds, f"epoch {epoch} in {log}")
