"""Time shift between the onsets of an events.tsv and the markers of a recording."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.base import Bool, BrainhiveError, Float64
from brainhive_cli.data.recordings.account import Dispute

TOLERANCE_S = 0.005
"""Largest difference between an onset and its marker that counts as none. It is at
least two samples.
"""


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
    onsets_s = np.sort(onsets_s)
    shift_s, offsets_s, max_distance_s, is_whole = _pair(onsets_s, times_s)
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


def compare_codes(
    onsets_s: Float64,
    labellings: Iterable[Sequence[str]],
    markers: Sequence[tuple[int, str]],
    rate_hz: float,
) -> Dispute | None:
    """Compare the pictures of a table with the codes of the recording.

    Codes that are as many and as frequent as the pictures, or as their categories, tell
    them apart, so they must fit one to one. Other codes say only when a picture came.

    Args:
        onsets_s: Onsets [n] of the table.
        labellings: Lists [n] of the pictures, or of their categories.
        markers: Sample and name of each marker.
        rate_hz: Sampling rate of the markers.

    Returns:
        A dispute with the number of contradictions, or of codes without a row, or None.
    """
    times_s = np.array([sample / rate_hz for sample, _ in sorted(markers)])  # [m]
    codes = np.array([name for _, name in sorted(markers)])
    if min(len(onsets_s), len(set(times_s))) < 3:
        return None
    order = np.argsort(onsets_s, kind="stable")
    onsets_s = onsets_s[order]
    shift_s, _, max_distance_s, _ = _pair(onsets_s, np.unique(times_s))

    # codes of pictures stand at an onset more often than by chance
    times_s += shift_s
    is_near = np.abs(_subtract_nearest(times_s, onsets_s)) <= max_distance_s
    usual = [code for code in set(codes) if is_near[codes == code].mean() > 0.2]
    is_usual = np.isin(codes, usual)
    codes, times_s = codes[is_usual], times_s[is_usual]
    n_extra = int((~is_near[is_usual]).sum())
    # Largest share of the codes of pictures for which a table has no row.
    if n_extra > 0.2 * len(codes):
        problem = f"{n_extra} of {len(codes)} codes have no row in the table"
        return Dispute("lost-trials", problem, count=n_extra)
    if len(codes) < 3:
        return None

    nearest = np.abs(times_s - onsets_s[:, None]).argmin(1)
    is_paired = np.abs(times_s[nearest] - onsets_s) <= max_distance_s
    # Largest number of trials by which codes are moved to explain a contradiction.
    max_trial_shift = 5
    for labelling in labellings:
        labels = np.array(labelling, str)[order]
        # compare the most frequent label with the most frequent code, and so on
        counts = (sorted(Counter(x.tolist()).values()) for x in (labels, codes))
        ranked = zip_longest(*map(reversed, counts), fillvalue=0)
        difference = sum(abs(first - second) for first, second in ranked)
        n_codes = len(usual)
        # Largest share of trials by which the counts of codes and of pictures differ,
        # if each picture has a code of its own. A few triggers are lost.
        if n_codes < 2 or difference > 0.1 * len(codes):
            continue
        pairs = labels[is_paired], codes[nearest][is_paired]
        n_wrong = int((~_fit_one_to_one(*pairs)).sum())
        if not n_wrong:
            continue
        cause = ""
        for shift in range(-max_trial_shift, max_trial_shift + 1):
            moved = pairs[0][max(0, shift) :], pairs[1][max(0, -shift) :]
            length = min(map(len, moved))
            if _fit_one_to_one(moved[0][:length], moved[1][:length]).mean() > 0.95:
                cause = f". The table is {abs(shift)} trials off"
        problem = (
            f"{n_wrong} of {is_paired.sum()} trials have a code that contradicts the "
            f"table, whose {len(set(labels))} values fit the {n_codes} codes one to "
            f"one{cause}"
        )
        remedy = "correct the onsets or the order of the table"
        return Dispute("mismatched-codes", problem, count=n_wrong, remedy=remedy)
    return None


def _fit_one_to_one(labels: NDArray[np.str_], codes: NDArray[np.str_]) -> Bool:
    """Mark the pairs [n] of the usual code of a label and the usual label of a code."""
    pairs = list(zip(labels.tolist(), codes.tolist(), strict=True))
    usual_code: dict[str, str] = {}
    usual_label: dict[str, str] = {}
    for (label, code), _ in Counter(pairs).most_common():
        usual_code.setdefault(label, code)
        usual_label.setdefault(code, label)
    return np.array([usual_code[a] == b and usual_label[b] == a for a, b in pairs])


def _pair(onsets_s: Float64, times_s: Float64) -> tuple[float, Float64, float, bool]:
    """Pair ascending onsets [n] with ascending marker times [m].

    Returns:
        Time by which the onsets are later, distance [n] of each onset from its marker
        after this shift, largest distance of a pair, and True for onsets in whole
        seconds.
    """
    # an onset in whole seconds is up to 0.5 s from its marker
    is_whole = not (onsets_s % 1).any() and bool((times_s % 1).any())
    # Largest time between an onset and its marker after a constant shift. Clocks drift.
    max_distance_s = 0.5 + TOLERANCE_S if is_whole else 0.05

    # find the shift, and refine it by the median of the pairs
    shift_s = _find_shift(onsets_s, times_s, max_distance_s)
    offsets_s = _subtract_nearest(onsets_s - shift_s, times_s)
    is_near = np.abs(offsets_s) <= 2 * max_distance_s
    shift_s += float(np.median(offsets_s[is_near]))
    return (
        shift_s,
        _subtract_nearest(onsets_s - shift_s, times_s),
        max_distance_s,
        is_whole,
    )


def _find_shift(onsets_s: Float64, times_s: Float64, bin_s: float) -> float:
    """Return the time by which ascending onsets [n] are later than marker times [m].

    An onset and a marker form a pair if they are within `bin_s`.
    """
    from scipy.signal import fftconvolve

    # onsets outside the recording have no marker
    is_inside = (onsets_s >= times_s[0] - bin_s) & (onsets_s <= times_s[-1] + bin_s)
    is_near = np.abs(_subtract_nearest(onsets_s, times_s)) <= bin_s
    # If at least this share of the onsets, of those between the first and the last
    # marker, is near a marker, the shift is 0.
    if is_near.sum() >= 0.9 * max(is_inside.sum(), len(onsets_s) / 2):
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
