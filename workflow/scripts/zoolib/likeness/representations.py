"""Files of representations: how a model sees each galaxy, as numbers whose distances mean likeness."""

import contextlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from zoolib.job.logs import UserError, check_machine, log, progress, whole
from zoolib.likeness.rankings import directions
from zoolib.posteriors.parts import (
    DAMAGED,
    REPRESENTATIONS,
    attributes,
    check_together,
    half,
    part_of,
    reading_part,
    set_attributes,
    text,
    write_checked,
    writing,
)

# Galaxies in memory at once, and those in a compressed piece of a file.
BLOCK, CHUNK = 8192, 1024
WHAT = "what the first model makes of each image, mean of the views"


@dataclass(frozen=True)
class Representations:
    """Representations in memory.

    Attributes:
        path: the file.
        id_str: (galaxies,) names of the galaxies.
        values: (galaxies, numbers) float32.
    """

    path: str
    id_str: np.ndarray
    values: np.ndarray

    @cached_property
    def directions(self):
        """(galaxies, numbers) float32, see `rankings.directions`; computed once for all queries."""
        return directions(self.values)

    @cached_property
    def _places(self):
        return {name: row for row, name in enumerate(self.id_str)}

    def rows_of(self, names, source):
        """The positions of some galaxies.

        Args:
            names: a list of id_str.
            source: what messages call the list.

        Returns:
            (names,) whole numbers.

        Raises:
            UserError: a name is not in the file.
        """
        places = self._places
        missing = [name for name in names if name not in places]
        if missing:
            raise UserError(
                f"{source}: {len(missing)} of {len(names)} galaxies are not in {self.path}, the first is"
                f" '{missing[0]}'; expected names such as '{next(iter(places), '')}', the id_str of the"
                " target's galaxies."
            )
        return np.array([places[name] for name in names], int)


@contextlib.contextmanager
def representations_file(path, galaxies, about):
    """Write a file of representations, some galaxies at a time.

    Args:
        path: HDF5 to write.
        galaxies: largest number of them.
        about: {name: text or number}, what the file says of the model.

    Yields:
        A function of (id_str, representations (galaxies, numbers)) that writes more galaxies. Numbers are
        kept as float16.
    """
    with writing(path) as (file, check):
        names, datasets = [], []

        def append(ids, values):
            rows = slice(len(names), len(names) + len(ids))
            if not datasets:
                shape = (galaxies, values.shape[1])
                layout = {"shape": shape, "maxshape": shape, "dtype": np.float16}
                datasets.append(write_checked(file, REPRESENTATIONS, CHUNK, **layout))
            datasets[0][rows] = half(values)
            # Not only at the end, hours later.
            check()
            names.extend(ids)

        yield append
        if datasets and len(names) < galaxies:
            datasets[0].resize(len(names), axis=0)
        write_checked(file, "id_str", data=text(names))
        set_attributes(file, about)


def collect_representations(parts, output):
    """Join the representations that the parts of a target's predictions have.

    Args:
        parts: HDF5 files of the chunks, in order.
        output: HDF5 to write, with the datasets `representations` (galaxies, numbers), float16, and `id_str`.

    Raises:
        UserError: a part is damaged or missing, has no representations, or is of another model.
    """
    found, sizes = {}, []
    for part in parts:
        with reading_part(part, output) as file:
            count = len(file["id_str"])
            if count and REPRESENTATIONS not in file:
                raise UserError(
                    f"{part}: has no representations. Either predict.targets[].representations was 'none', or"
                    " the model does not say what its training galaxies look like, as models of an older"
                    " version do not; set representations to 'features' and predict again."
                )
            sizes.append((count, file[REPRESENTATIONS].shape[1] if count else None))
            found[part] = part_of(file)
    check_together(found)
    widths = sorted({width for _, width in sizes if width})
    if len(widths) != 1:
        raise UserError(
            f"{Path(parts[0]).parent}: the parts have {widths or 'no'} numbers a galaxy, expected the same"
            " number in all; predict again with --forcerun predict_chunk."
        )
    total = sum(count for count, _ in sizes)
    about = {"what": WHAT, "models": found[parts[0]].get("models", "")}
    with (
        whole(output) as partial,
        representations_file(partial, total, about) as append,
        progress(None, "collecting representations", total=total) as meter,
    ):
        for part, (count, _) in zip(parts, sizes, strict=True):
            with reading_part(part, output) as file:
                for start in range(0, count, BLOCK):
                    rows = slice(start, start + BLOCK)
                    ids = file["id_str"].asstr()[rows]
                    append(ids, file[REPRESENTATIONS][rows])
                    meter.update(len(ids))
    log.info("%s: %s galaxies, %d numbers each", output, f"{total:,}", widths[0])


def read_representations(path):
    """Read a file of representations.

    Args:
        path: HDF5 that `collect_representations` or `zoolib.api.represent` wrote.

    Returns:
        `Representations`; one million galaxies with 64 numbers take 256 MB.

    Raises:
        UserError: the file is missing, damaged, or no such file.
    """
    try:
        with h5py.File(path) as file:
            values = np.empty(file[REPRESENTATIONS].shape, np.float32)
            for start in range(0, len(values), BLOCK):
                values[start : start + BLOCK] = file[REPRESENTATIONS][start : start + BLOCK]
            names = file["id_str"].asstr()[:]
            attributes(file)
    except DAMAGED as error:
        check_machine(error, path)
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: cannot be read as representations ({reason}); expected the representations.hdf5 of a"
            " target (`snakemake represent`); if it is one, delete it and make it again."
        ) from None
    if len(names) != len(values) or not np.isfinite(values).all():
        raise UserError(
            f"{path}: has {len(names)} names for {len(values)} galaxies, or numbers that are not finite;"
            " delete it and make it again."
        )
    return Representations(str(path), names, values)
