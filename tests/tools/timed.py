"""Run a command. The last line is its name, its time and the peak memory of all its processes."""

import os
import subprocess
import sys
import threading
import time

PAGE = os.sysconf("SC_PAGE_SIZE")


def from_proc():
    """(process, parent, resident bytes) of every process, as Linux says."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            yield int(entry), int(fields[1]), int(fields[21]) * PAGE


def from_ps():
    """The same where there is no /proc, as on a Mac; slower."""
    shown = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,rss="], capture_output=True, text=True).stdout
    for line in shown.splitlines():
        process, parent, kilobytes = map(int, line.split())
        yield process, parent, kilobytes * 1024


PROCESSES = from_proc if os.path.isdir("/proc/self") else from_ps


def memory_of_descendants(root, processes=PROCESSES):
    """Resident memory in bytes of a process and all its descendants."""
    parents, resident = {}, {}
    for process, parent, size in processes():
        parents[process], resident[process] = parent, size
    total = 0
    for process in resident:
        ancestor = process
        while ancestor in parents and ancestor != root:
            ancestor = parents[ancestor]
        total += resident[process] if ancestor == root else 0
    return total


def main(name, command):
    """Run the command and print its time and memory; returns its exit status."""
    start, peak = time.monotonic(), 0
    process = subprocess.Popen(command)
    ended = threading.Event()

    def watch():
        nonlocal peak
        while not ended.wait(0.5):
            peak = max(peak, memory_of_descendants(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        status = process.wait()
    except KeyboardInterrupt:
        status = process.wait()
    ended.set()
    watcher.join()
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    verdict = "" if status == 0 else " (failed)"
    print(f"{name}{verdict}: {minutes} min {seconds} s, peak {peak / 1e9:.1f} GB", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
