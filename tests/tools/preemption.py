"""Cut trainings at random moments, continue them, and compare them with trainings without cuts.

`python tests/tools/preemption.py CUTS SEED` prints each cut, and for each training its attempts and the
largest difference of any weight. It needs no SLURM: the processes are those of the pipeline's jobs. They get
SIGTERM (as by scancel, preemption, wall time) or SIGKILL (as a job that does not end in time).
"""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO / "workflow" / "scripts"), str(REPO / "tests" / "support")]

# The most epochs that an attempt trains before a cut, and those that it may train until the signal comes.
AHEAD, LATE = 3, 2
# The share of cuts in the first seconds (imports, reading, tracing), and how many seconds these are.
EARLY, FIRST_SECONDS = 0.3, 6.0


def train(kind, data, folder, epochs):
    """Do what a job of the pipeline does: continue one training, or start it, and train to the end."""
    from zoolib.job.logs import log_to

    with log_to(folder / "job.log"):
        if kind == "train":
            from stored import train_member

            # With this patience early stopping counts epochs, but never stops.
            settings = {"schedule": "cosine", "warmup_epochs": 2, "patience": epochs}
            train_member(data, folder, epochs=epochs, **settings)
        else:
            from finetuned import run_finetuning

            first = epochs // 2
            strategy = {"name": "two_stage", "epochs": epochs - first, "patience": epochs}
            strategy["learning_rate"] = 0.001
            settings = {"schedule": "cosine", "warmup_epochs": 1, "patience": epochs}
            run_finetuning(
                data / "labelled", data / "model", folder, strategy=strategy, epochs=first, **settings
            )


def prepare(folder):
    """Galaxies, labels for them, and a model to finetune."""
    from finetuned import BRIGHT, write_labelled
    from stored import train_member, write_stored

    write_stored(folder)
    (folder / "labelled").mkdir()
    write_labelled(folder, folder / "labelled", [BRIGHT], {"bright": lambda b: b})
    train_member(folder, folder / "model", epochs=1)


def start(kind, data, folder, epochs):
    """Start a job in a new process."""
    (folder / "job.log").unlink(missing_ok=True)
    command = [sys.executable, __file__, "--train", kind, str(data), str(folder), str(epochs)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(process, folder):
    """Wait for the end of a job that is not cut."""
    if process.wait():
        raise SystemExit(f"A training failed: {(folder / 'job.log').read_text()}")


def epochs_of(folder):
    """The epochs that a job has trained in this attempt so far."""
    try:
        return len(re.findall(r" epoch \d+: ", (folder / "job.log").read_text()))
    except FileNotFoundError:
        return 0


def cut(process, folder, chance, epoch_seconds):
    """End a job at a random moment.

    Args:
        process: the job.
        folder: of the training.
        chance: random.Random.
        epoch_seconds: how long an epoch takes.

    Returns:
        (name of the signal, the moment in words, epochs trained); None if the job had already ended.
    """
    kind = chance.choice([signal.SIGTERM, signal.SIGKILL])
    if chance.random() < EARLY:
        wanted, wait = 0, chance.uniform(0, FIRST_SECONDS)
    else:
        wanted, wait = chance.randint(1, AHEAD), chance.uniform(0, epoch_seconds)
    while epochs_of(folder) < wanted and process.poll() is None:
        time.sleep(0.005)
    began = time.monotonic()
    while time.monotonic() < began + wait and process.poll() is None:
        time.sleep(0.005)
    if process.poll() is not None:
        return None
    process.send_signal(kind)
    process.wait()
    done = epochs_of(folder)
    return kind.name, f"{wait:5.2f} s after {f'its epoch {wanted}' if wanted else 'its start'}", done


def history_of(folder):
    """The history of a training that has ended."""
    import pandas as pd

    return pd.read_csv(folder / "history.csv")


def largest_difference(one, other):
    """The largest difference of any weight of two model folders, and whether the histories are the same."""
    import numpy as np
    from zoolib.learning import models

    weights = [models.load_model(folder).network.get_weights() for folder in (one, other)]
    histories = [history_of(folder).drop(columns="seconds") for folder in (one, other)]
    difference = max(float(np.abs(a - b).max()) for a, b in zip(*weights, strict=True))
    return difference, histories[0].equals(histories[1])


def compare(kind, cuts, chance, data, folder, say):
    """Train once without cuts and once with them.

    Returns:
        (the largest difference of any weight, whether the histories are the same, attempts).
    """
    epochs = max(4, cuts * (AHEAD + LATE))
    whole, torn = folder / f"{kind}-whole", folder / f"{kind}-cut"
    for each in (whole, torn):
        each.mkdir()
    finish(start(kind, data, whole, epochs), whole)
    epoch_seconds = history_of(whole)["seconds"].median()
    for number in range(1, cuts + 1):
        process = start(kind, data, torn, epochs)
        found = cut(process, torn, chance, epoch_seconds)
        if found is None:
            raise SystemExit(
                f"{kind}: ended (status {process.returncode}) before cut {number}, see {torn}/job.log"
            )
        say(f"{kind:9} cut {number:2}: {found[0]} {found[1]:26} {found[2]} epochs trained in this attempt")
    finish(start(kind, data, torn, epochs), torn)
    return *largest_difference(whole, torn), cuts + 1


def main(cuts, seed):
    """Cut a training and a finetuning, each with half of the cuts; returns the exit status."""
    chance, say = random.Random(seed), partial(print, flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data"
        data.mkdir()
        prepare(data)
        told = []
        for kind, share in (("train", cuts - cuts // 2), ("finetune", cuts // 2)):
            difference, same, attempts = compare(kind, share, chance, data, folder, say)
            told.append((difference, same))
            histories = "the same history" if same else "ANOTHER HISTORY"
            say(f"{kind}: {attempts} attempts, largest difference of any weight {difference:g}, {histories}")
    return int(any(difference > 0 or not same for difference, same in told))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if sys.argv[1] == "--train":
        train(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]))
    else:
        sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
