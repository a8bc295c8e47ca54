"""Accounting for the SLURM of the tests: slurmdbd on a MariaDB that runs only during the tests."""

import contextlib
import os
import shutil
import socket
import subprocess

from cluster import ETC, MARK, free_ports, replaced, wait_until

ACCOUNT = "galaxies"
DAEMONS = ("mariadbd", "slurmdbd")
SLURMDBD_CONF = """{mark}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd_port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql_port}
StorageUser=root
StorageLoc=accounts
"""
SLURM_CONF = """AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePass={folder}/munge.socket
AccountingStoragePort={dbd_port}
AccountingStorageTRES=gres/gpu,gres/gpu:v100
AccountingStoreFlags=job_comment
AccountingStorageEnforce=associations
"""


def why_not():
    """Why this machine cannot keep accounts, in one sentence; empty if it can."""
    missing = [name for name in DAEMONS if shutil.which(name) is None]
    packages = "mariadb-server-core slurmdbd slurm-wlm-mysql-plugin"
    return f"{' and '.join(missing)} not found: `apt-get install {packages}`" if missing else ""


@contextlib.contextmanager
def accounts(cluster):
    """Keep accounts; yields the lines of slurm.conf that SLURM needs for them."""
    sql_port, dbd_port = free_ports(2)
    folder = cluster.folder
    values = {"mark": MARK, "folder": folder, "sql_port": sql_port, "dbd_port": dbd_port}
    values["host"] = socket.gethostname().partition(".")[0]
    (folder / "sql").mkdir()
    # It has no password: only this machine can reach it, and it ends in minutes.
    cluster.start(
        *(
            "mariadbd",
            "--no-defaults",
            "--user=root",
            "--skip-grant-tables",
            "--innodb-buffer-pool-size=128M",
        ),
        *(f"--datadir={folder}/sql", f"--port={sql_port}", "--bind-address=127.0.0.1"),
        *(
            f"--socket={folder}/sql.socket",
            f"--pid-file={folder}/sql.pid",
            "--lc-messages-dir=/usr/share/mysql",
        ),
    )
    wait_until((folder / "sql.socket").exists, 60, "MariaDB's socket")
    with replaced(ETC / "slurmdbd.conf", SLURMDBD_CONF.format(**values)):
        # slurmdbd refuses a file that others can read.
        os.chmod(ETC / "slurmdbd.conf", 0o600)
        cluster.start("slurmdbd", "-D")
        wait_until(lambda: listens(dbd_port), 60, "slurmdbd's port")
        yield SLURM_CONF.format(**values)


def listens(port):
    """Whether a server listens on a port of this machine."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def open_account():
    """Add an account for the jobs of root, like that of a user of a cluster."""
    for what in (["account", ACCOUNT, "Description=tests"], ["user", "root", f"Account={ACCOUNT}"]):
        command = ["sacctmgr", "--immediate", "add", *what]
        wait_until(
            lambda command=command: subprocess.run(command, capture_output=True).returncode == 0, 60, what
        )
