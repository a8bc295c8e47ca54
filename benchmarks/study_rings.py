"""The study of the real ring galaxies: whether a backbone helps that has learned from simulations.

`survey NAME` draws a simulated survey, `arm NAME` trains the models of an arm, `write` writes the last
section of docs/rings.md from the arms that have ended. What has ended is not done again.
"""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import yaml
from pages import REPO, machine, write_section
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from study_rings_data import FOLDS, SEEDS, draw_rings_into, draw_sheet, with_folds, write_survey
from zoolib.job.gpus import mixed_policy
from zoolib.job.logs import whole
from zoolib.scores.metrics import bootstrap_weights

ARMS = yaml.safe_load((REPO / "benchmarks" / "study_rings_arms.yaml").read_text())["arms"]
# The comparison that decides, and the baseline of all other differences.
DECIDES, BASELINE = "injected", "scratch"
GALAXIES, SIZE, EDGE, VIEWS = 10_000, 224, 128, 8
RESAMPLES = 10_000
# Ends of the intervals.
LEVEL = [2.5, 97.5]


def prepare(settings):
    """Write the folds and the images with drawn rings; returns the table of the folds."""
    settings.data.mkdir(parents=True, exist_ok=True)
    rings = pd.read_csv(settings.real / "rings.csv")
    table = with_folds(rings if settings.labels is None else rings.groupby("ring").head(settings.labels // 2))
    with whole(settings.data / "rings.csv") as partial:
        table.to_csv(partial, index=False)
    draw_rings_into(table, settings.real, settings.data)
    return table


def untrained(folder, backbone, color):
    """A model folder with random weights, for the shape of networks from scratch; returns the folder."""
    import keras
    from zoolib.config.augmentations import load_augmentation
    from zoolib.job.provenance import versions
    from zoolib.learning import models
    from zoolib.learning.backbones import build_backbone

    if not (folder / "model.json").is_file():
        # As `train.mixed_precision` in study_rings.yaml does it for the pretrained arms.
        keras.config.set_dtype_policy(mixed_policy())
        network = build_backbone(backbone, EDGE, 3 if color else 1)
        keras.config.set_dtype_policy("float32")
        steps = load_augmentation(str(REPO / "benchmarks" / "study_rings_augmentation.yaml"), REPO)
        image = {"size": SIZE, "crop": 0.75, "final_size": EDGE, "color": color, "encoding": "png"}
        about = {"kind": "features", "tree": None, "labels": [], "columns": [], "image": image}
        about |= {"data": {}, "scores": {}}
        about["training"] = {"augmentation": steps, "backbone": backbone, "pretrained": "random weights"}
        folder.mkdir(parents=True, exist_ok=True)
        files = folder / "model.keras", folder / "model.json"
        models.save_model(models.join(network), {**about, "versions": versions()}, *files)
    return folder


def run_arm(name, settings):
    """Train and test the models of an arm: one for each seed and fold. A second call goes on.

    Args:
        name: a key of `ARMS`.
        settings: attributes real, data, results (folders), labels (None for all galaxies), seeds (their
            number), backbone (None for the arm's own), short (keys that replace those of the arm).
    """
    import keras
    from zoolib import api

    arm, table = ARMS[name], prepare(settings)
    folder = settings.results / "study_rings" / name
    for seed in SEEDS[: settings.seeds]:
        for fold in range(FOLDS):
            place, column = folder / f"seed{seed}" / f"fold{fold}", f"seed{seed}_fold{fold}"
            # Thirty models in one process: the graphs of those before are not needed.
            keras.utils.clear_session()
            start = _start(arm, settings, seed)
            if "injected" in arm:
                keys = {**arm["injected"], **settings.short, "split": column}
                keys |= {"table": settings.data / "injected.csv", "query": f"{column}.notna()"}
                keys |= {"label": "injected", "images": settings.data, "samples": 1}
                api.finetune("drawn", start, place / "drawn", seed=seed, **keys)
                start = place / "drawn"
            keys = {**arm["task"], **settings.short, "split": column, "views": VIEWS, "samples": 10}
            keys |= {"table": settings.data / "rings.csv", "images": settings.real}
            api.finetune("ring", start, place / "ring", seed=seed, **keys)
            probe = place / "probe.csv"
            if not probe.is_file() and not arm["task"].get("scratch"):
                found = linear_probe(start, table, column, settings.real)
                with whole(probe) as partial:
                    found.to_csv(partial, index=False)


def _start(arm, settings, seed):
    if "pretraining" in arm:
        return settings.results / f"study_rings_{arm['pretraining']}" / "train" / "metrics" / str(seed - 1)
    backbone = settings.backbone or arm.get("backbone", "resnet18")
    color = arm.get("color", False)
    return untrained(settings.data / f"{backbone}_{'colour' if color else 'grey'}", backbone, color)


def linear_probe(start, table, column, real):
    """A logistic regression on the frozen features of the model that a finetuning starts from.

    Args:
        start: a model folder.
        table: of `with_folds`.
        column: the seed and the fold; the probe learns from train and val.
        real: the folder that `file_loc` starts from.

    Returns:
        Data frame of the tested galaxies: id_str, ring_predicted (the probability).
    """
    from zoolib.learning import datasets, models
    from zoolib.learning.augment import augmentation_of
    from zoolib.learning.features import features_of_store

    model = models.load_model(start)
    model.backbone.compile(jit_compile=False)
    places = {"archive": "", "member": "", "file_loc": [str(real / path) for path in table["file_loc"]]}
    store = datasets.from_catalog(
        [table[["id_str", "ring"]].assign(**places)], ["ring"], model.about["image"]
    )
    features, _ = features_of_store(model.backbone, store, augmentation_of(model.about))
    tested = (table[column] == "test").to_numpy()
    regression = LogisticRegressionCV(Cs=np.logspace(-4, 1, 6), cv=5, scoring="neg_log_loss", max_iter=2000)
    probe = make_pipeline(StandardScaler(), regression)
    probe.fit(features[~tested], table["ring"].to_numpy()[~tested])
    predicted = probe.predict_proba(features[tested])[:, 1]
    return pd.DataFrame({"id_str": table["id_str"][tested], "ring_predicted": predicted})


def read_arm(folder, seeds=SEEDS):
    """The probabilities of the tested galaxies.

    Args:
        folder: of the arm.
        seeds: those to read.

    Returns:
        {"arm", "probe": (galaxies, seeds) probability of a ring, data frames by id_str}, and the labels
        (galaxies,); the probe is None for an arm from scratch.

    Raises:
        FileNotFoundError: the arm has not ended.
    """
    found, labels = {"arm": {}, "probe": {}}, {}
    for seed in seeds:
        for fold in range(FOLDS):
            place = folder / f"seed{seed}" / f"fold{fold}"
            table = pd.read_parquet(place / "ring" / "predicted.parquet")
            table = table[table["split"] == "test"].set_index("id_str")
            found["arm"].setdefault(seed, []).append(table["ring_predicted"])
            labels |= table["ring"].to_dict()
            if (place / "probe.csv").is_file():
                probe = pd.read_csv(place / "probe.csv", index_col="id_str")["ring_predicted"]
                found["probe"].setdefault(seed, []).append(probe)
    joined = {
        kind: pd.DataFrame({seed: pd.concat(parts) for seed, parts in of_seeds.items()}).sort_index()
        for kind, of_seeds in found.items()
    }
    return joined["arm"], joined["probe"] if found["probe"] else None, pd.Series(labels).sort_index()


def right_answers(probabilities, labels):
    """Whether each galaxy was classified rightly, (galaxies, seeds) of 0 and 1.

    Raises:
        ValueError: other galaxies than those with labels, or a galaxy that was not tested by each seed.
    """
    if not probabilities.index.equals(labels.index) or probabilities.isna().any(axis=None):
        raise ValueError("each galaxy must be tested once for each seed, in all arms.")
    return ((probabilities.to_numpy() > 0.5) == (labels.to_numpy()[:, None] > 0.5)).astype(float)


def mixed_interval(values, seed=1):
    """The mean in points, and its 95 % interval from a bootstrap over galaxies and seeds.

    Args:
        values: (galaxies, seeds).
        seed: of the resamples.

    Returns:
        (mean, low, high).
    """
    rng = np.random.default_rng(seed)
    galaxies, seeds = (bootstrap_weights(count, RESAMPLES, rng) for count in values.shape)
    means = np.einsum("rg,gs,rs->r", galaxies / values.shape[0], values, seeds / values.shape[1])
    return 100 * values.mean(), *np.percentile(100 * means, LEVEL)


def table_lines(arms):
    """Lines of the table of all arms.

    Args:
        arms: {name of the arm: what `read_arm` returns}, `BASELINE` among them.

    Returns:
        List of text.
    """
    probabilities, _, labels = arms[BASELINE]
    baseline = right_answers(probabilities, labels)
    lines = [
        "| arm | | accuracy | from `scratch` | linear probe | from its probe | mean of the seeds |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, (probabilities, probe, _) in arms.items():
        right = right_answers(probabilities, labels)
        cells = [_cell(right), "" if name == BASELINE else _cell(right - baseline, "+"), "", ""]
        if probe is not None:
            right_of_probe = right_answers(probe, labels)
            cells[2:] = [f"{100 * right_of_probe.mean():.1f}", _cell(right - right_of_probe, "+")]
        together = right_answers(probabilities.mean(axis=1).to_frame(), labels)
        shown = f"`{name}`" if name != DECIDES else f"**`{name}`**"
        lines.append(
            f"| {shown} | {ARMS[name]['title']} | {' | '.join(cells)} | {100 * together.mean():.1f} |"
        )
    return lines


def _cell(values, sign=""):
    mean, low, high = mixed_interval(values)
    return f"{mean:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


def verdict(arms):
    """The sentence about the one comparison that decides, or that it is still to come."""
    if not {DECIDES, BASELINE} <= set(arms):
        return "The comparison that decides has not ended."
    labels = arms[BASELINE][2]
    difference = right_answers(arms[DECIDES][0], labels) - right_answers(arms[BASELINE][0], labels)
    mean, low, high = mixed_interval(difference)
    established = "Simulations help." if low > 0 else "It is not established that simulations help."
    return (
        f"**{established}** `{DECIDES}` minus `{BASELINE}`, the comparison that decides: {mean:+.1f} points,"
        f" with a 95 % interval from {low:+.1f} to {high:+.1f}."
    )


def write(settings):
    """Write the section from the arms that have ended."""
    arms, hours = {}, {}
    for name in ARMS:
        folder = settings.results / "study_rings" / name
        try:
            arms[name] = read_arm(folder, SEEDS[: settings.seeds])
        except FileNotFoundError:
            continue
        if (folder / "time.json").is_file():
            hours[name] = json.loads((folder / "time.json").read_text())["seconds"] / 3600
    if BASELINE not in arms:
        print(f"docs/rings.md is written when the arm {BASELINE} has ended.")
        return
    missing = [name for name in ARMS if name not in arms]
    times = ", ".join(f"`{name}` {value:.1f}" for name, value in hours.items())
    section = [
        machine("study-rings ARM=…"),
        "",
        verdict(arms),
        "",
        "Accuracy in per cent, mean over the seeds. In brackets: 95 % intervals of the bootstrap over"
        " galaxies and seeds. The last column has one answer for each galaxy, from the mean probability of"
        " all seeds.",
        "",
        *table_lines(arms),
        "",
        f"Hours for finetuning, without the pretraining: {times}. All arms have mixed precision where the"
        " processor has instructions for bfloat16, which the section above does not name:"
        f" {mixed_policy()} here." + (f" Arms that were not run: {', '.join(missing)}." if missing else ""),
    ]
    write_section("rings.md", "Results", section)


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["survey", "arm", "write", "sheet", "pretraining"])
    parser.add_argument("name", nargs="?")
    parser.add_argument("--real", type=Path, default=REPO / "data" / "real")
    parser.add_argument("--data", type=Path, default=REPO / "data" / "study_rings")
    parser.add_argument("--results", type=Path, default=REPO / "results")
    parser.add_argument("--tiny", action="store_true", help="few galaxies and epochs, to try everything")
    given = parser.parse_args()
    tiny = {"epochs": 1, "patience": 1, "strategy": "freeze"} if given.tiny else {}
    paths = {key: getattr(given, key).absolute() for key in ("real", "data", "results")}
    settings = SimpleNamespace(**paths, short=tiny, seeds=1 if given.tiny else len(SEEDS))
    settings.labels, settings.backbone = (30, "tiny") if given.tiny else (None, None)
    if given.what == "survey":
        write_survey(settings.data, given.name, 200 if given.tiny else GALAXIES, SIZE, threads=2)
    elif given.what == "pretraining":
        # For the Makefile: what the arm starts from, empty where it starts from random weights.
        print(ARMS[given.name].get("pretraining", ""))
    elif given.what == "sheet":
        prepare(settings)
        drawn = pd.read_csv(settings.data / "injected.csv")
        draw_sheet(drawn, REPO / "docs" / "rings_drawn.png")
    elif given.what == "arm":
        run_timed(given.name, settings)
    else:
        write(settings)


def run_timed(name, settings):
    """Run an arm, and add its time to that of earlier calls."""
    import time

    path = settings.results / "study_rings" / name / "time.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text())["seconds"] if path.is_file() else 0.0
    begin = time.monotonic()
    try:
        run_arm(name, settings)
    finally:
        with whole(path) as partial:
            partial.write_text(json.dumps({"seconds": before + time.monotonic() - begin}))


if __name__ == "__main__":
    main()
