"""Showings of pictures among the events of a recording: one showing is one trial."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from brainhive_cli.core.base import Bool, Float64
from brainhive_cli.data.recordings.account import Dispute
from brainhive_cli.data.recordings.tables import RowKinds

PAIR_SEPARATOR = " + "
"""Text between the names of two events that come together."""
TASK = "task of the file names"
"""Column of `find_mixed_kinds` for the entity `task`."""
MIN_COPIES = 6
"""Smallest number of events that repeat a showing, before they are no trials."""
COPY_S = 0.1
"""Lag of copies by programs. No picture is shown twice within it."""


def find_copies(
    times_s: Float64, pictures: Sequence[str], are_categories: bool
) -> tuple[Bool, Float64]:
    """Find events that repeat the showing before them, such as its offset or answer.

    Nearly every showing is repeated at a lag at which no other picture comes. Equal
    pictures at the pace of trials are showings of their own.

    Args:
        times_s: Onsets [n] of the events of pictures, ascending.
        pictures: Picture [n] of each event.
        are_categories: True if a category may be shown several times in a row.

    Returns:
        Mask [n] of the copies, and their lags in seconds.
    """
    codes = np.unique(np.array(pictures, str), return_inverse=True)[1]
    lags = np.diff(np.float64(times_s))  # [n - 1], to the next event
    is_same = np.diff(codes) == 0
    is_copy = np.zeros(len(codes), bool)
    if is_same.sum() < MIN_COPIES:
        return is_copy, lags[:0]

    # lags of equal neighbours, in clusters without large gaps
    same_lags = np.sort(lags[is_same])
    # Largest ratio of neighbouring lags of the same kind.
    max_lag_ratio = 1.2
    # Lag of answers and offsets. Shorter lags of one kind differ as much as this one.
    gaps = (max_lag_ratio - 1) * np.maximum(same_lags[:-1], 0.6)
    breaks = np.flatnonzero(np.diff(same_lags) > gaps) + 1
    # below some lag, nearly all events repeat the event before
    order = np.argsort(lags)
    same_shares = np.cumsum(is_same[order]) / np.arange(1, len(lags) + 1)
    # Smallest share of the events at the lag of copies that repeat the event before.
    min_same_share = 0.95
    near = np.flatnonzero(same_shares >= min_same_share)
    n_near = int(is_same[order][: near[-1] + 1].sum()) if len(near) else 0
    for cluster in filter(len, np.split(same_lags, np.union1d(breaks, n_near))):
        low, high = cluster[0] - 1e-6, cluster[-1] + 1e-6
        is_at_lag = (lags >= low) & (lags <= high)
        is_repeat = is_at_lag & is_same
        n_copies = int(is_repeat.sum())
        # Smallest share of the showings with a copy. Not every picture gets an answer.
        is_usual = n_copies >= 0.5 * (len(codes) - is_same.sum())
        # a block of one category has equal neighbours, too
        is_block = n_copies > 0.9 * is_same.sum() and high > COPY_S
        is_even = np.abs(np.diff(lags)) < (max_lag_ratio - 1) * lags[1:]
        is_series = (is_repeat[1:] & is_repeat[:-1] & is_even).sum() > n_copies / 3
        if n_copies < MIN_COPIES or not is_usual or is_series:
            continue
        if is_same[is_at_lag].mean() >= min_same_share and not (
            are_categories and is_block
        ):
            is_copy[1:] |= is_repeat
    if is_copy.any():  # late answers come before the next picture, too
        period = float(np.median(np.diff(times_s[~is_copy])))
        # Latest time of an answer, as a share of the interval between pictures.
        is_copy[1:] |= is_same & ~is_copy[:-1] & (lags < 0.75 * period)

    # pairs whose lags overlap with the pace
    if not (is_copy.any() or are_categories):
        edges = np.flatnonzero(np.append(~is_same, True)) + 1
        lengths = np.diff(edges, prepend=0)
        # Smallest share of events in whole pairs, if copies have no lag of their own.
        if lengths[lengths % 2 == 0].sum() >= 0.9 * len(codes):
            for start, stop in zip(edges - lengths, edges, strict=True):
                is_copy[start + 1 : stop : 2] = True
            inner = lags[is_copy[1:]]
            periods = np.diff(times_s[~is_copy])
            is_answer = periods.std() < inner.std() / 2  # at any time of a trial
            ratio = np.median(inner) / np.median(lags[~is_copy[1:]])
            if not is_answer and 1 / max_lag_ratio < ratio < max_lag_ratio:
                is_copy[:] = False
    return is_copy, lags[is_copy[1:]]


def find_mixed_kinds(
    pictures: Sequence[str], kinds: Sequence[RowKinds], source: str
) -> list[Dispute]:
    """Find columns or entities under several of whose values a picture occurs.

    Args:
        pictures: Picture [n] of each event.
        kinds: Columns and values [n] of each event.
        source: Table or folder, for the problem.
    """
    values: dict[str, dict[str, set[str]]] = {}
    for picture, row_kinds in zip(pictures, kinds, strict=True):
        for column, value in row_kinds:
            values.setdefault(column, {}).setdefault(picture, set()).add(value)
    disputes = []
    for column, picture_values in values.items():
        mixed = [found for found in picture_values.values() if len(found) > 1]
        # a value of its own for each row is a number, not a kind
        n_values = len(set().union(*picture_values.values()))
        if not mixed or n_values > len(pictures) / 4:
            continue
        names = sorted(set().union(*mixed))
        remedy = f"preparation.where={{{column}: {names[-1]}}}"
        if column == TASK:
            remedy = f"preparation.files=*task-{names[-1]}*"
        disputes.append(
            Dispute(
                "mixed-kinds",
                f"{len(mixed)} of {len(picture_values)} pictures occur under several "
                f"values of {column}: {', '.join(names)} ({source})",
                names=tuple(names),
                remedy=f"{remedy} reads one of them",
            )
        )
    return disputes


def find_names_at_pace(
    times_s: Float64, others: Sequence[tuple[float, str]]
) -> dict[str, int]:
    """Find other events that stand where a picture is expected.

    Both intervals, from the event before and to the event after, are as long as those
    between pictures without such an event. Fixations, offsets and answers are nearer to
    their picture.

    Args:
        times_s: Onsets [n] of the pictures, ascending.
        others: Time in seconds and name of each other event.

    Returns:
        Number of events by name, for names whose events mostly stand there.
    """
    if len(times_s) < MIN_COPIES or not others:
        return {}
    # the two bytes of a code, or the halves of a port, are one event
    joined: list[tuple[float, str]] = []
    for time_s, name in others:
        if joined and 0 <= time_s - joined[-1][0] < COPY_S / 2:
            joined[-1] = joined[-1][0], joined[-1][1] + PAIR_SEPARATOR + name
        else:
            joined.append((time_s, name))
    other_times = np.array([time_s for time_s, _ in joined])
    names = [name for _, name in joined]
    intervals = np.diff(times_s)
    after = np.searchsorted(times_s, other_times)
    is_inner = (after > 0) & (after < len(times_s))
    is_plain = np.ones(len(intervals), bool)
    is_plain[after[is_inner] - 1] = False
    plain = intervals[is_plain if is_plain.any() else slice(None)]
    # Shortest and longest interval at the pace of pictures, relative to the 5th and
    # 90th percentile of their intervals.
    low, high = np.percentile(plain, [5, 90]) * (0.8, 1.25)
    # Largest ratio of an interval at the pace to the median. Longer ones are pauses.
    high = min(high, 2.5 * float(np.median(plain)))

    # candidates are as far from each picture as pictures are from each other
    padded = np.concatenate([[-np.inf], times_s, [np.inf]])
    to_last = other_times - padded[after]
    to_next = padded[after + 1] - other_times
    is_far = np.minimum(to_last, to_next) >= low
    totals = Counter(names)
    far_counts = Counter(np.array(names)[is_far].tolist())
    is_candidate = is_far & [far_counts[name] > totals[name] / 2 for name in names]
    sequence = np.sort(np.concatenate([times_s, other_times[is_candidate]]))
    gaps = np.concatenate([[np.inf], np.diff(sequence), [np.inf]])
    is_pace = (gaps >= low) & (gaps <= high)
    counts = Counter[str]()
    inner_names = set()
    for index in np.flatnonzero(is_candidate).tolist():
        position = int(np.searchsorted(sequence, other_times[index]))
        neighbours = is_pace[position : position + 2]
        # at the edge of a run or pause, an event has one neighbour
        is_edge = gaps[position : position + 2].max() > 2 * high
        counts[names[index]] += bool(neighbours.all() or neighbours.any() & is_edge)
        if neighbours.all():
            inner_names.add(names[index])
    return {
        name: counts[name] for name in inner_names if 2 * counts[name] > totals[name]
    }
