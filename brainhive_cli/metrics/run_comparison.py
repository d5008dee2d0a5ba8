"""One evaluated run beside others: the same items and subjects, and the statistics of their difference."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.metrics.comparison import Comparison, benjamini_hochberg, compare

SIGNIFICANT = 0.05
TESTS = ("p_value", "sign_flip_p", "wilcoxon_p", "t_p")
FOLDS = "folds of inter share training subjects: they vary together, and p may be too small"
"""What must be said where each subject is tested on a model of the others."""
TWO = "of two subjects minF′ may be too small; the interval takes in how little they say of others"
"""It rejects a true null in 10 % of simulations where subject × method has a sd of .4 logits."""
Metrics = Mapping[str, Any]
"""The metrics of a finished `eval-retrieval`."""


def comparisons(mine: Metrics, others: Sequence[Metrics]) -> list[dict[str, Any]]:
    """Compare a run with others, item by item; p values of several comparisons are adjusted together.

    Raises:
        BrainhiveError: if a run was tested among other pictures, on other subjects or items.
    """
    return _compared([(mine, other) for other in others])


def between(variants: Mapping[str, Metrics]) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare every two variants of a sweep, as `comparisons` does runs; each says its `pair`.

    Returns:
        The comparisons, and why some pairs cannot be compared, as those of different subjects.
    """
    pairs, reasons = [], []
    for one, other in itertools.combinations(variants, 2):
        try:
            _check(variants[one], variants[other])
            pairs.append((one, other))
        except BrainhiveError as error:
            reasons.append(error.message)
    found = _compared([(variants[one], variants[other]) for one, other in pairs])
    return [{"pair": pair, **each} for pair, each in zip(pairs, found, strict=True)], reasons


def _compared(pairs: Sequence[tuple[Metrics, Metrics]]) -> list[dict[str, Any]]:
    found = []
    for mine, other in pairs:
        _check(mine, other)
        ranks, theirs = _ranks(mine), _ranks(other)
        ids = [sorted(mine["items"][key]) for key in ranks]
        result = compare([ranks[key] for key in ranks], [theirs[key] for key in ranks], ids=ids)
        said = {
            "run": other["run"],
            "caveats": other.get("caveats", []),
            "notes": _notes(mine, other, result),
        }
        found.append({**said, **result.as_dict()})
    for test in TESTS:
        adjusted = benjamini_hochberg([each[test] for each in found])
        for each, p in zip(found, adjusted, strict=True):
            each[f"{test}_adjusted"] = p
    return found


def _notes(mine: Metrics, other: Metrics, result: Comparison) -> list[str]:
    """Say what a reader of the p values must know."""
    least, about = result.least_p, notes((mine.get("mode", ""), other.get("mode", "")), result.subjects)
    if least is None or least <= SIGNIFICANT:
        return about
    return [f"{result.subjects} subjects: sign-flip and Wilcoxon give {least:.2g} at least", *about]


def notes(modes: Sequence[str], subjects: int) -> list[str]:
    """Say what a reader of minF′'s p must know, of runs trained in these modes."""
    is_inter = any("inter" in mode.split(" + ") for mode in modes)
    return [*([TWO] if subjects == 2 else []), *([FOLDS] if is_inter and subjects > 1 else [])]


def _check(mine: Metrics, other: Metrics) -> None:
    if mine["gallery"] != other["gallery"]:
        told = [
            f"{each['run']} ({each['gallery']['pictures']} pictures of {each['gallery']['of']}, "
            f"{each['gallery']['random']} random, digest {each['gallery']['digest']})"
            for each in (mine, other)
        ]
        raise BrainhiveError(
            f"{told[0]} and {told[1]} were tested on different galleries", "compare on the same pictures"
        )
    if mine["items"].keys() != other["items"].keys():
        told = [f"{each['run']} ({', '.join(each['items'])})" for each in (mine, other)]
        raise BrainhiveError(f"{told[0]} and {told[1]} have different subjects", "give --subjects both have")
    for subject, image_ids in mine["items"].items():
        if sorted(image_ids) != sorted(other["items"][subject]):
            raise BrainhiveError(
                f"{mine['run']} and {other['run']} were tested on different items of {subject}",
                "compare on the same split",
            )


def _ranks(metrics: Metrics) -> dict[str, NDArray[np.int64]]:
    """Collect ranks [S, N] of each subject, in the order of the image ids."""
    return {
        subject: np.array(
            [
                np.asarray(cell[subject]["ranks"])[np.argsort(image_ids, kind="stable")]
                for cell in metrics["cells"].values()
                if subject in cell
            ]
        )
        for subject, image_ids in metrics["items"].items()
    }
