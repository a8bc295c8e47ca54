"""The study of acquisitions: which galaxies teach a model most if volunteers classify them, by simulation.

Writes the last section of docs/acquisition.md and docs/acquisition.png from the run
results/study_acquisition/. Each finished curve is a file of the run, so that an interrupted study goes on
where it was.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from pages import REPO, machine, write_section
from scipy import special
from zoolib.config.trees import DecisionTree
from zoolib.data.tfrecords import read_sidecar
from zoolib.figures.style import COLORS, drawing
from zoolib.job.logs import whole
from zoolib.job.provenance import hash_of
from zoolib.learning import datasets
from zoolib.learning.features import features_of_store
from zoolib.learning.likelihood import TreeLoss
from zoolib.learning.models import load_model, tree_head
from zoolib.posteriors.information import VOTES, featured_information, joint_information, vote_probabilities
from zoolib.posteriors.summary import log_predictive
from zoolib.simulation.volunteers import draw_votes

# Acquisitions and their names on the page; differences are from the first.
METHODS = {"random": "at random", "sum": "the old sum", "paper": "`paper`", "joint": "`joint`"}
# Volunteers of each test galaxy.
TESTERS = 40
FEATURED = "smooth-or-featured_featured-or-disk"
# Galaxies whose information is computed at once, galaxies in a step of training, and steps from one look at
# the held-out galaxies to the next.
BLOCK, BATCH, STEPS = 1000, 64, 50


@dataclass(frozen=True)
class Settings:
    """How long and how often is learned.

    Attributes:
        seeds: how many times; each draws its own first galaxies, votes and heads.
        first: galaxies that have votes at the beginning.
        step: galaxies that get votes in a round; every galaxy gets those of `VOTES` volunteers.
        rounds: after the first training.
        test: galaxies that are not chosen from, but tested on.
        members: heads of the ensemble.
        draws: of dropout for each member.
        epochs: of `STEPS` steps each, of a training, at most.
        patience: epochs without improvement on the held-out galaxies.
    """

    seeds: int = 6
    first: int = 200
    step: int = 200
    rounds: int = 9
    test: int = 2000
    members: int = 3
    draws: int = 5
    epochs: int = 40
    patience: int = 4


SMALL = Settings(seeds=2, first=60, step=60, rounds=2, test=500, members=2, draws=3, epochs=4, patience=2)


@dataclass(frozen=True)
class Survey:
    """Galaxies that the backbone has not learned from, as it sees them.

    Attributes:
        names: (galaxies,) id_str.
        features: (galaxies, features) float32.
        true: (galaxies, answers of all questions), the probabilities of the volunteers' answers.
        tree: the `DecisionTree`.
        dropout: of the run's head.
    """

    names: np.ndarray
    features: np.ndarray
    true: np.ndarray
    tree: DecisionTree
    dropout: float

    def votes(self, volunteers, seed):
        """Draw the votes of so many volunteers for each galaxy; (galaxies, answers)."""
        totals = np.full(len(self.names), volunteers)
        return draw_votes(self.tree, self.true, totals, np.random.default_rng(seed))


def read_survey(run):
    """The galaxies of the run's test split, and what the backbone of its model makes of them.

    Args:
        run: folder of the run.

    Returns:
        (`Survey`, checksum of the model).
    """
    model = load_model(run / "train" / "metrics" / "0")
    abouts = sorted((run / "shards" / "test").glob("*.json"))
    shards = [about.with_suffix(".tfrecord") for about in abouts]
    store = datasets.from_shards(shards, [read_sidecar(about) for about in abouts], model.about["image"])
    names = [name.decode() for ids, *_ in datasets.stored_batches(store, 256) for name in ids.numpy()]
    features, _ = features_of_store(model.backbone, store, model.about["training"]["augmentation"])
    truth = pd.read_parquet(run / "download" / "truth.parquet").set_index("id_str")
    true = truth.loc[names, model.tree.columns].to_numpy(float)
    dropout = model.about["training"]["dropout"]
    return Survey(np.array(names), features, true, model.tree, dropout), model.about["checksums"]


class Learner:
    """An ensemble of heads that is trained again and again, each time from new weights.

    Args:
        survey: a `Survey`.
        settings: `Settings`.
    """

    def __init__(self, survey, settings):
        self.survey, self.settings = survey, settings
        self.head = tree_head(survey.features.shape[1], survey.tree, survey.dropout)
        optimizer = keras.optimizers.Adam(0.002)
        self.head.compile(optimizer, TreeLoss(survey.tree), jit_compile=False, steps_per_execution=STEPS)
        optimizer.build(self.head.trainable_variables)
        self.began = [variable.numpy() for variable in optimizer.variables]

    def learn(self, rows, votes, seed):
        """Train on some galaxies; a fifth of them only says when to stop.

        Args:
            rows: places of the galaxies.
            votes: (galaxies, answers) of these.
            seed: of weights, division and order.

        Returns:
            The weights of each member.
        """
        found, features, votes = [], self.survey.features[rows], np.asarray(votes, np.float32)
        for member in range(self.settings.members):
            self._start_again(1000 * seed + member)
            order = np.random.default_rng([seed, member]).permutation(len(rows))
            held, learned = np.split(order, [len(rows) // 5])
            epochs = range(-(-self.settings.epochs * STEPS * BATCH // len(learned)))
            batches, _ = datasets.array_batches(features[learned], votes[learned], BATCH, seed, epochs)
            stopping = keras.callbacks.EarlyStopping(
                patience=self.settings.patience, restore_best_weights=True
            )
            self.head.fit(
                batches,
                validation_data=(features[held], votes[held]),
                validation_batch_size=len(held),
                epochs=self.settings.epochs,
                steps_per_epoch=STEPS,
                callbacks=[stopping],
                shuffle=False,
                verbose=0,
            )
            found.append(self.head.get_weights())
        return found

    def _start_again(self, seed):
        keras.utils.set_random_seed(seed)
        self._seed_dropout(seed)
        # A new head, or a new optimizer, would be traced again.
        for variable, value in zip(self.head.optimizer.variables, self.began, strict=True):
            variable.assign(value)
        for layer in self.head.layers:
            if layer.weights:
                layer.kernel.assign(layer.kernel_initializer(layer.kernel.shape))
                layer.bias.assign(layer.bias_initializer(layer.bias.shape))

    def _seed_dropout(self, seed):
        for layer in self.head.layers:
            if hasattr(layer, "seed_generator"):
                layer.seed_generator.state.assign(np.array([seed, 0]))

    def predict(self, members, rows, seed):
        """Concentrations (galaxies, answers, samples); a sample is a draw of dropout of one member."""
        self._seed_dropout(seed)
        found = []
        for weights in members:
            self.head.set_weights(weights)
            for _ in range(self.settings.draws):
                found.append(np.asarray(self.head(self.survey.features[rows], training=True)))
        return np.stack(found, axis=2).astype(float)


def marginal_information(values, tree):
    """The information of each answer's votes on its own, if ten volunteers are asked each question.

    Earlier versions ranked by its sum over all answers.

    Args:
        values: (galaxies, answers, samples).
        tree: a `DecisionTree`.

    Returns:
        (galaxies, answers) in nats.
    """
    each = [
        vote_probabilities(values[:, :, [sample]], tree, tree.columns, VOTES)
        for sample in range(values.shape[2])
    ]
    own = np.mean([special.entr(chances).sum(axis=2) for chances in each], axis=0)
    return special.entr(np.mean(each, axis=0)).sum(axis=2) - own


def gains(method, values, names, tree):
    """How much each galaxy should teach, by one of `METHODS`; (galaxies,).

    Galaxies are in random order, so `random` takes them as they come.
    """
    if method == "random":
        return np.zeros(len(values))
    if method == "paper":
        return featured_information(values, tree)
    if method == "sum":
        return marginal_information(values, tree).sum(axis=1)
    return joint_information(values, tree, names)[0].sum(axis=1)


def loss_of(values, votes, tree):
    """Mean loss of the votes, summed over questions, in nats a galaxy."""
    return -sum(log_predictive(votes[:, q.slice], values[:, q.slice]).mean() for q in tree.questions)


def learn_actively(learner, method, seed):
    """One curve: train, choose galaxies, let volunteers classify them, train again from new weights.

    Args:
        learner: a `Learner`.
        method: one of `METHODS`.
        seed: the first galaxies, and the votes that galaxies get, are the same for all methods.

    Returns:
        Data frame: method, seed, volunteers (how many were asked until then), loss (of the votes on the test
        galaxies), featured (mean true share of featured answers among the galaxies learned from).
    """
    survey, settings = learner.survey, learner.settings
    test, pool = np.split(np.random.default_rng(0).permutation(len(survey.names)), [settings.test])
    if len(pool) < settings.first + settings.rounds * settings.step:
        raise ValueError(f"{len(pool)} galaxies to choose from, fewer than the study wants to learn from.")
    testers, votes = survey.votes(TESTERS, 0)[test], survey.votes(VOTES, [1, seed])
    pool = np.random.default_rng([2, seed]).permutation(pool)
    chosen, left = pool[: settings.first], pool[settings.first :]
    featured, rows = survey.tree.columns.index(FEATURED), []
    for number in range(settings.rounds + 1):
        members = learner.learn(chosen, votes[chosen], 100 * seed + number)
        loss = loss_of(learner.predict(members, test, number), testers, survey.tree)
        share = survey.true[chosen, featured].mean()
        rows.append((method, seed, VOTES * len(chosen), loss, share))
        if number == settings.rounds:
            break
        values, found = learner.predict(members, left, 1000 + number), []
        for start in range(0, len(left), BLOCK):
            block = slice(start, start + BLOCK)
            found.append(gains(method, values[block], survey.names[left[block]], survey.tree))
        best = np.argsort(-np.concatenate(found), kind="stable")
        chosen = np.concatenate([chosen, left[best[: settings.step]]])
        left = left[np.sort(best[settings.step :])]
    return pd.DataFrame(rows, columns=["method", "seed", "volunteers", "loss", "featured"])


def curves(run, settings):
    """All curves; those that an earlier call has finished are read.

    Args:
        run: folder of the run; curves of other models or settings are in other folders below.
        settings: `Settings`.

    Returns:
        Data frame, the columns of `learn_actively`.
    """
    survey, model = read_survey(run)
    folder = run / "acquisition" / hash_of([asdict(settings), model])
    folder.mkdir(parents=True, exist_ok=True)
    learner, found = Learner(survey, settings), []
    # Seed by seed, so that an unfinished study has the same seeds of all methods.
    for seed in range(settings.seeds):
        for method in METHODS:
            path = folder / f"{method}-{seed}.csv"
            if not path.exists():
                curve = learn_actively(learner, method, seed)
                with whole(path) as partial:
                    curve.to_csv(partial, index=False)
            found.append(pd.read_csv(path))
            print(f"{method} {seed}: {', '.join(f'{loss:.3f}' for loss in found[-1]['loss'])}", flush=True)
    return pd.concat(found, ignore_index=True)


def volunteers_for(losses, goal):
    """How many volunteers a mean curve needs for a loss, by linear interpolation; NaN if it never has it.

    Args:
        losses: Series, volunteers -> loss.
        goal: the loss.

    Returns:
        float.
    """
    below = np.flatnonzero(losses.to_numpy() <= goal)
    if not len(below):
        return np.nan
    last = below[0]
    if last == 0:
        return float(losses.index[0])
    (x0, x1), (y0, y1) = losses.index[last - 1 : last + 1], losses.to_numpy()[last - 1 : last + 1]
    return float(x0 + (x1 - x0) * (y0 - goal) / (y0 - y1))


def table_lines(found):
    """Lines of a table: loss after half and after all rounds, and the difference from random choice.

    Args:
        found: of `curves`.

    Returns:
        List of text.
    """
    losses = found.pivot(index=["seed", "volunteers"], columns="method", values="loss")
    steps = sorted(found["volunteers"].unique())
    shown = [steps[len(steps) // 2], steps[-1]]
    heading = " | ".join(f"loss, {count:,} volunteers | difference" for count in shown)
    lines = [
        f"| chosen | {heading} | volunteers for the last loss of random choice | featured |",
        f"| --- | {'---: | ' * (2 * len(shown) + 2)}".rstrip(),
    ]
    goal = losses["random"].unstack().mean()[steps[-1]]
    for method, name in METHODS.items():
        cells = []
        for count in shown:
            own, random = (losses[each].unstack()[count] for each in (method, "random"))
            error = (own - random).std(ddof=1) / np.sqrt(len(own))
            cells += [f"{own.mean():.3f} ± {own.std(ddof=1):.3f}"]
            cells += ["" if method == "random" else f"{(own - random).mean():+.3f} ± {error:.3f}"]
        needed = volunteers_for(losses[method].unstack().mean(), goal)
        cells.append("more" if np.isnan(needed) else f"{needed:,.0f}")
        last = found[(found["method"] == method) & (found["volunteers"] == steps[-1])]
        lines.append(f"| {name} | {' | '.join(cells)} | {last['featured'].mean():.0%} |")
    return lines


def draw(found, output):
    """Draw the loss against the number of volunteers, with the spread over seeds.

    Args:
        found: of `curves`.
        output: PNG to write.
    """
    with drawing([output], figsize=(9, 6), layout="constrained") as figure:
        panel = figure.subplots()
        for (method, name), color in zip(METHODS.items(), COLORS, strict=False):
            of_method = found[found["method"] == method].groupby("volunteers")["loss"]
            mean, spread = of_method.mean(), of_method.std(ddof=1)
            panel.plot(mean.index, mean, "o-", color=color, label=name.replace("`", ""))
            panel.fill_between(mean.index, mean - spread, mean + spread, color=color, alpha=0.15, lw=0)
        panel.set_xlabel("volunteers asked")
        panel.set_ylabel("test loss (nats a galaxy)")
        panel.legend()


def study(run, settings):
    """Run what is not finished, and write the section and the figure."""
    found = curves(run, settings)
    count = found["seed"].nunique()
    section = [
        machine("study-acquisition"),
        "",
        f"Mean and standard deviation over {count} seeds; differences from random choice seed by seed, with"
        f" the standard error of their mean. The loss is that of {TESTERS} volunteers on each of"
        f" {settings.test:,} test galaxies, nats a galaxy; lower is better. *featured*: mean share of true"
        " featured answers among all galaxies that were learned from at the end.",
        "",
        *table_lines(found),
        "",
        "![Loss against the number of volunteers](acquisition.png)",
    ]
    write_section("acquisition.md", "Results", section)
    draw(found, REPO / "docs" / "acquisition.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=REPO / "results" / "study_acquisition")
    parser.add_argument("--small", action="store_true", help="a minute's try that writes no page")
    arguments = parser.parse_args()
    if arguments.small:
        print("\n".join(table_lines(curves(arguments.run, SMALL))))
    else:
        study(arguments.run, Settings())
