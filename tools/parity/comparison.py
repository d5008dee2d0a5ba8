"""The authors' figures beside ours, by seed: differences of means with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import ttest_ind

from tools.parity.planted import Figures
from tools.parity.trainings import METHODS, Training

LEVEL = 0.95
"""Confidence level of Welch's intervals, which allow unequal variances over seeds."""


def compare(name: str, figures: Figures, training: Training) -> dict[str, Any]:
    """Compare the trainings of a method, and return a row of the table."""
    ours, theirs = training.figures, figures.reference
    row: dict[str, Any] = {
        "method": name,
        "recipe": METHODS[name].recipe,
        "seeds": {"ours": len(ours), "authors": len(theirs)},
    }
    for metric in ("top1", "top5"):
        if metric not in theirs[0]:
            continue
        row[metric] = compare_means(
            [entry[metric] for entry in ours], [entry[metric] for entry in theirs]
        )
    key = METHODS[name].loss
    if key is not None and all(entry.get(key) for entry in theirs):
        row["loss"] = compare_curves(
            [entry["loss"] for entry in ours], [entry[key] for entry in theirs]
        )
    return row | {"seconds": training.seconds, "precision": training.precision}


def compare_means(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Compare the means over seeds of two programs.

    Returns:
        Mean, standard deviation and number of each, the difference of the means, and
        its 95 % interval if each has two seeds or more.
    """
    result: dict[str, Any] = {
        "ours": describe(ours),
        "authors": describe(theirs),
        "difference": float(np.mean(ours) - np.mean(theirs)),
    }
    if min(len(ours), len(theirs)) > 1:
        test = ttest_ind(ours, theirs, equal_var=False)
        interval = test.confidence_interval(LEVEL)
        result["interval"] = [float(interval.low), float(interval.high)]
    return result


def describe(values: Sequence[float]) -> dict[str, float]:
    """Return mean, standard deviation and number of the values of seeds."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "sd": sd, "n": len(values)}


def compare_curves(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """Compare mean losses by epoch, over the epochs that all seeds of both have.

    Returns:
        The largest difference, its epoch from 1, and both means at that epoch.
    """
    epochs = min(map(len, list(ours) + list(theirs)))
    our_means = np.mean([curve[:epochs] for curve in ours], 0)
    their_means = np.mean([curve[:epochs] for curve in theirs], 0)
    differences = np.abs(our_means - their_means)
    epoch = int(differences.argmax())
    return {
        "largest": float(differences[epoch]),
        "epoch": epoch + 1,
        "ours": float(our_means[epoch]),
        "authors": float(their_means[epoch]),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the comparisons as a table in Markdown."""
    lines = [
        "| method | seeds | authors' top-1; top-5 | ours | difference of top-1 [95 %] "
        "| largest difference of the mean loss | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        difference = authors = ours = loss = "–"
        if "top1" in row:
            top1, top5 = row["top1"], row["top5"]
            authors = f"{spread(top1['authors'])}; {top5['authors']['mean']:.3f}"
            ours = f"{spread(top1['ours'])}; {top5['ours']['mean']:.3f}"
            difference = f"{top1['difference']:+.3f}"
        if "interval" in row.get("top1", ()):
            low, high = row["top1"]["interval"]
            difference += f" [{low:+.3f}, {high:+.3f}]"
        if "loss" in row:
            curve = row["loss"]
            loss = f"{curve['largest']:.3f} of {curve['authors']:.3f}"
            loss += f" in epoch {curve['epoch']}"
        seeds = f"{row['seeds']['authors']}; {row['seeds']['ours']}"
        seconds = f"{row['seconds']:.0f}"
        cells = [row["method"], seeds, authors, ours, difference, loss, seconds]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Mapping[str, float]) -> str:
    """Write a mean with its standard deviation over seeds."""
    return f"{values['mean']:.3f} ± {values['sd']:.3f}"
