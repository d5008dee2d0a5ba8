"""Trials from arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brainhive_cli.data.signals.spaces import Sensors, Voxels
from brainhive_cli.data.signals.trials import Trials


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
    return Trials(
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
