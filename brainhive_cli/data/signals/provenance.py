"""Provenance of signals: the steps and programs that made them, and caveats."""

from collections.abc import Mapping
from typing import Any

from brainhive_cli.core.results import (
    ACCEPTED,
    SIMULATED,
    UNKNOWN_STEPS,
    WHITENED_BY_TESTED,
    flatten,
    merge_caveats,
)

Provenance = Mapping[str, Any]
"""Facts about the origin of signals. `sessions` holds further facts of each session."""

SELECTION_KEYS = frozenset(
    "root files sessions accept task derivatives where trials key info stimuli events "
    "column onset_unit stim_channel delay_ms stimulus stimulus_ms stimulus_s channels "
    "types exclude mask masks regions voxels repetitions seed shuffle test_pictures "
    "axes".split()
)
"""Keys of preparations that locate signals, or select trials, sensors or voxels. All
other keys change the numbers.
"""


def list_sources(provenance: Provenance) -> list[Provenance]:
    """List the common facts, then the facts of each session."""
    return [provenance] + list(provenance.get("sessions", ()))


def find_fact(provenance: Provenance, name: str) -> str:
    """Return a fact of the first source that has it, or "" if none has.

    Args:
        provenance: Origin of signals.
        name: Name of the fact, such as `recorded_unit` or `modality`.
    """
    for source in list_sources(provenance):
        if name in source:
            return str(source[name])
    return ""


def list_caveats(provenance: Provenance) -> list[str]:
    """List the caveats that apply to all results from these signals."""
    sources = list_sources(provenance)
    is_simulated = any("simulated" in source for source in sources)
    steps = [source["preparation"] for source in sources if "preparation" in source]
    # a whitener of both splits was fitted to test trials
    is_whitened_by_both = False
    # the steps of trials from other programs may be unknown
    has_unknown_steps = False
    for keys in steps:
        is_whitened = keys.get("whiten") not in ("no", False)
        if is_whitened and keys.get("whiten_by") == "both":
            is_whitened_by_both = True
        if "unknown" in (keys.get("whitened"), keys.get("averaged")):
            has_unknown_steps = True
    return merge_caveats(
        [SIMULATED] if is_simulated else [],
        [WHITENED_BY_TESTED] if is_whitened_by_both else [],
        [UNKNOWN_STEPS] if has_unknown_steps else [],
        [ACCEPTED] if any("accepted" in source for source in sources) else [],
    )


def read_preparation(provenance: Provenance) -> dict[str, Any]:
    """Read the steps that made the signals, by dotted key.

    `simulated` is a step. `SELECTION_KEYS` are no steps.
    """
    # the common steps override the steps of single sessions
    keys: dict[str, Any] = {}
    for session in provenance.get("sessions", ()):
        keys |= session.get("preparation", {})
    keys |= provenance.get("preparation", {})
    steps = flatten({key: keys[key] for key in keys if key not in SELECTION_KEYS})
    if SIMULATED in list_caveats(provenance):
        steps["simulated"] = True
    return steps


def list_preparations(provenance: Provenance) -> tuple[str, ...]:
    """List the kinds of the preparations that made the signals.

    A program that simulated signals is `simulated`, a session without facts `unknown`.
    """
    kinds = set()
    for session in provenance.get("sessions", ()) or [{}]:
        source = {**provenance, **session}
        if "simulated" in source:
            kinds.add("simulated")
        if "preparation" in source or "simulated" not in source:
            kinds.add(str(source.get("preparation", {}).get("kind", "unknown")))
    return tuple(sorted(kind.replace("_", "-") for kind in kinds))


def list_durations_ms(provenance: Provenance) -> set[float]:
    """List the durations of the stimuli in ms, which may differ between sessions."""
    durations = {source.get("stimulus_ms") for source in list_sources(provenance)}
    return {float(duration) for duration in durations if duration is not None}
