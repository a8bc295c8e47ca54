"""Check after the demo that the model has learned, and print where the results are; fails if it has not."""

import sys
from itertools import chain
from pathlib import Path

import pandas as pd

# What the demo must reach at least, and what a regression on pixels may reach at most.
LOSS_CLOSED = 0.5
SMOOTH_OR_FEATURED = 0.9
RING = 0.8
REGRESSION_CLOSED = 0.25
REGRESSION_RING = 0.7


def checks(learning):
    """(what is measured, value, whether it is good, expected value) for each assertion."""
    loss, smooth, ring = (row for _, row in learning.iterrows())
    closed, trivial = loss["model_closes"], loss["logistic_regression_closes"]
    return [
        (
            f"test loss {loss['model']:.2f} nats: from the best constant ({loss['constant']:.2f}) to the true"
            f" probabilities ({loss['truth']:.2f}), the model closes",
            closed,
            closed >= LOSS_CLOSED,
            f"at least {LOSS_CLOSED:.0%}",
        ),
        (
            "smooth or featured, correct where the volunteers are confident",
            smooth["model"],
            smooth["model"] >= SMOOTH_OR_FEATURED,
            f"at least {SMOOTH_OR_FEATURED:.0%}",
        ),
        ("rings, finetuned, correct for", ring["model"], ring["model"] >= RING, f"at least {RING:.0%}"),
        (
            "the same share for a logistic regression on 16 x 16 pixels",
            trivial,
            trivial < REGRESSION_CLOSED,
            f"less than {REGRESSION_CLOSED:.0%}",
        ),
        (
            "rings, logistic regression on 16 x 16 pixels, correct for",
            ring["logistic_regression"],
            ring["logistic_regression"] < REGRESSION_RING,
            f"less than {REGRESSION_RING:.0%}",
        ),
    ]


def beside_the_probe(scores):
    """As `checks`, of the finetuned model and its linear probe; both saw the same labels."""
    row = scores[(scores["split"] == "test") & (scores["score"] == "accuracy")].iloc[0]
    low, high = 100 * row["minus_probe_low_95"], 100 * row["minus_probe_high_95"]
    return [
        (
            f"rings, finetuned minus linear probe: {low:+.1f} to {high:+.1f} points (95 %); linear probe,"
            " correct for",
            row["probe"],
            high >= 0,
            "an interval that does not lie below zero",
        )
    ]


def main(folder):
    """Print scores and the paths of results; returns the number of failed assertions."""
    failed = 0
    print()
    learning, ring = (pd.read_csv(folder / "evaluate" / name) for name in ("learning.csv", "ring/scores.csv"))
    for what, found, good, expected in chain(checks(learning), beside_the_probe(ring)):
        failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {what} {found:.0%} (expected {expected})")
    print()
    print(f"report:       {folder / 'report.html'} (open it in a browser)")
    print(f"posteriors:   {folder / 'predict/test/predictions.hdf5'} (concentrations, every sample)")
    print(f"              {folder / 'predict/test/catalog/'} (Parquet, one row a galaxy)")
    print(f"ring scores:  {folder / 'evaluate/ring/scores.csv'}")
    return failed


if __name__ == "__main__":
    sys.exit(min(main(Path(sys.argv[1])), 1))
