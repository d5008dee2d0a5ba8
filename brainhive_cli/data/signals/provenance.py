"""Provenance of signals: steps, programs and caveats that a recording carries along."""

from collections.abc import Mapping
from typing import Any

from brainhive_cli.core.facts import flatten
from brainhive_cli.core.measurements import (
    SIMULATED,
    UNKNOWN_STEPS,
    WHITENED_BY_TESTED,
    merge_caveats,
)

Provenance = Mapping[str, Any]
"""Facts of the origin of signals; `sessions` holds further facts of each session."""

SELECTION_KEYS = {
    *"root files sessions task derivatives where trials key info stimuli events column "
    "onset_unit stim_channel delay_ms stimulus stimulus_ms stimulus_s channels types "
    "exclude mask masks regions voxels repetitions seed shuffle test_pictures "
    "drop_test_categories axes".split()
}
"""Keys of preparations that say where signals are and which trials, sensors or voxels
are taken. All others change the numbers themselves.
"""


def list_sources(provenance: Provenance) -> list[Provenance]:
    """List the facts of all sessions together, then those of each session."""
    return [provenance, *provenance.get("sessions", ())]


def list_caveats(provenance: Provenance) -> list[str]:
    """List the caveats of every number that depends on the signals.

    The provenance travels with a store, whatever data set or name it is kept under.
    """
    sources = list_sources(provenance)
    is_simulated = any("simulated" in source for source in sources)
    steps = [source["preparation"] for source in sources if "preparation" in source]
    whitened = [step for step in steps if step.get("whiten") not in ("no", False)]
    # a whitener of both splits has seen the tested trials
    is_by_tested = any(step.get("whiten_by") == "both" for step in whitened)
    # trials that were cut elsewhere may lack a record of these steps
    recorded = [step.get(key) for step in steps for key in ("whitened", "averaged")]
    return merge_caveats(
        [SIMULATED] if is_simulated else [],
        [WHITENED_BY_TESTED] if is_by_tested else [],
        [UNKNOWN_STEPS] if "unknown" in recorded else [],
    )


def read_preparation(provenance: Provenance) -> dict[str, Any]:
    """Read the steps that made the signals, by dotted key.

    `simulated` is one of them. The choice of trials, sensors or voxels is not.
    """
    # the steps of all sessions override those of single sessions
    steps: dict[str, Any] = {}
    for source in [*provenance.get("sessions", ()), provenance]:
        steps |= source.get("preparation", {})
    steps = flatten({key: steps[key] for key in steps if key not in SELECTION_KEYS})
    if SIMULATED in list_caveats(provenance):
        steps["simulated"] = True
    return steps


def read_modality(provenance: Provenance) -> str | None:
    """Read the kind of the recordings that `prepare` noted; None if it noted none."""
    for source in list_sources(provenance):
        if "modality" in source:
            return str(source["modality"])
    return None


def list_preparations(provenance: Provenance) -> tuple[str, ...]:
    """List the kinds of the preparations that made the signals.

    `simulated` stands for a program, `unknown` for a session without a record.
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
    """List for how long stimuli were shown, in ms; sessions may differ in it."""
    durations = {source.get("stimulus_ms") for source in list_sources(provenance)}
    return {float(duration) for duration in durations if duration is not None}
