"""A sentence for each finetuned label that is no better than a linear probe or than one answer for all."""

# The scores by which models are compared, and whether a higher one is better. Each label has one of them;
# of votes, all questions together have only the second.
MAIN = {"accuracy": True, "log_loss": False, "rmse": False}
TRY = {
    "constant": "it has learned nothing that helps: check the labels and images, or label more galaxies",
    "probe": "try a strategy that lets the backbone learn, such as two_stage, more labels, or another model"
    " to start from; and head: recommended, if the task has another head",
}
WORDS = {"constant": "one answer for all galaxies", "probe": "a linear probe of the frozen features"}


def advise(scores):
    """Compare models with what is simpler, on test galaxies.

    Args:
        scores: rows of `scores.csv` as dicts.

    Yields:
        {"label", "advice": one sentence}, at most one for each label.
    """
    test = [row for row in scores if row["split"] == "test"]
    for label in dict.fromkeys(row["label"] for row in test):
        own = {row["score"]: row for row in test if row["label"] == label}
        main = next((score for score in ("rmse", "accuracy", "log_loss") if score in own), None)
        # The questions of a tree are compared together: only they have classes and no area under a curve.
        if main is None or (main == "accuracy" and "auc" not in own):
            continue
        row = own[main]
        for other in ("constant", "probe"):
            # A comparison with NaN is false.
            worse = row["value"] <= row.get(other, float("nan"))
            if not MAIN[main]:
                worse = row["value"] >= row.get(other, float("nan"))
            if worse:
                yield {"label": label, "advice": _sentence(label, main, row, other)}
                break


def _sentence(label, main, row, other):
    sure = ""
    if other == "probe":
        low, high = row["minus_probe_low_95"], row["minus_probe_high_95"]
        if low <= 0 <= high:
            sure = f", which may be chance with {row['galaxies']} galaxies"
    name = main.replace("_", " ")
    return (
        f"{label}: on test the model is not better than {WORDS[other]} ({name} {row['value']:.3f},"
        f" {other} {row[other]:.3f}{sure}); {TRY[other]}."
    )
