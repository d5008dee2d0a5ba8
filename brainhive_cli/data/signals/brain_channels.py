"""Channels that hold brain signals, unlike channels of eyes and of stimuli."""

import re
from collections.abc import Sequence

import numpy as np

from brainhive_cli.core.base import Array, Bool, BrainhiveError, Int64
from brainhive_cli.data.signals.spaces import strip_electrode_name

EYE_NAME = re.compile(
    r".*(EOG|GAZE|PUPIL|EYE|[XY]POS).*|(HEO|VEO)[ _-]?[A-Z]?\d*|(LO|SO|IO)[12]",
    re.IGNORECASE,
)
"""Names of electrodes at the eyes, and of the channels of eye trackers."""
STIMULUS_NAME = re.compile(
    r".*(TRIG|STIM|STATUS|MARKER|EVENT|PHOTO|DIODE|AUDIO).*"
    r"|(STI|DIN|TTL|TRG|UPPT)[ _-]?[A-Z]?\d*",
    re.IGNORECASE,
)
"""Names of channels that record the stimuli: triggers, photodiodes, sound."""
STIMULUS_HINT = "leave it out of the signals"


def list_eye_channels(names: Sequence[str]) -> list[str]:
    """List the channels of eyes, by name."""
    return [name for name in names if EYE_NAME.fullmatch(strip_electrode_name(name))]


def refuse_stimulus_channels(names: Sequence[str], where: str) -> None:
    """Raise an error if the name of a channel says that it records the stimuli."""
    stimulus_names = []
    for name in names:
        if STIMULUS_NAME.fullmatch(strip_electrode_name(name)):
            stimulus_names.append(name)
    if stimulus_names:
        raise BrainhiveError(
            f"{where}: {', '.join(stimulus_names)} records the stimuli, not the brain",
            STIMULUS_HINT,
        )


def find_codes(signal: Array, labels: Int64) -> Bool:
    """Find the channels that hold a code of the labels, such as the level of a trigger.

    The largest or the smallest value of such a channel, to 5 digits, is equal in trials
    of a label and differs between labels. The agreement is corrected for chance, as in
    Cohen's kappa, over pairs of trials.

    Args:
        signal: Trials [n, C, T].
        labels: Label [n] of each trial.

    Returns:
        Mask [C]. None is marked if all are, because trials are then copies.
    """
    is_code = np.zeros(signal.shape[1], bool)
    for channel in range(len(is_code)):
        values = signal[:, channel]
        scale = max(np.abs(values).max(), np.finfo(np.float32).tiny)
        for extremes in (values.max(1), values.min(1)):
            levels = np.unique(np.round(extremes / scale, 5), return_inverse=True)[1]
            # shares of pairs of trials with the same level
            expected = _count_pairs(levels) / _count_pairs(np.zeros_like(levels))
            groups = labels * (levels.max() + 1) + levels
            observed = _count_pairs(groups) / max(1, _count_pairs(labels))
            # Smallest agreement of a channel's codes with the labels, from 0 by
            # chance to 1.
            is_code[channel] |= observed - expected > 0.8 * (1 - expected)
    return is_code & (not is_code.all() or len(is_code) == 1)


def _count_pairs(groups: Int64) -> int:
    """Count the ordered pairs of different trials [n] that are in the same group."""
    counts = np.unique(groups, return_counts=True)[1]
    return int((counts * (counts - 1)).sum())
