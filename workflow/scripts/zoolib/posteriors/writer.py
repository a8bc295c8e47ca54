"""Write a file of predictions (HDF5 in Zoobot's layout), some galaxies at a time."""

import contextlib

import numpy as np

from zoolib.posteriors.parts import REPRESENTATIONS, file_attributes, half, seal, text, write_checked, writing

# Galaxies in a compressed piece of a file; a block has several pieces.
CHUNK = 128
# Bytes for pieces that are not full yet: enough for a few pieces of 30 samples of 5 members.
CACHE = 1 << 26


@contextlib.contextmanager
def predictions_file(path, galaxies, about, members, samples, views, seed, part=None):
    """Write predictions as HDF5 in Zoobot's layout, some galaxies at a time.

    Args:
        path: the file.
        galaxies: largest number of galaxies.
        about: the model's `model.json`. If its kind is `mixtures`, the file has weights, too.
        members: number of members.
        samples: dropout draws for each view.
        views: number of augmented views; 0 is only the central view.
        seed: seed of the run.
        part: attributes that say which part of a target it is: `models` (hash of their weights), `first` and
            `last` (positions of its first galaxy and after its last one), and `of` (galaxies of the target).

    Yields:
        A function of (id_str, values (galaxies, answers, components), weights, seen) that writes more
        galaxies and returns their number. weights, only of mixtures: (galaxies, questions, components), those
        of a question sum to 1. seen: representations (galaxies, numbers), kept as float16, or None.
    """
    components, columns = members * max(views, 1) * samples, {"predictions": len(about["columns"])}
    if about["kind"] == "mixtures":
        components *= about["training"]["components"]
        columns["weights"] = len(about["tree"]["questions"])
    with writing(path, rdcc_nbytes=CACHE) as (file, check):
        # A piece has complete galaxies, as they are read. It stays in memory until it is full.
        datasets = {}
        for name, count in columns.items():
            shape = (galaxies, count, components)
            layout = {"shape": shape, "dtype": np.float32, "maxshape": shape}
            datasets[name] = write_checked(file, name, CHUNK, **layout)
        names = []

        def append(ids, values, weights=None, seen=None):
            if (weights is None) == ("weights" in datasets):
                raise ValueError("weights are for the kind 'mixtures', and must be given for it")
            rows = slice(len(names), len(names) + len(values))
            blocks = {
                "predictions": values,
                "weights": weights,
                REPRESENTATIONS: None if seen is None else half(seen),
            }
            if seen is not None and REPRESENTATIONS not in datasets:
                layout = {"shape": (galaxies, seen.shape[1]), "dtype": np.float16}
                layout["maxshape"] = layout["shape"]
                datasets[REPRESENTATIONS] = write_checked(file, REPRESENTATIONS, CHUNK, **layout)
            for name, dataset in datasets.items():
                dataset[rows] = blocks[name]
            # Not only at the end, hours later.
            check()
            names.extend(ids)
            return len(values)

        yield append
        if len(names) < galaxies:
            for dataset in datasets.values():
                dataset.resize(len(names), axis=0)
        write_checked(file, "id_str", data=text(names))
        write_checked(file, "label_cols", data=text(about["columns"]))
        seal(file, file_attributes(about, members, samples, views, seed) | (part or {}), names)
