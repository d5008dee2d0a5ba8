"""Whether reconstructions differ from those of another source or run, item by item, in every metric."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.set_up import SET_UP, differences, notes_of_signals
from brainhive_cli.evaluation.reconstruction.metric_parts import lower_is_better
from brainhive_cli.measurement.comparison import benjamini_hochberg, compare_values, limits_of_p
from brainhive_cli.measurement.units import Items

Values = Mapping[str, Any]
"""Image ids, units, and lists of their values by metric, of one cell."""


class Side(NamedTuple):
    """One side of a comparison: a source of a run, and what messages call it."""

    run: Measurements
    source: str
    name: str

    @property
    def protocol(self) -> str:
        """How its media were sized and made."""
        return next(iter(self.run.scopes[self.source].values())).protocol

    @property
    def subjects(self) -> dict[int | None, list[Values]]:
        """The cells of each subject, of several seeds; None for pictures that come from no signal."""
        found: dict[int | None, list[Values]] = {}
        for scope, cell in self.run.notes["cells"].items():
            if cell["source"] == self.source:
                found.setdefault(cell["subject"], []).append(self.run.items[scope])
        return found

    @property
    def unit_of(self) -> dict[str, str]:
        """Image id to the unit of items that are alike."""
        some = [self.run.items[scope] for scope in self.run.notes["cells"]]
        return {
            name: unit
            for values in some
            for name, unit in zip(values["image_ids"], values["units"], strict=True)
        }

    def cells_of(self, subject: int | None) -> list[Values]:
        """Choose the cells of a subject; what is of no subject is compared with all of them."""
        subjects = self.subjects
        if (found := subjects.get(subject, subjects.get(None))) is None:
            known = ", ".join(map(str, subjects))
            raise BrainhiveError(
                f"{self.name} has no subject {subject}, but {known}", "compare runs of the same subjects"
            )
        return found


def with_sources(found: Measurements) -> list[dict[str, Any]]:
    """Compare the first source with each other one of the same run; p values are adjusted over metrics."""
    first, *others = (Side(found, source, source) for source in found.notes["sources"])
    return [{"with": other.name, "caveats": [], **_compare(first, other)} for other in others]


def with_runs(found: Measurements, run: str, others: Mapping[str, Measurements]) -> list[dict[str, Any]]:
    """Compare the first source of a run with that of others, by name.

    Raises:
        BrainhiveError: if a run was measured by another protocol, or on other subjects or items.
    """
    first, *sides = (
        Side(each, each.notes["sources"][0], name) for name, each in [(run, found), *others.items()]
    )
    for side in sides:
        sizes = [each.protocol.split(",")[0] for each in (first, side)]
        if sizes[0] != sizes[1]:
            raise BrainhiveError(
                f"{run} was measured by {sizes[0]}, {side.name} by {sizes[1]}", "measure both by one protocol"
            )
    return [{"with": each.name, "caveats": each.run.caveats, **_compare(first, each)} for each in sides]


def _compare(first: Side, second: Side) -> dict[str, Any]:
    """Compare by every metric that both have."""
    names, of_both = f"{first.name} and {second.name}", first.subjects.keys() & second.subjects.keys()
    subjects: list[int | None] = [each for each in {**first.subjects, **second.subjects} if each is not None]
    subjects = subjects or [None]
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
    found = {}
    for name in metrics:
        values = [
            [_values(cells, some, name) for cells, some in zip(side, ids, strict=True)]
            for side in zip(*pairs, strict=True)
        ]
        has_value = [~np.isnan(np.concatenate(both)).any(0) for both in zip(*values, strict=True)]
        if not any(has.any() for has in has_value):
            continue
        some = [[of[:, has] for of, has in zip(side, has_value, strict=True) if has.any()] for side in values]
        compared = compare_values(*some, items=items.where(has_value)).as_dict()
        found[name] = {**compared, "lower_is_better": lower_is_better(name)}
    if not found:
        raise BrainhiveError(f"{names} have no item in common", "compare runs of the same items")
    adjusted = benjamini_hochberg([each["p_value"] for each in found.values()])
    modes = [side.run.notes.get("mode", "") for side in (first, second)]
    set_ups = [side.run.notes.get(SET_UP, {}) for side in (first, second)]
    return {
        "protocol": second.protocol,
        "notes": [*notes_of_signals(*set_ups), *limits_of_p(modes, len(subjects))],
        "differs": differences(*set_ups),
        "metrics": {n: {**found[n], "p_adjusted": p} for n, p in zip(found, adjusted, strict=True)},
    }


def _values(cells: Sequence[Values], ids: Sequence[str], metric: str) -> NDArray[np.float64]:
    """Collect the values of items [S, N], one row a cell; NaN where an item has none."""
    nothing = [None] * len(cells[0]["image_ids"])
    by_id = [dict(zip(cell["image_ids"], cell.get(metric, nothing), strict=True)) for cell in cells]
    return np.array([[cell[image_id] for image_id in ids] for cell in by_id], np.float64)
