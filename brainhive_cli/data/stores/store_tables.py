"""Tables that describe a signal store."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from brainhive_cli.core.results import merge_caveats
from brainhive_cli.data.signals import Overlap
from brainhive_cli.data.stores.signal_store import SignalStore

COUNT_COLUMNS = ("split", "pictures", "repetitions", "trials", "dropped")
"""Columns of `make_count_rows`."""


def describe_store(store: SignalStore) -> dict[str, Any]:
    """Describe a store as JSON values, with the number of trials of each split.

    Splits of which all trials were dropped are included.
    """
    first_recording = next(iter(store.splits.values()))
    n_rows = first_recording.signal.shape[1]
    if first_recording.space.has_names:
        space = {"channels": n_rows, "names": list(first_recording.space.names)}
    else:
        space = {"voxels": n_rows, "regions": list(first_recording.space.regions)}
    window_s = first_recording.times_s[[0, -1]]
    overlap = Overlap.measure(store.splits.values(), first_recording.times_s)
    caveats = [recording.caveats for recording in store.splits.values()]
    whiteners = first_recording.whiteners
    provenance = dict(first_recording.provenance)
    provenance.pop("files", None)
    return {
        **space,
        "rate_hz": first_recording.rate_hz,
        "window_ms": [round(float(time_s) * 1000, 1) for time_s in window_s],
        "unit": first_recording.unit,
        "caveats": merge_caveats(*caveats),
        "overlap": overlap.description if overlap else "",
        "whiteners": 0 if whiteners is None else len(whiteners),
        "provenance": provenance,
        "splits": _count_trials(store),
    }


def _count_trials(store: SignalStore) -> dict[str, dict[str, Any]]:
    """Count the pictures, repetitions, trials and dropped trials of each split."""
    dropped_trials = _collect_dropped_trials(store)
    splits = {}
    for split in {**store.splits, **dropped_trials}:
        n_dropped = Counter[str]()
        for numbers in dropped_trials.get(split, {}).values():
            n_dropped.update(numbers)
        counts = np.zeros(0, np.int64)
        if split in store.splits:
            counts = store.splits[split].counts
        elif not any(n_dropped.values()):
            continue
        max_repetitions = int(counts.max(initial=0))
        min_repetitions = int(counts.min(initial=max_repetitions))
        splits[split] = {
            "pictures": len(counts),
            "repetitions": [min_repetitions, max_repetitions],
            "trials": int(counts.sum()),
            "dropped": dict(n_dropped),
        }
    return splits


def _collect_dropped_trials(
    store: SignalStore,
) -> dict[str, dict[int, Mapping[str, int]]]:
    """Collect the numbers of dropped trials.

    Returns:
        Numbers by split, session and reason. A split of a session may be missing from
        the store, so sessions list the dropped trials of all their splits.
    """
    dropped_trials: dict[str, dict[int, Mapping[str, int]]] = defaultdict(dict)
    for split, recording in store.splits.items():
        for session in recording.provenance.get("sessions", []):
            numbers_of_split = session.get("dropped_by_split")
            if not numbers_of_split:
                numbers_of_split = {split: session.get("dropped", {})}
            for name, numbers in numbers_of_split.items():
                dropped_trials[name][session.get("session", 0)] = numbers
    return dropped_trials


def make_count_rows(description: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """Make a row under `COUNT_COLUMNS` for each split.

    Args:
        description: Description of a store, from `describe_store`.
    """
    lost_voxels = _describe_lost_voxels(description["provenance"])
    for split, counts in description["splits"].items():
        low, high = counts["repetitions"]
        repetitions = str(high) if low == high else f"{low} to {high}"
        losses = []
        for reason, count in counts["dropped"].items():
            if count:
                losses.append(f"{count} {reason}")
        losses.extend(lost_voxels)
        dropped = ", ".join(losses) or "none"
        yield split, counts["pictures"], repetitions, counts["trials"], dropped


def _describe_lost_voxels(provenance: Mapping[str, Any]) -> Sequence[str]:
    """Describe how many voxels a store lacks, and the session that lost the most."""
    counts = provenance.get("voxels", {})
    n_lost = counts.get("constant_or_missing_in_a_session")
    if not n_lost:
        return []
    worst = max(provenance["sessions"], key=lambda session: session["constant_voxels"])
    return [
        f"{n_lost} of {counts['read']} voxels without an estimate, "
        f"{worst['constant_voxels']} of them in session {worst['session']}"
    ]
