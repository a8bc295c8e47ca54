"""What a run makes: its tasks, trainings, encoders and targets, as they follow from its configuration."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from zoolib.config.augmentations import load_augmentations
from zoolib.config.published import changed_rules, other_galaxies, read_published
from zoolib.config.recipes import complete_head
from zoolib.config.schema import check_configuration
from zoolib.config.starts import encoders_of, fit_of, model_folder
from zoolib.config.strategies import fingerprint_of_plans
from zoolib.config.tasks import file_of_url, fit_names, is_scored, label_count_of, task_labels
from zoolib.config.trees import DecisionTree

# Settings of a task that its trainings depend on; the others say which galaxies and labels it has.
TRAINING = (
    "head",
    "learning_rate",
    "batch_size",
    "epochs",
    "patience",
    "strategy",
    "train_bn",
    "augment",
    "smoothing",
    "optimizer",
    "schedule",
    "warmup_epochs",
    "weight_decay",
    "clip_norm",
    "normalise",
)
# Settings of a task that choose its galaxies and their labels.
GALAXIES = ("folders", "labels", "missing", "balance", "split", "group", "folds")


@dataclass(frozen=True)
class Run:
    """A configuration and what follows from it; nothing here changes the configuration.

    Attributes:
        config: the configuration, checked and with all defaults.
        folder: the repository's `config/`, with trees, augmentations and published numbers.
        trees: {name of a catalogue: its `DecisionTree`}.
        augmentations: the run's own augmentation, and after it the other known ones.
        published: the published numbers that the run is compared with, or None.
    """

    config: dict
    folder: Path
    trees: dict
    augmentations: list
    published: dict | None

    @property
    def name(self):
        """The name of the run; its results lie in `results/<name>/`."""
        return self.config["run"]

    @cached_property
    def tree(self):
        """The trees of all campaigns in one `DecisionTree`."""
        return DecisionTree.union(list(self.trees.values()))

    def table_tree(self, catalog):
        """The tree of a catalogue as far as its table needs it: cuts have no part in the votes."""
        tree = self.trees[catalog]
        return {**tree.without_title(), "published": tree.published}

    @cached_property
    def exports(self):
        """The catalogues whose votes are counted in exports of Zooniverse projects, {name: entry}."""
        return {entry["name"]: entry for entry in self.config["catalogs"] if entry["zooniverse"]}

    def counting(self, catalog):
        """The settings by which the votes of a catalogue are counted in an export."""
        entry = self.exports[catalog]
        asked = {key: entry["zooniverse"][key] for key in ("workflow", "versions")}
        return {**asked, "id": entry["id"], "location": entry["location"]}

    def counted_tree(self, catalog):
        """The tree of a catalogue as far as counting votes needs it."""
        tree = self.trees[catalog]
        return {**tree.without_title(), "zooniverse": tree.zooniverse}

    @property
    def manifests(self):
        """The targets whose galaxies may be uploaded to a Zooniverse project.

        Those of a split have votes, and shards do not say where the images are.
        """
        if not self.config["predict"]["manifest"]:
            return []
        return [name for name, entry in self.targets.items() if not {"split", "shards"} & set(entry)]

    def known_tree(self, name):
        """A `DecisionTree` of `config/trees/`."""
        return DecisionTree.load(self.folder / "trees" / f"{name}.yaml")

    @cached_property
    def is_comparable(self):
        """Whether the run scores the questions and answers that the published numbers are about."""
        if not self.published or not self.config["evaluate"]["target"]:
            return False
        published = self.known_tree(self.published["tree"])
        return published.to_dict()["questions"] == self.tree.to_dict()["questions"]

    @property
    def has_other_galaxies(self):
        """What sets the galaxies of the run apart from the published ones; empty where nothing does."""
        return other_galaxies(self.published, self.config)

    @property
    def why_not_comparable(self):
        """What sets the scores of the run apart from the published ones; empty where only the models do."""
        return self.has_other_galaxies or changed_rules(
            self.published, self.config["evaluate"], self.config["catalogs"]
        )

    @cached_property
    def ensembles(self):
        """{name: the entry of `train.ensembles`}."""
        return {entry["name"]: entry for entry in self.config["train"]["ensembles"]}

    @cached_property
    def targets(self):
        """{name: the entry of `predict.targets`}."""
        return {entry["name"]: entry for entry in self.config["predict"]["targets"]}

    @cached_property
    def searches(self):
        """{name: the entry of `search`}."""
        return {entry["name"]: entry for entry in self.config["search"]}

    @cached_property
    def tasks(self):
        """{name: the entry of `finetune.tasks`, completed as `complete_task` does}."""
        return {
            entry["name"]: complete_task(entry, self.config, self.folder / "trees")
            for entry in self.config["finetune"]["tasks"]
        }

    @cached_property
    def encoders(self):
        """The pretrained backbones to import, {name of the folder: arguments of `import_backbone`}."""
        return encoders_of(self.config)

    @cached_property
    def training(self):
        """The section `train` as a training takes it: steps of augmentation, and a folder to start from."""
        train = {**self.config["train"], "augmentation": self.augmentations[0]}
        if train["pretrained"]:
            train["pretrained"] = model_folder(train["pretrained"], self.config, self.config["image"])
        unused = {"ensembles"} if train["head"] == "dirichlet_mixture" else {"ensembles", "components"}
        return {key: value for key, value in train.items() if key not in unused}

    @property
    def stored_image(self):
        """The keys of the section `image` that the pixels in a shard depend on; a view is cut out later."""
        views = ("crop", "final_size")
        return {key: value for key, value in self.config["image"].items() if key not in views}

    @cached_property
    def used_ensembles(self):
        """The ensembles that a target or a task needs, {name: entry}.

        A run that only predicts with finished models trains none, and fetches no votes.
        """
        used = {entry["ensemble"] for entry in [*self.targets.values(), *self.tasks.values()]}
        return {name: entry for name, entry in self.ensembles.items() if name in used}

    def training_of_ensemble(self, ensemble):
        """The settings that an ensemble's members depend on: of `training`, and its pretext."""
        pretext = self.ensembles[ensemble]["pretext"]
        return self.training | ({"pretext": pretext} if pretext else {})

    @property
    def recalibrates(self):
        """Whether the run makes recalibrations of its members, which only concentrations can have."""
        return self.config["predict"]["recalibrate"] and self.config["train"]["head"] != "multinomial"

    @cached_property
    def fits(self):
        """The finetunings whose models are to be used: each task itself, or its folds."""
        return [fit_of(task, name) for task in self.tasks for name in self.scored_fits(task)]

    @cached_property
    def counted_tasks(self):
        """The tasks whose scores are followed with the number of labels."""
        return [name for name, task in self.tasks.items() if task["label_counts"]]

    def fit_names(self, task):
        """Names of a task's finetunings; "" is the task itself."""
        return fit_names(self.tasks[task])

    def scored_fits(self, task):
        """Names of the finetunings that a task's scores are about: its folds, or itself ("")."""
        return [name for name in self.fit_names(task) if is_scored(name)]

    def counted_fits(self, task):
        """Names of a task's finetunings on some of its labels only."""
        return [name for name in self.fit_names(task) if label_count_of(name)]

    def scratch_fits(self, task):
        """Names of the trainings from random weights that a task's scores are compared with; may be none."""
        other = {*self.scored_fits(task), *self.counted_fits(task)}
        return [name for name in self.fit_names(task) if name not in other]

    def task_of(self, fit):
        """The task of a finetuning such as `ring/fold0`, or None where no task has that name."""
        return self.tasks.get(fit.partition("/")[0])

    def fit_in_task(self, fit):
        """The name of a finetuning within its task, such as `fold0` for `ring/fold0`."""
        return fit.partition("/")[2]

    def training_of(self, fit):
        """What a finetuning depends on besides its galaxies and the model that it starts from.

        Args:
            fit: such as `ring` or `ring/fold0`; its name seeds it.

        Returns:
            The settings of `TRAINING` with their values, and `name`; `head` is as `complete_head` gives it.
        """
        task = self.task_of(fit)
        training = {"name": fit, **{key: task[key] for key in TRAINING}}
        return {**training, "head": complete_head(task["head"])}

    def plans_of(self, fit):
        """A hash of the stages that a finetuning's strategy plans: a strategy of one's own can be edited."""
        task = self.task_of(fit)
        strategy = "no_freeze" if self.starts_from_scratch(fit) else task["strategy"]
        return fingerprint_of_plans(strategy, self.training_of(fit))

    def listed_kind(self, target):
        """What a target names that its galaxies are listed from: images, archives, a catalog or shards."""
        kinds = ("images", "archives", "catalog", "shards")
        return next(kind for kind in kinds if kind in self.targets[target])

    def listed_images(self, target):
        """The folder of images that a target names, without a slash at its end; None without a folder."""
        images = self.targets[target].get("images")
        return images and os.path.normpath(images)

    def listing(self, target):
        """How a target is listed: with its `id` and `location`, and a folder in how many chunks."""
        entry = self.targets[target]
        listing = {"columns": [entry["id"], entry["location"]]}
        return listing | ({"chunks": self.config["predict"]["chunks"]} if "images" in entry else {})

    @property
    def catalog_suffixes(self):
        """Suffixes of the files that have the complete flat catalogue of a target."""
        return ["vot" if form == "votable" else form for form in self.config["predict"]["catalog"]["format"]]

    def name_column(self, target):
        """The column of the galaxies' names in the tables of a target, where the configuration says it."""
        entry = self.targets[target]
        if "catalog" in entry:
            return entry["id"]
        return self.config["catalogs"][0]["id"] if entry.get("split") or "archives" in entry else None

    def kept(self, target):
        """What the predictions of a target keep of how the model sees each galaxy; of a task's, nothing."""
        return self.targets[target]["representations"] if target in self.targets else "none"

    def search_settings(self, search):
        """The settings of a search that its ranking depends on."""
        return {key: self.searches[search][key] for key in ("how", "examples", "answers", "count")}

    def starts_from_scratch(self, fit):
        """Whether a finetuning forgets the weights of the model that it starts from."""
        return self.task_of(fit)["scratch"] or fit.endswith("-scratch")


def read_run(config, root):
    """Check a configuration, fill in its defaults in place, and say what follows from it.

    Args:
        config: as Snakemake has read it.
        root: of the repository.

    Returns:
        A `Run`.

    Raises:
        UserError: something is wrong in the configuration or in a file that it names.
    """
    folder = Path(root) / "config"
    trees = check_configuration(
        config, Path(root) / "workflow" / "schemas" / "config.schema.yaml", folder / "trees"
    )
    augmentations = load_augmentations(config["train"]["augmentation"], folder / "augmentations")
    name = config["evaluate"]["published"]
    published = read_published(name, folder / "published") if name else None
    return Run(config, folder, trees, augmentations, published)


def complete_task(entry, config, trees_folder):
    """A task with everything that follows from its keys.

    Args:
        entry: of `finetune.tasks`, checked; it is left as it is.
        config: the configuration around it.
        trees_folder: where a tree is looked up by name.

    Returns:
        A copy of the entry in which `labels` lists every label, the file of `url` is the `table` or
        `folders`, `start` is the model folder of `pretrained`, and `ensemble` is given where it starts from
        one.
    """
    task = {**entry, "labels": task_labels(entry, trees_folder, f"finetune.tasks.{entry['name']}")}
    if task["url"]:
        path = f"data/labels/{task['url']['sha256'][:12]}/{file_of_url(task['url'])}"
        task["folders" if path.lower().endswith(".zip") else "table"] = path
    task["start"] = task["pretrained"] and model_folder(task["pretrained"], config)
    if not task["pretrained"]:
        task["ensemble"] = task["ensemble"] or config["train"]["ensembles"][0]["name"]
    return task
