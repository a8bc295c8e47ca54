"""Two calls at once: in one folder, of two runs, and a prediction while its model is replaced."""

import json
import shutil
import subprocess
import sys
import time

import pandas as pd
from changes import MEMBER, RESULTS, Row
from pipeline import overlay
from runs import CHAIN, HERE, Call, Lost, differences, last_words, new_copy, reference

SHARDS, CATALOG = "results/{}/shards/rejected.csv", "results/{}/catalog/train.parquet"


def two_calls_in_one_folder(place, chance):
    """The second call says that the folder is in use and ends; the first ends undisturbed."""
    repo = _with_downloads(new_copy(place / "repo"), "test")
    first = Call(repo, SHARDS.format("test"), *CHAIN)
    wait_for(lambda: "Execute" in first.shown, 120, "the first call starts its jobs")
    time.sleep(chance.uniform(0, 3))
    command = [sys.executable, "-m", "snakemake", "--cores", "1", SHARDS.format("test"), *CHAIN]
    second = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=120)
    status, shown = first.wait()
    said = second.stdout + second.stderr
    if second.returncode == 0 and "Nothing to be done" not in said:
        raise Lost("both calls did the work")
    if second.returncode and "lock" not in said.lower():
        raise Lost(f"the second call says nothing of a lock: {last_words(said)}")
    if "Traceback" in said:
        raise Lost(f"the second call shows a traceback: {last_words(said)}")
    if status:
        raise Lost(f"the first call ended with {status}: {last_words(shown)}")
    if found := differences(repo, None, f"{RESULTS}/shards"):
        raise Lost(f"shards differ from the undisturbed ones: {found[:3]}")


def two_runs_side_by_side(place, chance):
    """Two runs of different names end like each of them alone."""
    repo = _with_downloads(new_copy(place / "repo"), "test")
    _with_downloads(repo, "other")
    other = overlay(place, "other", {"run": "other", "finetune": {"tasks": []}})
    calls = []
    for name, more in (("test", ()), ("other", (other,))):
        calls.append(Call(repo, CATALOG.format(name), *CHAIN, *more, log=f"{name}.log"))
        time.sleep(chance.uniform(0, 2))
    for call in calls:
        status, shown = call.wait()
        if status:
            raise Lost(f"one of two runs ended with {status}: {last_words(shown)}")
    if found := differences(repo, None, f"{RESULTS}/catalog"):
        raise Lost(f"the first run differs from the undisturbed one: {found[:3]}")
    for path in sorted((repo / "results/other/catalog").glob("*.parquet")):
        ours = pd.read_parquet(path)
        # Each run has its own images.
        ours["archive"] = ours["archive"].str.replace("results/other/", f"{RESULTS}/")
        if not ours.equals(pd.read_parquet(repo / RESULTS / "catalog" / path.name)):
            raise Lost(f"{path.name} of the second run differs from the first run's")


def replace_the_model(place, chance):
    """A model folder that is replaced while it is loaded gives the old or the new model, never a mixture."""
    import keras
    from zoolib.learning import models

    folder = place / "model"
    shutil.copytree(reference() / MEMBER, folder)
    about = json.loads((folder / "model.json").read_text())
    network = models.load_model(folder).network
    for name in ("old", "new"):
        # The weights and the description of each say which one it is.
        for weight in network.weights:
            weight.assign(keras.ops.full_like(weight, 1 if name == "old" else 2))
        (place / name).mkdir()
        contents = {**about, "training": {**about["training"], "number": name}}
        models.save_model(network, contents, place / name / "model.keras", place / name / "model.json")
    # Some loads must fit between two replacements, on a slow machine too.
    begin = time.monotonic()
    models.load_model(folder)
    pause = 2 * (time.monotonic() - begin)
    command = [sys.executable, HERE / "replace.py", str(place), str(chance.random()), str(pause)]
    replacing = subprocess.Popen(command)
    try:
        seen = _loaded(folder, max(8, 20 * pause))
    finally:
        replacing.kill()
        replacing.wait()
    if not seen:
        raise Lost(f"no model could be loaded, with {pause:.1f} s between replacements at most")


def _loaded(folder, seconds):
    """Load the model again and again; which ones were seen.

    Raises:
        Lost: weights of one model with the description of the other, or an error that is no message.
    """
    from zoolib.job.logs import UserError
    from zoolib.learning import models

    seen, end = set(), time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            model = models.load_model(folder)
        except UserError:
            continue
        except Exception as error:
            raise Lost(f"loading ended with {type(error).__name__}: {error}") from None
        values = {float(weight.numpy().flat[0]) for weight in model.network.trainable_weights}
        named = {"old": 1.0, "new": 2.0}[model.about["training"]["number"]]
        if values != {named}:
            raise Lost(f"the description of one model came with weights of the other ({values}, not {named})")
        seen.add(named)
    return seen


def wait_for(condition, seconds, what):
    """Wait until something is so.

    Raises:
        Lost: it was not so in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Lost(f"waited {seconds} s in vain: {what}")
        time.sleep(0.1)


def _with_downloads(repo, run):
    """Put the downloaded files of the undisturbed run into a repository."""
    shutil.copytree(reference() / RESULTS / "download", repo / f"results/{run}/download")
    return repo


ROWS = (
    Row("two calls in one folder", {"the same run": two_calls_in_one_folder}),
    Row("two runs side by side", {"different names": two_runs_side_by_side}),
    Row("a model is replaced while it is read", {"its two files": replace_the_model}),
)
