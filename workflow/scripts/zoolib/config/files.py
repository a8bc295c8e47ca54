"""Where the files of a run lie: what it reads, and what its rules make."""

import json
from pathlib import Path

from zoolib.config.agreement import is_path
from zoolib.config.folders import walk
from zoolib.config.published import read_checks
from zoolib.config.run import GALAXIES
from zoolib.config.sources import files_of_source, own_path
from zoolib.config.starts import fit_of
from zoolib.job.logs import UserError


class Files:
    """Paths of a run, relative to the working directory.

    Args:
        run: a `Run`.
        revisions: a function from (list of galaxies, folder, names, chunks) to the revision of each chunk of
            a folder, such as `image_folder.revisions`; by default the chunks are those of a first listing.
    """

    def __init__(self, run, revisions=None):
        self.run, self.config = run, run.config
        self.revisions_of = revisions or (lambda path, folder, names, chunks: [0] * chunks)
        self.results = f"results/{run.name}"
        # Shards hold pixels; where they are disabled, a list of the images that could be read.
        self.shard_suffix = ".tfrecord" if self.config["shards"]["enabled"] else ".parquet"

    def as_made(self, path):
        """A path as rules write it if one of them makes it, so that Snakemake finds this rule."""
        return own_path(path, self.run.name) or path

    def of_record(self, name):
        """A table or an archive: a path as it is, or a file of the record where the run has it."""
        zenodo = self.config["zenodo"]
        if is_path(name):
            return self.as_made(name)
        if zenodo["simulate"]:
            return f"{self.results}/download/{name}"
        if zenodo["sample"]:
            return f"{self.results}/download/{'sample.zip' if name.endswith('.zip') else name}"
        return self.downloaded(name)

    def downloaded(self, name):
        """A file of the real record: in the folder of `zenodo.local`, or in `data/zenodo/`."""
        zenodo = self.config["zenodo"]
        return f"{zenodo['local'] or 'data/zenodo/' + str(zenodo['record'])}/{name}"

    def archives(self, entry):
        """The image archives of a catalogue or a task; a task's are its catalogue's, if it names none."""
        if entry.get("folders"):
            return [entry["folders"]] if entry["folders"].lower().endswith(".zip") else []
        names = entry["archives"]
        if not names and not entry["images"] and not is_path(entry["table"]):
            names = self.config["catalogs"][0]["archives"]
        return list(dict.fromkeys(self.of_record(name) for name in names))

    def resolved(self, entry):
        """Those keys of a catalogue or a task that say which galaxies, with paths instead of names."""
        source = {key: entry[key] for key in ("images", "id", "location", "query")}
        source["table"] = entry["table"] and self.table_of(entry)
        return {**source, "archives": self.archives(entry)}

    def table_of(self, entry):
        """The table of a catalogue or a task; for an export of a Zooniverse project, the counted votes."""
        if entry.get("zooniverse"):
            return f"{self.results}/catalog/{entry['name']}/votes.csv"
        return self.of_record(entry["table"])

    def catalog_tables(self):
        """The tables of votes of all catalogues."""
        return [self.table_of(entry) for entry in self.config["catalogs"]]

    def export(self, catalog):
        """The files of a Zooniverse project that the votes of a catalogue are counted in."""
        entry = self.run.exports[catalog]
        return [self.as_made(path) for path in (entry["table"], entry["zooniverse"]["subjects"]) if path]

    def catalog_archives(self):
        """The image archives of all catalogues, each once."""
        found = [path for entry in self.config["catalogs"] for path in self.archives(entry)]
        return list(dict.fromkeys(found))

    @property
    def checks(self):
        """The file that says what the tables of the record should count; few records have one."""
        return self.run.folder / "published" / f"zenodo_{self.config['zenodo']['record']}.yaml"

    def checked_tables(self):
        """The tables of the record that can be counted in, {name: path}.

        Tables that the folder of `zenodo.local` does not have are left out, and a wrong file of checks gives
        none: the job that counts reports both.
        """
        try:
            tables, _ = read_checks(self.checks)
        except UserError:
            return {}
        paths = {name: self.downloaded(file) for name, file in tables.items()}
        local = self.config["zenodo"]["local"]
        return {name: path for name, path in paths.items() if not local or Path(path).is_file()}

    def published_table(self, name):
        """A table of the record that figures 2 and 20 take beside the run's own, as a list."""
        if not self.run.is_comparable or self.run.has_other_galaxies:
            return []
        path = self.checked_tables().get(name)
        return [path] if path else []

    def shards(self, suffix, *splits):
        """One kind of file of all shards of some splits."""
        count, folder = self.config["shards"]["count"], f"{self.results}/shards"
        return [f"{folder}/{split}/{shard}{suffix}" for split in splits for shard in range(count[split])]

    def learning_shards(self, ensemble):
        """The shards that an ensemble learns from."""
        return self.shards(self.shard_suffix, *self.run.ensembles[ensemble]["splits"])

    def learning_sidecars(self, ensemble):
        """The sidecars of the shards that an ensemble learns from."""
        return self.shards(".json", *self.run.ensembles[ensemble]["splits"])

    def members(self, ensemble):
        """The model folders of an ensemble."""
        count = self.run.ensembles[ensemble]["members"]
        return [f"{self.results}/train/{ensemble}/{member}" for member in range(count)]

    def ensemble_start(self):
        """The model whose backbone, and with `start_from` its head, every ensemble starts from."""
        folder = self.run.training["start_from"] or self.run.training["pretrained"]
        return model_files(self.as_made(folder)) if folder else []

    def encoder_source(self, encoder):
        """The files on disk that a pretrained backbone is imported from; none if it is downloaded."""
        return files_of_source(self.run.encoders[encoder]["source"])

    def task_labels(self, task):
        """The files that hold a task's labels: a table, a zip, or folders, whose times change with them."""
        entry = self.run.tasks[task]
        if entry["table"]:
            return [self.of_record(table) for table in (entry["table"], entry["test"]) if table]
        folder = entry["folders"]
        found = walk(folder) if Path(folder).is_dir() else []
        return [str(Path(folder)), *sorted(path for path, kind in found if kind == "folder")]

    def task_source(self, task):
        """Those settings of a task that say which galaxies and labels it has, with paths instead of names."""
        entry = self.run.tasks[task]
        test = entry["test"] and self.of_record(entry["test"])
        return {"name": task, **self.resolved(entry), **{key: entry[key] for key in GALAXIES}, "test": test}

    def task_archives(self, fit):
        """The image archives of a task, also by the name of one of its finetunings."""
        return self.archives(self.run.task_of(fit))

    def task_galaxies(self, fit):
        """The galaxies of a task, also by the name of one of its finetunings."""
        return f"{self.results}/finetune/{self.run.task_of(fit)['name']}/galaxies.parquet"

    def fit_start(self, fit):
        """The model that a finetuning starts from: its task's choice, or the first member of an ensemble."""
        task = self.run.task_of(fit)
        return model_files(task["start"] or self.members(task["ensemble"])[0])

    def of_fits(self, form, task, names):
        """One file of each of a task's finetunings, such as `finetune/{fit}/history.csv`."""
        return [f"{self.results}/{form.format(fit=fit_of(task, name))}" for name in names]

    def scored_chunks(self, task):
        """The chunks that hold the numbers of a task's predictions."""
        fits = [fit_of(task, name) for name in self.run.scored_fits(task)]
        return [path for fit in fits for path in self.chunks(fit, "chunks/{chunk}.hdf5")]

    def chunks(self, target, form):
        """One kind of file of all chunks of a target, such as `catalog/{chunk}.parquet`."""
        count = len(self.revisions(target) or range(self.config["predict"]["chunks"]))
        return [f"{self.results}/predict/{target}/{form.format(chunk=chunk)}" for chunk in range(count)]

    def revisions(self, target):
        """The revision of each chunk of a target that is a folder, and [] for all other targets."""
        entry = self.run.targets.get(target, {})
        if "images" not in entry:
            return []
        chunks = self.config["predict"]["chunks"]
        folder = self.run.listed_images(target)
        return self.revisions_of(self.list_of(target), folder, entry["id"] or "name", chunks)

    def list_of(self, target):
        """The list of a target's galaxies, which `list_galaxies` writes."""
        return f"{self.results}/predict/{target}/galaxies.parquet"

    def models(self, target):
        """The model folders that a target is predicted with: an ensemble's members, or a finetuned model."""
        if self.run.task_of(target):
            return [f"{self.results}/finetune/{target}"]
        entry = self.run.targets[target]
        return [self.as_made(folder) for folder in entry["models"]] or self.members(entry["ensemble"])

    def model_files(self, target):
        """`model.keras` of each model that a target is predicted with."""
        return [f"{folder}/model.keras" for folder in self.models(target)]

    def model_abouts(self, target):
        """`model.json` of each model that a target is predicted with."""
        return [f"{folder}/model.json" for folder in self.models(target)]

    def recalibrations_of(self, ensemble):
        """The `recalibration.json` of each member of an ensemble and, if it has several, of the ensemble."""
        folders = self.members(ensemble)
        several = [str(Path(folders[0]).parent)] if len(folders) > 1 else []
        return [f"{folder}/recalibration.json" for folder in [*folders, *several]]

    def recalibrations(self, target):
        """The `recalibration.json` files of a target's models; models of other runs need not have one."""
        if not self.config["predict"]["recalibrate"]:
            return []
        if self.run.task_of(target):
            return [f"{folder}/recalibration.json" for folder in self.models(target)]
        own = {name: self.members(name) for name in self.run.ensembles}
        complete = [name for name, folders in own.items() if sorted(folders) == sorted(self.models(target))]
        if complete:
            return self.recalibrations_of(complete[0]) if self.run.recalibrates else []
        own = [folder for folders in own.values() for folder in folders]
        paths = {folder: f"{folder}/recalibration.json" for folder in self.models(target)}
        made = {f"{self.results}/finetune/{fit}" for fit in self.run.fits}
        if self.run.recalibrates:
            made.update(own)
        found = [
            path
            for folder, path in paths.items()
            if folder in made or (folder not in own and Path(path).is_file())
        ]
        return found if set(own) & set(paths) else found + _of_ensemble(paths)

    def task_recalibrations(self, task):
        """The `recalibration.json` of each of a task's finetunings whose models are to be used."""
        fits = [fit_of(task, name) for name in self.run.scored_fits(task)]
        return [path for fit in fits for path in self.recalibrations(fit)]

    def parts(self, fit):
        """The chunks that hold the numbers of a finetuning's predictions."""
        return self.chunks(fit, "chunks/{chunk}.hdf5")

    def listed(self, target):
        """The files that a target's galaxies are listed from; a folder of images is none."""
        entry = self.run.targets[target]
        if "archives" in entry:
            return self.catalog_archives()
        if "shards" in entry:
            return sorted(str(path) for path in Path(entry["shards"]).glob("*.json"))
        return [self.as_made(entry["catalog"])] if "catalog" in entry else []

    def galaxies(self, target):
        """What a target's galaxies are read from: its list, catalogues, or sidecars of the run's shards."""
        if self.run.task_of(target):
            # All of them: scores are about every split, and this pass takes less time than an epoch did.
            return [self.task_galaxies(target)]
        if split := self.run.targets[target].get("split"):
            return self.galaxies_of(split)
        return [self.list_of(target)]

    def galaxies_of(self, split):
        """What the galaxies of a split are predicted from: sidecars of its shards, or the lists instead."""
        return self.shards(".json" if self.config["shards"]["enabled"] else ".parquet", split)

    def votes(self, target):
        """The tables whose votes may update a target's posteriors; none for images that nobody classified."""
        if not self.config["predict"]["posterior_with_votes"]:
            return []
        if (task := self.run.task_of(target)) and not task["tree"]:
            return []
        return self.voted(target)

    def voted(self, target):
        """The tables that have the votes or labels of a target or a task, if anybody has classified it."""
        if self.run.task_of(target):
            return [self.task_galaxies(target)]
        entry = self.run.targets[target]
        if "catalog" in entry:
            return self.listed(target)
        splits = ("train", "val", "test") if "archives" in entry else filter(None, [entry.get("split")])
        return [f"{self.results}/catalog/{split}.parquet" for split in splits]

    def pictured(self, target):
        """The tables that say where the images of a target or a task are, or a list of shards."""
        if self.run.task_of(target):
            return self.galaxies(target)
        return self.target_places(target) or self.galaxies(target)

    @property
    def explorer(self):
        """The files that the pages of the stage explore consist of, besides their data."""
        folder = self.run.folder.parent / "workflow" / "explore"
        return sorted(str(path) for kind in ("*.*", "vendor/*.*") for path in folder.glob(kind))

    def searched(self, how, name):
        """One file of each search of a kind."""
        found = [search for search, entry in self.run.searches.items() if entry["how"] == how]
        return [f"{self.results}/search/{search}/{name}" for search in found]

    def representations(self, search):
        """How the model sees the galaxies of a search's target."""
        return f"{self.results}/predict/{self.run.searches[search]['target']}/representations.hdf5"

    def places(self, search):
        """The tables that say where the images of the galaxies of a search's target are."""
        return self.target_places(self.run.searches[search]["target"])

    def target_places(self, target):
        """The tables that say where the images of a target are; none for shards from elsewhere."""
        entry = self.run.targets[target]
        if "shards" in entry:
            return []
        if entry.get("split") and self.config["shards"]["enabled"]:
            return [f"{self.results}/catalog/{entry['split']}.parquet"]
        return self.galaxies(target)

    def target_tables(self, target):
        """The tables that a target's galaxies come from, with all their columns; none for files alone."""
        entry = self.run.targets[target]
        if "catalog" in entry:
            return self.listed(target)
        return self.catalog_tables() if "archives" in entry or entry.get("split") else []

    def target_labels(self, target):
        """The table of labels that the predictions of a target are scored with; none without one."""
        return [self.as_made(path) for path in [self.run.targets[target]["labels"]] if path]

    def classified(self, target):
        """The catalogues of galaxies that have votes; none for a target that needs no catalogue."""
        splits = ("train", "val", "test") if self.run.targets[target]["ensemble"] else ()
        return [f"{self.results}/catalog/{split}.parquet" for split in splits]

    def examples(self, search):
        """The table of a search's examples; none where the configuration has their names."""
        found = self.run.searches[search]["examples"]
        return [self.as_made(found)] if isinstance(found, str) else []

    def answers(self, search):
        """The table of a user's answers; none before the first round."""
        found = self.run.searches[search]["answers"]
        return [self.as_made(found)] if found and Path(found).is_file() else []

    def pixels(self, target):
        """The files that hold a target's pixels, where a rule makes or downloads them."""
        if self.run.task_of(target):
            return self.task_archives(target)
        entry = self.run.targets[target]
        if entry.get("split"):
            return self.pixels_of(entry["split"])
        return [] if {"images", "catalog", "shards"} & set(entry) else self.catalog_archives()

    def pixels_of(self, split):
        """The files that hold the pixels of a split, where a rule makes or downloads them."""
        if self.config["shards"]["enabled"]:
            return self.shards(".tfrecord", split)
        return self.catalog_archives()


def _of_ensemble(folders):
    """The `recalibration.json` of an ensemble of another run, if the folders may be all of its members."""
    above = {Path(folder).parent for folder in folders}
    path = above.pop() / "recalibration.json"
    if above or len(folders) < 2 or not path.is_file():
        return []
    try:
        several = len(json.loads(path.read_text()).get("models", ()))
    except (ValueError, AttributeError, TypeError):
        # The job that reads it has the message.
        several = len(folders)
    return [str(path)] if several == len(folders) else []


def model_files(folder):
    """The two files of a model folder."""
    return [f"{folder}/model.keras", f"{folder}/model.json"]
