"""The last line of long commands: their time and memory, on Linux and where only ps knows the processes."""

import os
import shutil
import subprocess
import sys

import pytest
import timed

HOLD = "held = bytearray(b'x') * 150_000_000; print('holds', flush=True); input()"


@pytest.mark.skipif(not shutil.which("ps"), reason="ps is not installed")
def test_ps_finds_the_memory_of_descendants_that_proc_shows():
    # A grandchild: the shell waits for it.
    command = ["sh", "-c", f'{sys.executable} -c "{HOLD}"; true']
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        found = {
            by.__name__: timed.memory_of_descendants(os.getpid(), by)
            for by in (timed.from_proc, timed.from_ps)
        }
        child.communicate(b"\n")
    assert min(found.values()) > 150e6
    # The ps process itself is one of the descendants.
    assert found["from_ps"] == pytest.approx(found["from_proc"], rel=0.1)
