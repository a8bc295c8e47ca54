"""Accounts for the SLURM of the tests: slurmdbd over a MariaDB that is there for their time."""

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
    """Why no accounts can be kept here, in a sentence; empty where they can."""
    missing = [name for name in DAEMONS if shutil.which(name) is None]
    packages = "mariadb-server-core slurmdbd slurm-wlm-mysql-plugin"
    return f"{' and '.join(missing)} not found: `apt-get install {packages}`" if missing else ""


@contextlib.contextmanager
def accounts(cluster):
    """Keep accounts; gives the lines of slurm.conf that lead to them."""
    sql_port, dbd_port = free_ports(2)
    folder = cluster.folder
    values = {"mark": MARK, "folder": folder, "sql_port": sql_port, "dbd_port": dbd_port}
    values["host"] = socket.gethostname().partition(".")[0]
    (folder / "sql").mkdir()
    # Nobody else knows of it, and it is gone in minutes: it asks for no password.
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
        # slurmdbd reads no other.
        os.chmod(ETC / "slurmdbd.conf", 0o600)
        cluster.start("slurmdbd", "-D")
        wait_until(lambda: listens(dbd_port), 60, "slurmdbd's port")
        yield SLURM_CONF.format(**values)


def listens(port):
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def open_account():
    """An account that root may send jobs on, as each user of a cluster has one."""
    for what in (["account", ACCOUNT, "Description=tests"], ["user", "root", f"Account={ACCOUNT}"]):
        command = ["sacctmgr", "--immediate", "add", *what]
        wait_until(
            lambda command=command: subprocess.run(command, capture_output=True).returncode == 0, 60, what
        )
