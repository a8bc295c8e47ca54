"""What an interrupted job leaves in the folder of a model: {in words: names of files}."""

HALF_MADE = {
    "an empty folder": [],
    "a history": ["history.csv"],
    "a checkpoint": ["checkpoint/state.json"],
    "kept models": ["kept/1/model.keras", "kept/1/model.json"],
    "logs of TensorBoard": ["tensorboard/train/events.out.tfevents.1"],
    "half a model": ["model.keras"],
}
