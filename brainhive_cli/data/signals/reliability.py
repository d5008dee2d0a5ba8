"""Reliability of a recording by the repetitions of its stimuli."""

from collections.abc import Iterator

import numpy as np
import torch

from brainhive_cli.core.arrays import Array, Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.repetitions import (
    average_by_part,
    read_repetitions,
    separate_in_time,
)
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.measurement.reliability import (
    average_random_halves,
    correlate,
    noise_ceiling,
    spearman_brown,
)

MAX_STIMULI = 1000
"""Most stimuli that are measured, drawn with a seed; correlations are then precise to
.03.
"""


def measure_reliability(
    recording: Trials, split: str
) -> tuple[Int64, Float64, Float64, Float64]:
    """Measure how reliable a recording is by its repetitions.

    Args:
        recording: One subject's recording of a split.
        split: Its name, for messages.

    Returns:
        [N] repetitions of each measured stimulus, two at least.
        [C, T] mean over all repetitions. If the store has the whiteners of its
            sessions, the mean is of the signals before whitening: channels are sites.
        [C, T] correlation over stimuli of two halves of the repetitions,
            Spearman-Brown corrected to all of them.
        [C, T] percent of the variance of the stimuli's means that is not noise (Allen
            et al. 2022).

    Raises:
        BrainhiveError: if fewer than three stimuli were shown twice, or repetitions
            follow one another.
    """
    # stimuli that were shown twice at least, drawn where there are more than are
    # measured
    rows = np.flatnonzero(recording.counts > 1)
    if len(rows) < 3:
        raise BrainhiveError(
            (
                f"{len(rows)} {split} stimuli were shown twice or more: reliability "
                "needs three"
            ),
            "another split",
        )
    trials = recording.take(
        np.sort(np.random.default_rng(0).permutation(rows)[:MAX_STIMULI])
    )

    # those whose repetitions are far apart in time; successive ones of a stimulus count
    # as one
    parts, part_counts = separate_in_time(trials)
    is_apart = part_counts > 1
    trials = trials.take(is_apart)
    parts = parts[is_apart]
    part_counts = part_counts[is_apart]
    shape, counts = trials.signal.shape[2:], trials.counts  # C, T

    def means() -> Iterator[Array]:
        return average_by_part(trials, parts, is_mixed=True)

    # mean over trials, before whitening where each session's whitener is known
    evoked = np.zeros(shape)
    for stimulus in read_repetitions(trials):  # [R, C, T]
        evoked += stimulus.sum(0)
    evoked /= counts.sum()

    # agreement of two halves, and what is not noise
    draw = torch.Generator().manual_seed(0)
    halves = (
        correlate(average_random_halves(stimulus, draw) for stimulus in means())
        .mean(0)
        .reshape(shape)
    )
    split_half = spearman_brown(halves, part_counts.sum() / (part_counts // 2).sum())
    ceiling = noise_ceiling(means, part_counts)
    return counts, evoked, split_half, ceiling
