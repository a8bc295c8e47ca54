"""Kill jobs of Snakemake from inside, at known moments; Python imports this file at its start.

The folder in ZOO_FAULTS holds `armed/<name>.json` for each job to be killed: who, the moment (`start`,
`end`, `event`: before file event number `at`, `time`: after `at` seconds, `model`: before the model is
written). A job is named by its log: `train_member+metrics-0`. Each job writes a line to `journal.jsonl`
when it ends, with the number of its file events and its seconds.
"""

import atexit
import json
import os
import re
import signal
import sys
import threading
import time

# The rule's script, which Snakemake copies and puts the job's paths in front of.
SCRIPT = re.compile(r"/\.snakemake/scripts/tmp\w+\.\w+\.py$")
LOG = re.compile(rb"logs/([\w/.+-]+?)\.log")
# What makes, replaces or removes a file.
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.link", "os.truncate", "shutil.copyfile"}


def main():
    """Arm this process, if it is a job that is to be killed."""
    folder = os.environ.get("ZOO_FAULTS")
    script = next((word for word in sys.orig_argv if SCRIPT.search(word)), None)
    if not folder or not script:
        return
    with open(script, "rb") as file:
        found = LOG.search(file.read())
    if found is None:
        return
    name = "+".join(found[1].decode().split("/")[1:])
    fault, began, events = _claim(folder, name), time.monotonic(), [0]

    def fire():
        _append(folder, "kills.jsonl", {"job": name, "pid": os.getpid(), **fault})
        # The group's first process is Snakemake.
        {
            "job": lambda: os.kill(os.getpid(), signal.SIGKILL),
            "group": lambda: os.killpg(os.getpgrp(), signal.SIGKILL),
            "snakemake": lambda: os.kill(os.getpgrp(), signal.SIGKILL),
        }[fault["who"]]()

    def count(event, arguments):
        makes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+")
        if not makes and event not in EVENTS:
            return
        events[0] += 1
        if fault and fault["moment"] == "model" and "model.keras" in str(arguments[0]):
            fire()
        if fault and fault["moment"] == "event" and events[0] == fault["at"]:
            fire()

    def end():
        # A job that was faster than the moment drawn for it is killed at its end.
        if fault and not _fired(folder, name, os.getpid()):
            fire()
        seconds = time.monotonic() - began
        _append(folder, "journal.jsonl", {"job": name, "events": events[0], "seconds": seconds})

    if fault and fault["moment"] == "start":
        fire()
    if fault and fault["moment"] == "time":
        timer = threading.Timer(fault["at"], fire)
        timer.daemon = True
        timer.start()
    atexit.register(end)
    sys.addaudithook(count)


def _claim(folder, name):
    """The fault for this job; each is claimed once."""
    armed = os.path.join(folder, "armed", f"{name}.json")
    mine = os.path.join(folder, f"claimed.{name}.{os.getpid()}.json")
    try:
        os.rename(armed, mine)
    except OSError:
        return None
    with open(mine) as file:
        return json.load(file)


def _fired(folder, name, pid):
    try:
        with open(os.path.join(folder, "kills.jsonl")) as file:
            return any(f'"{name}", "pid": {pid},' in line for line in file)
    except OSError:
        return False


def _append(folder, file, content):
    line = (json.dumps(content) + "\n").encode()
    handle = os.open(os.path.join(folder, file), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(handle, line)
    os.close(handle)


main()
