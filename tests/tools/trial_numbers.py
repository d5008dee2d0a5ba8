"""Numbers of trials, for the comparison with recorded numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from brainhive_cli.data.recordings.contract import Preparation
from brainhive_cli.data.signals import Sensors, Trials
from brainhive_cli.data.stores.signal_store import SignalStore

PADDING = {"sessions": -1, "runs": -1, "onset_s": np.nan, "trial_numbers": -1}
"""Recorded columns, and their value where a repetition does not exist."""


def numbers_in(facts: Any) -> Any:
    """Return the numbers of facts, without texts and sizes of files.

    The sizes depend on versions of libraries.
    """
    if isinstance(facts, Mapping):
        numbers = {}
        for name, value in facts.items():
            number = len(value) if name == "files" else numbers_in(value)
            if number is not None:
                numbers[str(name)] = number
        return numbers
    if isinstance(facts, list | tuple):
        return [value for value in map(numbers_in, facts) if value is not None]
    return facts if isinstance(facts, int | float | np.ndarray) else None


def numbers_of_space(space: Any) -> dict[str, Any]:
    """Return the numbers of channels or voxels."""
    if isinstance(space, Sensors):
        names = crc32(" ".join(space.names).encode())
        return {"names": names, "positions": space.positions}
    return {
        "regions": {name: np.flatnonzero(mask) for name, mask in space.regions.items()},
        "maps": space.maps,
        "grid": space.grid,
        "surface": space.surface,
    }


def numbers_of_trials(trials: Trials) -> dict[str, Any]:
    """Return the numbers of trials: signals and facts.

    Trials whose pictures have a number of repetitions are arranged by picture.
    """
    is_grouped = trials.repetitions is not None

    def arrange(values: Any, padding: float) -> Any:
        if is_grouped:
            return trials.as_repetitions(values, padding)
        return values[:, None]

    numbers = {}
    if is_grouped:
        numbers["repetitions"] = trials.repetitions
    for name, padding in PADDING.items():
        value = getattr(trials, name)
        if value is not None:
            numbers[name] = arrange(value, padding)
    if trials.whiteners is not None:
        numbers["whiteners"] = trials.whiteners
    names = trials.pictures if is_grouped else trials.image_ids
    return numbers | {
        "signal": arrange(np.asarray(trials.signal[0 : len(trials.signal)]), 0),
        "pictures": crc32(" ".join(names).encode()),
        "space": numbers_of_space(trials.space),
        "times_s": trials.times_s,
        "rate_hz": trials.rate_hz,
        "facts": numbers_in(trials.provenance),
        "caveats": len(trials.caveats),
    }


def numbers_of_splits(splits: Mapping[str, Trials]) -> dict[str, Any]:
    """Return the numbers of each split."""
    return {split: numbers_of_trials(trials) for split, trials in splits.items()}


def numbers_of_stores(home: Path) -> dict[str, Any]:
    """Return the numbers of all signal stores below a home, by path."""
    root = home / "signals"
    numbers = {}
    for path in sorted(root.rglob("*.h5")):
        name = path.relative_to(root).with_suffix("").as_posix()
        numbers[name] = numbers_of_splits(SignalStore.open(path).splits)
    return numbers


def numbers_of_preparation(preparation: Preparation) -> dict[str, Any]:
    """Return the numbers of a preparation's overviews and sessions, by subject."""
    numbers = {}
    for subject in preparation.subjects:
        overview = preparation.look_over([subject])
        facts: dict[str, Any] = {
            "files": len(preparation.files(subject)),
            "rows": [table.rows for table in overview.tables],
            "warnings": len(overview.warnings),
        }
        for session in preparation.sessions(subject):
            facts[f"session {session}"] = {
                "shapes": preparation.shapes(subject, session),
                **numbers_of_splits(preparation.session(subject, session)),
            }
        numbers[f"subject {subject}"] = facts
    return numbers
