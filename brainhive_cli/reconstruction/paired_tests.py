"""Whether reconstructions differ from those of another source or run, item by item, in every metric."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.metrics.comparison import benjamini_hochberg, compare_values, limits_of_p
from brainhive_cli.reconstruction.scoring import lower_is_better

Metrics = Mapping[str, Any]
"""The metrics of a run of `reconstruct`."""
Items = Mapping[str, Mapping[str, float]]
"""Image id to metric to value, of one cell."""
Subjects = dict[int | None, list[Items]]
"""The cells of each subject, of several seeds; None is whom pictures that come from no signal are of."""


def with_sources(metrics: Metrics) -> list[dict[str, Any]]:
    """Compare the first source with each other one of the same run; p values are adjusted over metrics."""
    first, *others = metrics["sources"]
    mine = _subjects(metrics, first)
    return [
        {
            "with": source,
            "protocol": next(iter(metrics["sources"][source].values()))["protocol"],
            "caveats": [],
            **_compared(mine, _subjects(metrics, source), first, source, [metrics.get("mode", "")]),
        }
        for source in others
    ]


def with_runs(mine: Metrics, run: str, others: Mapping[str, Metrics]) -> list[dict[str, Any]]:
    """Compare the first source of a run with that of others.

    Args:
        mine: The run's metrics.
        run: What it is called.
        others: The others' metrics, by what they are called.

    Raises:
        BrainhiveError: if a run was measured by another protocol, or on other subjects or items.
    """
    found = []
    for name, other in others.items():
        protocols = [next(iter(each["overall"].values()))["protocol"] for each in (mine, other)]
        if len({protocol.split(",")[0] for protocol in protocols}) > 1:
            raise BrainhiveError(
                f"{run} was measured by {protocols[0].split(',')[0]}, {name} by {protocols[1].split(',')[0]}",
                "measure both by one protocol",
            )
        first, second = (_subjects(each, next(iter(each["sources"]))) for each in (mine, other))
        how = {"protocol": protocols[1], "caveats": other.get("caveats", [])}
        modes = mine.get("mode", ""), other.get("mode", "")
        found.append({"with": name, **how, **_compared(first, second, run, name, modes)})
    return found


def _subjects(metrics: Metrics, source: str) -> Subjects:
    found: Subjects = {}
    for cell in metrics["cells"].values():
        if cell["source"] == source:
            found.setdefault(cell["subject"], []).append(cell["items"])
    return found


def _compared(
    first: Subjects, second: Subjects, one: str, other: str, modes: Sequence[str]
) -> dict[str, Any]:
    """Compare by every metric that both have; what is of no subject is compared with all of them."""
    subjects: list[int | None] = [each for each in {**first, **second} if each is not None]
    subjects = subjects or [None]
    pairs = [(_of(first, each, one), _of(second, each, other)) for each in subjects]
    ids = [[image_id for image_id in mine[0] if image_id in theirs[0]] for mine, theirs in pairs]
    for subject, (mine, theirs) in zip(subjects, pairs, strict=True):
        difference = mine[0].keys() ^ theirs[0].keys()
        if difference and subject in first and subject in second:
            raise BrainhiveError(
                f"{one} and {other} are of different items: {min(difference)} is of one only",
                "compare runs of the same items",
            )
    if not all(ids):
        raise BrainhiveError(f"{one} and {other} have no item in common", "compare runs of the same items")
    names = [name for name in _metrics(pairs[0][0]) if name in _metrics(pairs[0][1])]
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


def _of(subjects: Subjects, subject: int | None, whose: str) -> list[Items]:
    if (found := subjects.get(subject, subjects.get(None))) is None:
        known = ", ".join(map(str, subjects))
        raise BrainhiveError(
            f"{whose} has no subject {subject}, but {known}", "compare runs of the same subjects"
        )
    return found


def _metrics(cells: Sequence[Items]) -> list[str]:
    return list(next(iter(cells[0].values())))


def _values(cells: Sequence[Items], ids: Sequence[str], metric: str) -> NDArray[np.float64]:
    """Collect the values of items [S, N], one row a cell."""
    return np.array([[cell[image_id][metric] for image_id in ids] for cell in cells])
