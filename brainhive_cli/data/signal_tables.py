"""What a signal store holds, as plain values and as rows of tables."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from brainhive_cli.core.caveats import merge_caveats
from brainhive_cli.data.stores.recordings import SignalStore, Voxels

COUNTED = ("split", "pictures", "repetitions", "trials", "dropped")
"""Columns of `count_rows`."""
RECORDED = ("channels", "rate", "window", "unit", "made from")
"""Columns of `recorded_row`."""


def describe_signals(store: SignalStore) -> dict[str, Any]:
    """Describe a store in plain values: its trials by split, also of one of which nothing was left."""
    dropped = _dropped(store)
    splits = {}
    for split, recording in store.splits.items():
        counts = recording.repetitions
        assert counts is not None  # as in every store
        least, most = (
            int(end(initial=0)) if not len(counts) else int(end()) for end in (counts.min, counts.max)
        )
        counted = {"pictures": len(counts), "repetitions": [least, most], "trials": int(counts.sum())}
        splits[split] = {**counted, "dropped": dict(dropped.pop(split, {}))}
    nothing = {"pictures": 0, "repetitions": [0, 0], "trials": 0}
    splits |= {
        split: {**nothing, "dropped": dict(each)} for split, each in dropped.items() if any(each.values())
    }
    first = next(iter(store.splits.values()))
    width = first.signal.shape[2]
    space: dict[str, Any] = (
        {"voxels": width, "regions": list(first.space.regions)}
        if isinstance(first.space, Voxels)
        else {"channels": width, "names": list(first.space.names)}
    )
    return {
        **space,
        "rate_hz": first.rate_hz,
        "window_ms": [round(float(at) * 1000, 1) for at in first.times_s[[0, -1]]],
        "unit": first.unit,
        "caveats": merge_caveats(*(recording.caveats for recording in store.splits.values())),
        "whiteners": 0 if first.whiteners is None else len(first.whiteners),
        "provenance": {key: each for key, each in first.provenance.items() if key != "files"},
        "splits": splits,
    }


def count_rows(described: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """Write a row a split of a store that `describe_signals` described."""
    for split, each in described["splits"].items():
        least, most = each["repetitions"]
        repetitions = str(most) if least == most else f"{least} to {most}"
        dropped = ", ".join(f"{count} {reason}" for reason, count in each["dropped"].items() if count)
        yield split, each["pictures"], repetitions, each["trials"], dropped or "none"


def recorded_row(described: Mapping[str, Any]) -> tuple[object, ...]:
    """Write what all splits of a store share."""
    width = f"{described['voxels']} voxels" if "voxels" in described else str(described["channels"])
    rate, (start, end) = described["rate_hz"], described["window_ms"]
    window = "–" if rate is None else f"{start:g} to {end:g} ms"
    unit = described["unit"] + (
        f", {_several(count, 'whitener')}" if (count := described["whiteners"]) else ""
    )
    return width, "–" if rate is None else f"{rate:g} Hz", window, unit, _source(described)


def _source(described: Mapping[str, Any]) -> str:
    """Name the preparation with its sessions, or the file that others had prepared, and the caveats."""
    provenance = described["provenance"]
    kind = provenance.get("preparation", {}).get("kind", "")
    sessions = len(provenance.get("sessions", ()))
    sources = [kind or str(provenance.get("source", "")), _several(sessions, "session") if sessions else ""]
    return ", ".join(filter(None, [*sources, *described["caveats"]])) or "not said"


def _several(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}"


def _dropped(store: SignalStore) -> dict[str, Counter[str]]:
    """Count what was dropped of each split, by reason; a session knows that of splits that it has not."""
    sessions: dict[tuple[str, int], Mapping[str, int]] = {}
    for split, recording in store.splits.items():
        for each in recording.provenance.get("sessions", []):
            by_split = {split: each["dropped"], **each.get("dropped_by_split", {})}
            sessions |= {(name, each["session"]): reasons for name, reasons in by_split.items()}
    dropped: dict[str, Counter[str]] = defaultdict(Counter)
    for (split, _), reasons in sessions.items():
        dropped[split].update(reasons)
    return dropped
