"""One evaluated run against others: the same items and subjects, and the statistics of their difference."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.set_up import SET_UP, differences, notes_of_signals
from brainhive_cli.measurement.comparison import benjamini_hochberg, compare, limits_of_p
from brainhive_cli.measurement.units import Items

SIGNIFICANT = 0.05
TESTS = ("p_value", "sign_flip_p", "wilcoxon_p", "t_p")


def compare_with(run: Measurements, others: Sequence[Measurements]) -> list[dict[str, Any]]:
    """Compare a run with others, item by item; p values of several comparisons are adjusted together.

    Raises:
        BrainhiveError: if a run was tested among other pictures, on other subjects or items.
    """
    return _compare([(run, other) for other in others])


def compare_pairs(variants: Mapping[str, Measurements]) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare every two variants of a sweep, as `compare_with` does runs; each has its `pair`.

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
    found = _compare([(variants[one], variants[other]) for one, other in pairs])
    return [{"pair": pair, **each} for pair, each in zip(pairs, found, strict=True)], reasons


def _compare(pairs: Sequence[tuple[Measurements, Measurements]]) -> list[dict[str, Any]]:
    found = []
    for first, second in pairs:
        _check(first, second)
        ranks, others = _ranks(first), _ranks(second)
        items = _items(first)
        result = compare([ranks[key] for key in ranks], [others[key] for key in ranks], items=items)
        notes = limits_of_p([first.notes["mode"], second.notes["mode"]], result.subjects)
        if result.least_p is not None and result.least_p > SIGNIFICANT:  # few subjects have few signs
            least = f"{result.subjects} subjects: sign-flip and Wilcoxon give {result.least_p:.2g} at least"
            notes = [least, *notes]
        set_ups = [each.notes.get(SET_UP, {}) for each in (first, second)]
        named = {"run": second.notes["run"], "caveats": second.caveats, "differs": differences(*set_ups)}
        found.append({**named, "notes": [*notes_of_signals(*set_ups), *notes], **result.as_dict()})
    for test in TESTS:
        adjusted = benjamini_hochberg([each[test] for each in found])
        for each, p in zip(found, adjusted, strict=True):
            each[f"{test}_adjusted"] = p
    return found


def _check(first: Measurements, second: Measurements) -> None:
    runs = [first.notes["run"], second.notes["run"]]
    galleries = [first.notes["gallery"], second.notes["gallery"]]
    if galleries[0] != galleries[1]:
        shown = [
            f"{run} ({gallery['pictures']} pictures of {gallery['of']}, {gallery['random']} random, "
            f"digest {gallery['digest']})"
            for run, gallery in zip(runs, galleries, strict=True)
        ]
        raise BrainhiveError(
            f"{shown[0]} and {shown[1]} were tested on different galleries", "compare on the same pictures"
        )
    ids = [_ids(first), _ids(second)]
    if ids[0].keys() != ids[1].keys():
        shown = [f"{run} ({', '.join(each)})" for run, each in zip(runs, ids, strict=True)]
        raise BrainhiveError(
            f"{shown[0]} and {shown[1]} have different subjects", "give --subjects both have"
        )
    for subject, image_ids in ids[0].items():
        if sorted(image_ids) != sorted(ids[1][subject]):
            raise BrainhiveError(
                f"{runs[0]} and {runs[1]} were tested on different items of {subject}",
                "compare on the same split",
            )


def _ids(found: Measurements) -> dict[str, list[str]]:
    """Give the items of each subject; those of all its cells are the same."""
    return {cell["subject"]: found.items[scope]["image_ids"] for scope, cell in found.notes["cells"].items()}


def _items(found: Measurements) -> Items:
    """Give the items of each subject, sorted by image id, and their units."""
    by_subject = {cell["subject"]: found.items[scope] for scope, cell in found.notes["cells"].items()}
    named = [sorted(zip(some["image_ids"], some["units"], strict=True)) for some in by_subject.values()]
    ids, units = ([[pair[place] for pair in pairs] for pairs in named] for place in (0, 1))
    return Items(ids, units, found.notes["units"])


def _ranks(found: Measurements) -> dict[str, NDArray[np.int64]]:
    """Collect ranks [S, N] of each subject, in the order of the sorted image ids."""
    ranks: dict[str, list[NDArray[np.int64]]] = defaultdict(list)
    for scope, cell in found.notes["cells"].items():
        items = found.items[scope]
        order = np.argsort(items["image_ids"], kind="stable")
        ranks[cell["subject"]].append(np.asarray(items["ranks"])[order])
    return {subject: np.array(some) for subject, some in ranks.items()}
