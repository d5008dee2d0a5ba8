"""Trials from arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainhive_cli.data.signals import Sensors, Trials, Voxels


def make_trials(
    subject: int,
    signal: np.ndarray,
    stimulus: Any,
    channels: Sequence[str] = (),
    rate_hz: float | None = 250.0,
    counts: Any = None,
    regions: Mapping[str, Sequence[int]] | None = None,
    **fields: Any,
) -> Trials:
    """Make trials from signals [N, C, T] or [N, R, C, T] and stimulus rows [N].

    Without channel names, C are voxels.
    """
    signal = signal[:, None] if signal.ndim == 3 else signal
    masks = {
        name: np.isin(np.arange(signal.shape[2]), rows)
        for name, rows in (regions or {}).items()
    }
    times_s = np.arange(signal.shape[3]) / (rate_hz or 1.0)
    return Trials.from_repetitions(
        signal,
        (),
        Sensors(tuple(channels)) if channels else Voxels(masks),
        times_s,
        rate_hz,
        "",
        repetitions=counts,
        subject=subject,
        stimulus=np.asarray(stimulus),
        **fields,
    )


@dataclass
class ArrangedTrials:
    """Columns of trials, with a row for each picture and padding for absent trials.

    Attributes:
        image_ids: Ids [N] of the pictures.
        is_there: True [N, R] where the picture has a trial.
        signal: Signals [N, R, ...], padded with 0.
        sessions: Sessions [N, R], padded with -1.
        runs: Runs [N, R], padded with -1.
        onset_s: Onsets [N, R] in seconds, padded with NaN.
        trial_numbers: Positions [N, R] in the recording, padded with -1.
    """

    image_ids: list[str]
    is_there: np.ndarray
    signal: Any
    sessions: Any
    runs: Any
    onset_s: Any
    trial_numbers: Any


def arrange(trials: Trials) -> ArrangedTrials:
    """Arrange the columns of trials by picture. Unknown columns are None."""
    columns = {}
    for name, padding in {
        "signal": 0,
        "sessions": -1,
        "runs": -1,
        "onset_s": np.nan,
        "trial_numbers": -1,
    }.items():
        values = getattr(trials, name)
        if values is not None:
            values = trials.as_repetitions(np.asarray(values[:]), padding)
        columns[name] = values
    is_there = np.arange(trials.max_repetitions) < trials.counts[:, None]
    return ArrangedTrials(list(trials.pictures), is_there, **columns)
