"""Time shift between the onsets of an events.tsv and the markers of a recording."""

from collections.abc import Sequence

import numpy as np

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.errors import BrainhiveError

TOLERANCE_S = 0.005
"""Largest difference between an onset and its marker that counts as none. It is at
least two samples.
"""
MAX_DRIFT_S = 0.05
"""Largest time between an onset and its marker after a constant shift. Clocks drift."""
MIN_PAIRED_SHARE = 0.9
"""If at least this share of the onsets is near a marker, the shift is 0."""


def compare_onsets(
    onsets_s: Float64,
    markers: Sequence[tuple[int, str]],
    rate_hz: float,
    delay_s: float = 0.0,
) -> str:
    """Describe how the onsets of a table differ from the markers of the recording.

    Args:
        onsets_s: Onsets [n] of the table.
        markers: Sample and name of each marker.
        rate_hz: Sampling rate of the markers.
        delay_s: Time from an event to its picture, which is added to all onsets.

    Returns:
        A description. Empty if they agree, if no constant shift pairs half of them, or
        if `delay_s` makes up for the shift.

    Raises:
        BrainhiveError: if the shift is longer than the time between two onsets, which
            assigns each onset to another event.
    """
    times_s = np.unique([sample / rate_hz for sample, _ in markers])  # [m]
    if min(len(onsets_s), len(times_s)) < 3:
        return ""

    # an onset in whole seconds is up to 0.5 s from its marker
    onsets_s = np.sort(onsets_s)
    is_whole = not (onsets_s % 1).any() and (times_s % 1).any()
    max_distance_s = 0.5 + TOLERANCE_S if is_whole else MAX_DRIFT_S

    # find the shift, and refine it by the median of the pairs
    shift_s = _find_shift(onsets_s, times_s, max_distance_s)
    offsets_s = _subtract_nearest(onsets_s - shift_s, times_s)
    is_near = np.abs(offsets_s) <= 2 * max_distance_s
    shift_s += float(np.median(offsets_s[is_near]))
    offsets_s = _subtract_nearest(onsets_s - shift_s, times_s)
    is_paired = np.abs(offsets_s) <= max_distance_s
    if is_paired.sum() < max(3, min(len(onsets_s), len(times_s)) / 2):
        return ""

    # describe unpaired onsets, deviations and the shift
    tolerance_s = max(TOLERANCE_S, 2 / rate_hz)
    differences = []
    unpaired_count = int((~is_paired).sum())
    if unpaired_count:
        differences.append(
            f"rows without a marker: {unpaired_count} of {len(onsets_s)}"
        )
    max_offset_s = np.abs(offsets_s[is_paired]).max()
    if max_offset_s > 4 * tolerance_s:
        cause = (
            "its onsets are whole seconds" if is_whole else "after that its onsets lie"
        )
        differences.append(f"{cause}, up to {max_offset_s:.2g} s from the markers")
    min_shift_s = max_distance_s if is_whole else tolerance_s
    delay_tolerance_s = max(tolerance_s, 0.1 * abs(shift_s))
    if abs(shift_s) > min_shift_s and abs(shift_s + delay_s) > delay_tolerance_s:
        direction = "later" if shift_s > 0 else "earlier"
        shift = f"it is {abs(shift_s):.4g} s {direction} throughout"
        hint = (
            f"preparation.delay_ms={-1000 * shift_s:.0f} would move it onto them, if "
            "they are right"
        )
        if abs(shift_s) > np.median(np.diff(onsets_s)):
            raise BrainhiveError("; ".join(differences + [shift]), hint)
        differences.append(f"{shift}; {hint}")
    return "; ".join(differences)


def _find_shift(onsets_s: Float64, times_s: Float64, bin_s: float) -> float:
    """Return the time by which ascending onsets [n] are later than marker times [m].

    An onset and a marker form a pair if they are within `bin_s`.
    """
    from scipy.signal import fftconvolve

    offsets_s = _subtract_nearest(onsets_s, times_s)
    if np.mean(np.abs(offsets_s) <= bin_s) >= MIN_PAIRED_SHARE:
        return 0.0

    # count onsets and markers in bins, and find the lag with the most pairs within a
    # bin of each other, or the smallest lag if tied
    first_s = min(onsets_s[0], times_s[0])
    onset_counts = np.bincount(((onsets_s - first_s) / bin_s).astype(int))
    marker_counts = np.bincount(((times_s - first_s) / bin_s).astype(int))
    pair_counts = np.rint(fftconvolve(onset_counts, marker_counts[::-1]))
    pair_counts = np.convolve(pair_counts, [1, 1, 1], "same")
    lags = np.arange(len(pair_counts)) - (len(marker_counts) - 1)
    best_index = np.lexsort((np.abs(lags), -pair_counts))[0]
    return float(lags[best_index] * bin_s)


def _subtract_nearest(onsets_s: Float64, times_s: Float64) -> Float64:
    """Subtract from each onset [n] the nearest of ascending times [m]."""
    index = np.searchsorted(times_s, onsets_s).clip(1, len(times_s) - 1)
    is_left_nearer = onsets_s - times_s[index - 1] < times_s[index] - onsets_s
    return onsets_s - times_s[index - is_left_nearer]
