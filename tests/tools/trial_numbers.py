"""Numbers of trials, as they are compared with recorded ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from brainhive_cli.data.recordings.contract import Preparation
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.signal_store import SignalStore

LISTS = ("repetitions", "sessions", "runs", "onset_s", "trial_numbers", "whiteners")
"""What is recorded of trials as it is."""


def numbers_in(facts: Any) -> Any:
    """Keep the numbers of facts. Texts are left out, and sizes of files, which depend
    on versions of libraries.
    """
    if isinstance(facts, Mapping):
        kept = {
            str(name): len(value) if name == "files" else numbers_in(value)
            for name, value in facts.items()
        }
        return {name: value for name, value in kept.items() if value is not None}
    if isinstance(facts, list | tuple):
        return [value for value in map(numbers_in, facts) if value is not None]
    return facts if isinstance(facts, int | float | np.ndarray) else None


def numbers_of_space(space: Any) -> dict[str, Any]:
    """Give all that is known of channels or voxels."""
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
    """Give the signals of trials, and all that is known of each."""
    values = {name: getattr(trials, name) for name in LISTS}
    return {
        **{name: value for name, value in values.items() if value is not None},
        "signal": np.asarray(trials.signal[0 : len(trials.signal)]),
        "pictures": crc32(" ".join(trials.image_ids).encode()),
        "space": numbers_of_space(trials.space),
        "times_s": trials.times_s,
        "rate_hz": trials.rate_hz,
        "facts": numbers_in(trials.provenance),
        "caveats": len(trials.caveats),
    }


def numbers_of_splits(splits: Mapping[str, Trials]) -> dict[str, Any]:
    """Give the numbers of each split."""
    return {split: numbers_of_trials(trials) for split, trials in splits.items()}


def numbers_of_stores(home: Path) -> dict[str, Any]:
    """Give the numbers of all signal stores below a home."""
    root = home / "signals"
    return {
        path.relative_to(root).with_suffix("").as_posix(): numbers_of_splits(
            SignalStore.open(path).splits
        )
        for path in sorted(root.rglob("*.h5"))
    }


def numbers_of_preparation(preparation: Preparation) -> dict[str, Any]:
    """Give the sessions of a preparation, with what it says of them before."""
    found = {}
    for subject in preparation.subjects:
        overview = preparation.look_over([subject])
        found[f"subject {subject}"] = {
            "files": len(preparation.files(subject)),
            "rows": [table.rows for table in overview.tables],
            "warnings": len(overview.warnings),
            **{
                f"session {session}": {
                    "shapes": preparation.shapes(subject, session),
                    **numbers_of_splits(preparation.session(subject, session)),
                }
                for session in preparation.sessions(subject)
            },
        }
    return found
