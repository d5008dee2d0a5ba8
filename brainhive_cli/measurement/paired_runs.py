"""Two runs, or two sources of one, compared item by item: what both measured, and how much it differs."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.set_up import SET_UP, differences, notes_of_signals
from brainhive_cli.measurement.comparison import (
    LEVEL,
    benjamini_hochberg,
    compare,
    compare_values,
    limits_of_p,
)
from brainhive_cli.measurement.metric_names import lower_is_better
from brainhive_cli.measurement.units import Items

TESTS = ("p_value", "sign_flip_p", "wilcoxon_p", "t_p")
CellItems = Mapping[str, Any]
"""Image ids, units, and lists of their values by name, of one cell."""


class Side(NamedTuple):
    """One side of a comparison: a run, or a source of it, and what messages call it."""

    run: Measurements
    name: str
    source: str | None = None

    @property
    def protocol(self) -> str:
        """How the media of its source were sized and made."""
        return next(iter(self.run.scopes[str(self.source)].values())).protocol

    @property
    def subjects(self) -> dict[Any, list[CellItems]]:
        """The cells of each subject, of several seeds; None for pictures that come from no signal."""
        cells: dict[Any, list[CellItems]] = {}
        for scope, cell in self.run.notes["cells"].items():
            if self.source is None or cell["source"] == self.source:
                cells.setdefault(cell["subject"], []).append(self.run.items[scope])
        return cells

    @property
    def unit_of(self) -> dict[str, str]:
        """Image id to the unit of items that are alike."""
        cells = [self.run.items[scope] for scope in self.run.notes["cells"]]
        pairs = (zip(cell["image_ids"], cell["units"], strict=True) for cell in cells)
        return dict(itertools.chain.from_iterable(pairs))

    def cells_of(self, subject: Any) -> list[CellItems]:
        """Choose the cells of a subject; what is of no subject is compared with all of them."""
        subjects = self.subjects
        if subject not in subjects and None not in subjects:
            known = ", ".join(map(str, subjects))
            raise BrainhiveError(
                f"{self.name} has no subject {subject}, but {known}", "compare runs of the same subjects"
            )
        return subjects[subject if subject in subjects else None]


def compare_ranks(run: Measurements, others: Sequence[Measurements]) -> list[dict[str, Any]]:
    """Compare the ranks of a run with those of others; p values of several comparisons are adjusted together.

    Raises:
        BrainhiveError: if a run was tested among other pictures, on other subjects or items.
    """
    return _compare_ranks([(run, other) for other in others])


def compare_pairs(variants: Mapping[str, Measurements]) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare every two variants of a sweep, as `compare_ranks` does runs; each has its `pair`.

    Returns:
        The comparisons, and why some pairs cannot be compared, as those of different subjects.
    """
    pairs, reasons = [], []
    for one, other in itertools.combinations(variants, 2):
        try:
            _check_galleries(variants[one], variants[other])
            pairs.append((one, other))
        except BrainhiveError as error:
            reasons.append(error.message)
    compared = _compare_ranks([(variants[one], variants[other]) for one, other in pairs])
    return [{"pair": pair, **result} for pair, result in zip(pairs, compared, strict=True)], reasons


def _compare_ranks(pairs: Sequence[tuple[Measurements, Measurements]]) -> list[dict[str, Any]]:
    compared = []
    for runs in pairs:
        _check_galleries(*runs)
        first, second = (Side(run, run.notes["run"]).subjects for run in runs)
        named = [
            sorted(zip(cells[0]["image_ids"], cells[0]["units"], strict=True)) for cells in first.values()
        ]
        ids, units = ([[pair[place] for pair in some] for some in named] for place in (0, 1))
        ranks = [[_sorted_ranks(side[subject]) for subject in first] for side in (first, second)]
        result = compare(*ranks, items=Items(ids, units, runs[0].notes["units"]))
        few = []
        if result.least_p is not None and result.least_p > LEVEL:  # few subjects have few signs
            few = [f"{result.subjects} subjects: sign-flip and Wilcoxon give {result.least_p:.2g} at least"]
        notes, differs = _limits(*runs, result.subjects, few)
        named_run = {"run": runs[1].notes["run"], "caveats": runs[1].caveats}
        compared.append({**named_run, "differs": differs, "notes": notes, **result.as_dict()})
    for test in TESTS:
        adjusted = benjamini_hochberg([comparison[test] for comparison in compared])
        for comparison, p in zip(compared, adjusted, strict=True):
            comparison[f"{test}_adjusted"] = p
    return compared


def _check_galleries(first: Measurements, second: Measurements) -> None:
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
    subjects = [Side(run, "").subjects for run in (first, second)]
    if subjects[0].keys() != subjects[1].keys():
        shown = [f"{run} ({', '.join(cells)})" for run, cells in zip(runs, subjects, strict=True)]
        raise BrainhiveError(
            f"{shown[0]} and {shown[1]} have different subjects", "give --subjects both have"
        )
    for subject, cells in subjects[0].items():
        if sorted(cells[-1]["image_ids"]) != sorted(subjects[1][subject][-1]["image_ids"]):
            raise BrainhiveError(
                f"{runs[0]} and {runs[1]} were tested on different items of {subject}",
                "compare on the same split",
            )


def _sorted_ranks(cells: Sequence[CellItems]) -> NDArray[np.int64]:
    """Collect ranks [S, N] of the cells of a subject, in the order of the sorted image ids."""
    orders = [np.argsort(cell["image_ids"], kind="stable") for cell in cells]
    return np.array([np.asarray(cell["ranks"])[order] for cell, order in zip(cells, orders, strict=True)])


def compare_sources(run: Measurements) -> list[dict[str, Any]]:
    """Compare the first source with each other one of the same run; p values are adjusted over metrics."""
    first, *rest = (Side(run, source, source) for source in run.notes["sources"])
    return [{"with": side.name, "caveats": [], **_compare_metrics(first, side)} for side in rest]


def compare_runs(run: Measurements, name: str, others: Mapping[str, Measurements]) -> list[dict[str, Any]]:
    """Compare the first source of a run with that of others, by name.

    Raises:
        BrainhiveError: if a run was measured by another protocol, or on other subjects or items.
    """
    named = [(name, run), *others.items()]
    first, *rest = (Side(each, label, each.notes["sources"][0]) for label, each in named)
    for side in rest:
        sizes = [each.protocol.split(",")[0] for each in (first, side)]
        if sizes[0] != sizes[1]:
            raise BrainhiveError(
                f"{name} was measured by {sizes[0]}, {side.name} by {sizes[1]}",
                "measure both by one protocol",
            )
    return [
        {"with": side.name, "caveats": side.run.caveats, **_compare_metrics(first, side)} for side in rest
    ]


def _compare_metrics(first: Side, second: Side) -> dict[str, Any]:
    """Compare by every metric that both have."""
    names, of_both = f"{first.name} and {second.name}", first.subjects.keys() & second.subjects.keys()
    subjects = [each for each in {**first.subjects, **second.subjects} if each is not None] or [None]
    pairs = [(first.cells_of(each), second.cells_of(each)) for each in subjects]
    ids = []
    for subject, (firsts, seconds) in zip(subjects, pairs, strict=True):
        in_second = {*seconds[0]["image_ids"]}
        ids.append([image_id for image_id in firsts[0]["image_ids"] if image_id in in_second])
        difference = {*firsts[0]["image_ids"]} ^ in_second
        if difference and subject in of_both:
            raise BrainhiveError(
                f"{names} are of different items: {min(difference)} is of one only",
                "compare runs of the same items",
            )
    if not all(ids):
        raise BrainhiveError(f"{names} have no item in common", "compare runs of the same items")
    in_both = pairs[0][0][0].keys() & pairs[0][1][0].keys() - {"image_ids", "units"}
    metrics = [name for name in pairs[0][0][0] if name in in_both]
    if not metrics:
        raise BrainhiveError(f"{names} have no metric in common", "measure both by one metric")
    unit_of = first.unit_of
    items = Items(ids, [[unit_of[image_id] for image_id in some] for some in ids], first.run.notes["units"])
    compared = {}
    for name in metrics:
        values = [
            [_values(cells, some, name) for cells, some in zip(side, ids, strict=True)]
            for side in zip(*pairs, strict=True)
        ]
        has_value = [~np.isnan(np.concatenate(both)).any(0) for both in zip(*values, strict=True)]
        if not any(has.any() for has in has_value):
            continue
        some = [[of[:, has] for of, has in zip(side, has_value, strict=True) if has.any()] for side in values]
        result = compare_values(*some, items=items.where(has_value)).as_dict()
        compared[name] = {**result, "lower_is_better": lower_is_better(name)}
    if not compared:
        raise BrainhiveError(f"{names} have no item in common", "compare runs of the same items")
    adjusted = benjamini_hochberg([each["p_value"] for each in compared.values()])
    notes, differs = _limits(first.run, second.run, len(subjects))
    return {
        "protocol": second.protocol,
        "notes": notes,
        "differs": differs,
        "metrics": {n: {**compared[n], "p_adjusted": p} for n, p in zip(compared, adjusted, strict=True)},
    }


def _limits(
    first: Measurements, second: Measurements, subjects: int, few: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Say what limits a comparison, and in what the set-ups of two runs differ."""
    set_ups = [run.notes.get(SET_UP, {}) for run in (first, second)]
    modes = [run.notes.get("mode", "") for run in (first, second)]
    notes = [*notes_of_signals(*set_ups), *few, *limits_of_p(modes, subjects)]
    return notes, differences(*set_ups)


def _values(cells: Sequence[CellItems], ids: Sequence[str], metric: str) -> NDArray[np.float64]:
    """Collect the values of items [S, N], one row a cell; NaN where an item has none."""
    nothing = [None] * len(cells[0]["image_ids"])
    by_id = [dict(zip(cell["image_ids"], cell.get(metric, nothing), strict=True)) for cell in cells]
    return np.array([[cell[image_id] for image_id in ids] for cell in by_id], np.float64)
