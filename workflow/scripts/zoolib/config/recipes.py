"""What a finetuning does unless its task says something else: the head, and how many galaxies a step has."""

# Compared in docs/finetuning.md, "Which recipe"; `published` is that of Zoobot's ring classifier. A `probed`
# head first brings the features to the same centre and length, whatever the backbone, and begins as the
# linear probe of the training galaxies.
HEADS = {
    "recommended": {"units": [64], "dropout": 0.3, "probed": True},
    "published": {"units": [64, 64], "dropout": 0.75, "probed": False},
}
# Steps of an epoch if a batch has no size of its own, and the limits of this size. With 18 labels in one
# batch, 80 epochs would be 80 steps, too few to learn anything.
STEPS = 8
BATCH = (4, 32)


def complete_head(head):
    """A head with everything that it stands for.

    Args:
        head: `finetune.tasks[].head`: a name in `HEADS`, or a mapping of units and dropout.

    Returns:
        {"recipe": the name or `own`, "units", "dropout", "probed"}.
    """
    if isinstance(head, str):
        return {"recipe": head, **HEADS[head]}
    return {"recipe": "own", "probed": False, **head}


def complete_batch(task, galaxies):
    """A task's settings with the size of a batch, if it has none: an eighth of the galaxies, from 4 to 32.

    Args:
        task: settings of a finetuning, as `config.run.Run.training_of` gives them.
        galaxies: number of galaxies in train.

    Returns:
        A copy with a number in `batch_size`.
    """
    smallest, largest = BATCH
    return {**task, "batch_size": task["batch_size"] or max(smallest, min(galaxies // STEPS, largest))}
