"""Which files of a run belong to its exported models, for the rules of the stage export."""

from zoolib.config.agreement import is_path


class Exports:
    """The files of a run's exported models.

    Args:
        files: the `config.files.Files` of the run.
    """

    def __init__(self, files):
        self.files = files

    def cards(self):
        """The card of each model that the run exports, and the recalibrations that belong to them."""
        folders = [folder for name in self.files.run.used_ensembles for folder in self.files.members(name)]
        folders += [f"{self.files.results}/finetune/{fit}" for fit in self.files.run.fits]
        paths = [f"{folder}/README.md" for folder in folders]
        if self.files.run.recalibrates:
            paths += [
                path for name in self.files.run.used_ensembles for path in self.files.recalibrations_of(name)
            ]
        paths += [path for fit in self.files.run.fits for path in self.files.recalibrations(fit)]
        return [path.replace(self.files.results, f"{self.files.results}/export", 1) for path in paths]

    def summary(self, model):
        """The table of how many galaxies were left after each cut, of a model such as `finetune/ring`."""
        kind, name, *_ = model.split("/")
        return f"{self.files.results}/{'catalog' if kind == 'train' else f'finetune/{name}'}/summary.csv"

    def scores(self, model):
        """The tables of scores that the run makes of a model such as `train/metrics/0`; may be none."""
        kind, name, *_ = model.split("/")
        if kind == "finetune":
            return [f"{self.files.results}/evaluate/{name}/scores.csv"]
        target = self.files.config["evaluate"]["target"]
        if not target or f"{self.files.results}/{model}" not in self.files.models(target):
            return []
        return [f"{self.files.results}/evaluate/{table}.csv" for table in ("scores", "coverage")]

    def facts(self, model):
        """What the configuration says of the galaxies of a model such as `train/metrics/0`, for its card.

        Returns:
            {"run", "model", "zenodo": the section, or None if its tables are not of a record, "catalogs": a
            list of {"name", "table", "folders", "archives", "query"}, "split", "min_votes" of scores or None,
            "simulated_start": whether the model to start from has learned from simulated galaxies}.
        """
        kind, name, *_ = model.split("/")
        zenodo, task = (
            self.files.config["zenodo"],
            self.files.run.tasks.get(name) if kind == "finetune" else None,
        )
        entries = [{**task, "archives": self.files.archives(task)}] if task else self.files.config["catalogs"]
        of_record = any(entry["table"] and not is_path(entry["table"]) for entry in entries)
        keys = ("name", "table", "folders", "archives", "query")
        return {
            "run": self.files.run.name,
            "model": model,
            "zenodo": zenodo if of_record else None,
            "catalogs": [{key: entry.get(key) for key in keys} for entry in entries],
            "split": (task or self.files.config)["split"],
            "min_votes": None if task else self.files.config["evaluate"]["min_votes"],
            "simulated_start": bool(task and task["ensemble"] and zenodo["simulate"]),
        }
