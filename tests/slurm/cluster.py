"""A SLURM on one machine: Debian's daemons, started for the tests and stopped after them.

The node claims more processors and memory than it has, and two GPUs of type v100 that are device files.
Its configuration must lie in /etc/slurm, because the plugin does not pass SLURM_CONF to job steps.
"""

import contextlib
import ctypes
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ETC = Path("/etc/slurm")
MARK = "# Written by tests/slurm/cluster.py, which deletes it after the tests."
DAEMONS = ("munged", "slurmctld", "slurmd")
NODE = "testnode"

SLURM_CONF = """{mark}
ClusterName=galaxies
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=5,batch_sched_delay=1,bf_interval=5
GresTypes=gpu
MpiDefault=none
ReturnToService=2
MinJobAge=86400
KillWait=5
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
NodeName={node} NodeAddr=127.0.0.1 NodeHostname={node} CPUs=32 RealMemory=512000 Gres=gpu:v100:2 State=UNKNOWN
{partitions}
{accounting}
"""
# In SLURM 22.05 a count without a file drains the node.
GRES_CONF = "{mark}\nNodeName={node} Name=gpu Type=v100 File=/dev/null,/dev/zero\n"


def why_not():
    """Why this machine cannot start a SLURM, in one sentence; empty if it can."""
    missing = [name for name in DAEMONS if shutil.which(name) is None]
    if missing:
        return (
            f"{', '.join(missing)} not found: `apt-get install slurm-wlm munge` as root, on Debian or Ubuntu"
        )
    if os.geteuid() != 0:
        return "starting the daemons of SLURM and writing /etc/slurm/slurm.conf needs root"
    if "SLURM_JOB_ID" in os.environ:
        return "this is a job of a SLURM, and a second SLURM would disturb it"
    if subprocess.run(["scontrol", "ping"], capture_output=True, text=True).stdout.count(" is UP"):
        return "a SLURM controller already runs on this machine, and a second one would disturb it"
    return ""


def free_ports(count):
    """Free ports of this machine."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_until(condition, seconds, what):
    """Repeat a question; returns the first true answer, and fails if there is none in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {seconds} s")


def slurm(*command):
    """The output of a SLURM command."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr}"
    return done.stdout


def end_with_the_parent():
    """Called in a new process, which then ends with the process that started it."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Cluster:
    """The daemons, which run inside `with`.

    Args:
        partitions: their names; the first is the default one.
        accounting: function of this cluster that returns a context manager, which starts the accounting
            and yields the lines of slurm.conf that SLURM needs for it.
    """

    def __init__(self, partitions, accounting=None):
        self.partitions = partitions
        self.accounting = accounting
        self.running = {}

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            # In /tmp, because the path of a socket has at most 107 characters.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp")))
            folder.chmod(0o755)
            self.folder = folder
            stack.push(self._tell)
            stack.callback(self._stop)
            (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
            (folder / "munge.key").chmod(0o400)
            self.start(
                *("munged", "--foreground", "--force", f"--key-file={folder}/munge.key"),
                *(f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid"),
                *(f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"),
            )
            wait_until((folder / "munge.socket").exists, 20, "munged's socket")
            lines = stack.enter_context(self.accounting(self)) if self.accounting else ""
            stack.enter_context(self._configured(lines))
            self.start("slurmctld", "-D", "-c")
            wait_until(lambda: "is UP" in self._ping(), 40, "slurmctld's answer")
            self.start("slurmd", "-D", "-N", NODE)
            wait_until(lambda: "idle" in slurm("sinfo", "-h", "-o", "%T"), 60, "an idle node")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        self._stack.close()

    def _tell(self, kind, error, trace):
        """Add the output of the daemons to an error, before their folder is deleted."""
        for path in sorted(self.folder.glob("*.out")) if error else []:
            error.add_note(f"{path.name}: {path.read_text(errors='replace')[-2000:]}")

    def start(self, name, *arguments):
        """Start a daemon that ends with the tests in any case."""
        with open(self.folder / f"{name}.out", "wb") as log:
            self.running[name] = subprocess.Popen(
                [name, *arguments], stdout=log, stderr=subprocess.STDOUT, preexec_fn=end_with_the_parent
            )

    @contextlib.contextmanager
    def _configured(self, accounting):
        ctld_port, slurmd_port = free_ports(2)
        partitions = [
            f"PartitionName={name} Nodes=ALL MaxTime=INFINITE State=UP{' Default=YES' * (not number)}"
            for number, name in enumerate(self.partitions)
        ]
        values = {"mark": MARK, "node": NODE, "folder": self.folder, "accounting": accounting}
        values["host"] = socket.gethostname().partition(".")[0]
        values |= {"ctld_port": ctld_port, "slurmd_port": slurmd_port, "partitions": "\n".join(partitions)}
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        with replaced(ETC / "slurm.conf", SLURM_CONF.format(**values)):
            with replaced(ETC / "gres.conf", GRES_CONF.format(**values)):
                yield

    def _ping(self):
        return subprocess.run(["scontrol", "ping"], capture_output=True, text=True).stdout

    def _stop(self):
        if "slurmd" in self.running:
            subprocess.run(["scancel", "--user=root"], capture_output=True)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not slurm("squeue", "-h"), 20, "the end of all jobs")
        for daemon in reversed(self.running.values()):
            daemon.terminate()
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@contextlib.contextmanager
def replaced(path, text):
    """Replace a file for a while; the old file comes back, if necessary after the next test."""
    kept = path.with_name(f"{path.name}.before-the-tests")
    if path.exists() and not path.read_text().startswith(MARK):
        path.rename(kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    try:
        yield
    finally:
        path.unlink()
        if kept.exists():
            kept.rename(path)


def jobs(folder):
    """The jobs that were submitted from a folder, oldest first.

    Returns:
        A list of {field of `scontrol show job`: text}; `Comment` is the plugin's name for a job, such as
        rule_train_member_wildcards_test_metrics_0.
    """
    lines = slurm("scontrol", "show", "job", "--details", "--oneliner").splitlines()
    found = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]
    return sorted(
        (job for job in found if job.get("WorkDir") == str(folder)), key=lambda job: int(job["JobId"])
    )
