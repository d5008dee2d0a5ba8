"""Tables that describe a signal store: splits, trials and lost voxels."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from brainhive_cli.core.measurements import merge_caveats
from brainhive_cli.data.signals.overlap import Overlap
from brainhive_cli.data.signals.spaces import Voxels
from brainhive_cli.data.stores.signal_store import SignalStore

COUNT_COLUMNS = ("split", "pictures", "repetitions", "trials", "dropped")
"""Columns of `count_rows`."""


def describe_store(store: SignalStore) -> dict[str, Any]:
    """Describe a store in plain values: its trials by split, also of one of which
    nothing was left.
    """
    # what was dropped of each split and session, by reason; a session knows that of
    # splits that it has not
    dropped: dict[str, dict[int, Mapping[str, int]]] = defaultdict(dict)
    for split, recording in store.splits.items():
        for session in recording.provenance.get("sessions", []):
            dropped_of_split = session.get("dropped_by_split") or {
                split: session.get("dropped", {})
            }
            for name, numbers in dropped_of_split.items():
                dropped[name][session.get("session", 0)] = numbers

    # trials of each split, also of one that was dropped as a whole
    splits = {}
    for split in {**store.splits, **dropped}:
        reasons = Counter[str]()
        for dropped_of_session in dropped[split].values():
            reasons.update(dropped_of_session)
        counts = np.zeros(0, np.int64)
        if split in store.splits:
            counts = store.splits[split].counts
        if split in store.splits or any(reasons.values()):
            most = int(counts.max(initial=0))
            splits[split] = {
                "pictures": len(counts),
                "repetitions": [int(counts.min(initial=most)), most],
                "trials": int(counts.sum()),
                "dropped": dict(reasons),
            }

    # axes, caveats and origin are those of all splits
    first = next(iter(store.splits.values()))
    width = first.signal.shape[2]
    overlap = Overlap.measure(store.splits.values(), first.times_s)
    if isinstance(first.space, Voxels):
        space = {"voxels": width, "regions": list(first.space.regions)}
    else:
        space = {"channels": width, "names": list(first.space.names)}
    return {
        **space,
        "rate_hz": first.rate_hz,
        "window_ms": [round(float(at) * 1000, 1) for at in first.times_s[[0, -1]]],
        "unit": first.unit,
        "caveats": merge_caveats(
            *(recording.caveats for recording in store.splits.values())
        ),
        "overlap": overlap.description if overlap else "",
        "whiteners": 0 if first.whiteners is None else len(first.whiteners),
        "provenance": {
            key: value for key, value in first.provenance.items() if key != "files"
        },
        "splits": splits,
    }


def make_count_rows(described: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """Write a row a split of a store that `describe_store` described."""
    voxels = _describe_lost_voxels(described["provenance"])
    for split, counts in described["splits"].items():
        least, most = counts["repetitions"]
        repetitions = str(most) if least == most else f"{least} to {most}"
        reasons = [
            f"{count} {reason}" for reason, count in counts["dropped"].items() if count
        ]
        dropped = ", ".join([*reasons, *voxels])
        yield (
            split,
            counts["pictures"],
            repetitions,
            counts["trials"],
            dropped or "none",
        )


def _describe_lost_voxels(provenance: Mapping[str, Any]) -> list[str]:
    """Describe how many voxels a store lacks, and the session that costs most."""
    counts = provenance.get("voxels", {})
    lost = counts.get("constant_or_missing_in_a_session")
    if not lost:
        return []
    worst = max(provenance["sessions"], key=lambda facts: facts["constant_voxels"])
    return [
        f"{lost} of {counts['read']} voxels without an estimate, "
        f"{worst['constant_voxels']} of them in session {worst['session']}"
    ]
