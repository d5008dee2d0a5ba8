"""Whether reconstructions differ from those of another source or run, item by item, in every metric."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.metrics.comparison import benjamini_hochberg, compare_values, limits_of_p
from brainhive_cli.reconstruction.metric_parts import lower_is_better

Items = Mapping[str, Any]
"""Image ids and lists of their values by metric, of one cell."""
Subjects = dict[int | None, list[Items]]
"""The cells of each subject, of several seeds; None for pictures that come from no signal."""


def with_sources(found: Measurements) -> list[dict[str, Any]]:
    """Compare the first source with each other one of the same run; p values are adjusted over metrics."""
    first, *others = found.notes["sources"]
    cells = _subjects(found, first)
    return [
        {
            "with": source,
            "protocol": _protocol(found, source),
            "caveats": [],
            **_compare(cells, _subjects(found, source), first, source, [found.notes.get("mode", "")]),
        }
        for source in others
    ]


def with_runs(found: Measurements, run: str, others: Mapping[str, Measurements]) -> list[dict[str, Any]]:
    """Compare the first source of a run with that of others.

    Args:
        found: What the run measured.
        run: Its name.
        others: What the others measured, by their names.

    Raises:
        BrainhiveError: if a run was measured by another protocol, or on other subjects or items.
    """
    comparisons = []
    for name, other in others.items():
        sources = [each.notes["sources"][0] for each in (found, other)]
        protocols = [_protocol(each, source) for each, source in zip((found, other), sources, strict=True)]
        sizes = [protocol.split(",")[0] for protocol in protocols]
        if sizes[0] != sizes[1]:
            raise BrainhiveError(
                f"{run} was measured by {sizes[0]}, {name} by {sizes[1]}", "measure both by one protocol"
            )
        first, second = (
            _subjects(each, source) for each, source in zip((found, other), sources, strict=True)
        )
        modes = found.notes.get("mode", ""), other.notes.get("mode", "")
        comparison = _compare(first, second, run, name, modes)
        comparisons.append({"with": name, "protocol": protocols[1], "caveats": other.caveats, **comparison})
    return comparisons


def _protocol(found: Measurements, source: str) -> str:
    return next(iter(found.scopes[source].values())).protocol


def _subjects(found: Measurements, source: str) -> Subjects:
    subjects: Subjects = {}
    for scope, cell in found.notes["cells"].items():
        if cell["source"] == source:
            subjects.setdefault(cell["subject"], []).append(found.items[scope])
    return subjects


def _compare(first: Subjects, second: Subjects, one: str, other: str, modes: Sequence[str]) -> dict[str, Any]:
    """Compare by every metric that both have; what is of no subject is compared with all of them."""
    subjects: list[int | None] = [each for each in {**first, **second} if each is not None]
    subjects = subjects or [None]
    pairs = [(_of(first, each, one), _of(second, each, other)) for each in subjects]
    ids = []
    for subject, (firsts, seconds) in zip(subjects, pairs, strict=True):
        in_second = {*seconds[0]["image_ids"]}
        ids.append([image_id for image_id in firsts[0]["image_ids"] if image_id in in_second])
        difference = {*firsts[0]["image_ids"]} ^ in_second
        if difference and subject in first and subject in second:
            raise BrainhiveError(
                f"{one} and {other} are of different items: {min(difference)} is of one only",
                "compare runs of the same items",
            )
    if not all(ids):
        raise BrainhiveError(f"{one} and {other} have no item in common", "compare runs of the same items")
    in_both = set(_metrics(pairs[0][1]))
    names = [name for name in _metrics(pairs[0][0]) if name in in_both]
    if not names:
        raise BrainhiveError(f"{one} and {other} have no metric in common", "measure both by one metric")
    found = {}
    for name in names:
        values = [
            [_values(pair[side], some, name) for pair, some in zip(pairs, ids, strict=True)]
            for side in (0, 1)
        ]
        found[name] = {**compare_values(*values, ids=ids).as_dict(), "lower_is_better": lower_is_better(name)}
    adjusted = benjamini_hochberg([each["p_value"] for each in found.values()])
    return {
        "notes": limits_of_p(modes, len(subjects)),
        "metrics": {n: {**found[n], "p_adjusted": p} for n, p in zip(names, adjusted, strict=True)},
    }


def _of(subjects: Subjects, subject: int | None, name: str) -> list[Items]:
    if (found := subjects.get(subject, subjects.get(None))) is None:
        known = ", ".join(map(str, subjects))
        raise BrainhiveError(
            f"{name} has no subject {subject}, but {known}", "compare runs of the same subjects"
        )
    return found


def _metrics(cells: Sequence[Items]) -> list[str]:
    return [name for name in cells[0] if name != "image_ids"]


def _values(cells: Sequence[Items], ids: Sequence[str], metric: str) -> NDArray[np.float64]:
    """Collect the values of items [S, N], one row a cell."""
    by_id = [dict(zip(cell["image_ids"], cell[metric], strict=True)) for cell in cells]
    return np.array([[cell[image_id] for image_id in ids] for cell in by_id])
