"""Reliability of a recording, measured by the repetitions of its stimuli."""

from collections.abc import Iterator

import numpy as np
import torch

from brainhive_cli.core.base import Array, BrainhiveError, Float64, Int64
from brainhive_cli.data.signals.repetitions import (
    average_by_part,
    average_trials,
    separate_in_time,
)
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.measurement import (
    average_random_halves,
    correlate,
    noise_ceiling,
    spearman_brown,
)

MAX_STIMULI = 1000
"""Largest number of stimuli that are measured. Correlations are then precise to .03."""


def measure_reliability(
    recording: Trials, split: str
) -> tuple[Int64, Float64, Float64, Float64]:
    """Measure the reliability of a recording by its repetitions.

    Args:
        recording: Recording of a subject and split.
        split: Name of the split, for errors.

    Returns:
        Number of repetitions [N] of each measured stimulus, at least 2.
        Mean [C, T] over all repetitions. If whiteners are known, signals before
            whitening are averaged, so channels are sites.
        Correlation [C, T] over stimuli of two halves of the repetitions, corrected to
            all of them (Spearman-Brown).
        Noise ceiling [C, T]: percent of the variance of the means of the stimuli that
            is not noise (Allen et al. 2022).

    Raises:
        BrainhiveError: if fewer than 3 stimuli were shown twice, or
            repetitions follow one another.
    """
    rows = np.flatnonzero(recording.counts > 1)
    # Smallest number of repeated stimuli whose reliability is measured.
    if len(rows) < 3:
        raise BrainhiveError(
            f"{len(rows)} {split} stimuli were shown twice or more: reliability needs "
            "three",
            "another split",
        )
    rng = np.random.default_rng(0)
    trials = recording.take(np.sort(rng.permutation(rows)[:MAX_STIMULI]))

    # keep stimuli with repetitions in several parts of the recording
    parts, part_counts = separate_in_time(trials)
    is_apart = part_counts > 1
    parts = parts[is_apart[trials.picture_of_trial]]
    trials = trials.take(is_apart)
    part_counts = part_counts[is_apart]
    shape = trials.signal.shape[1:]  # C, T

    def iterate_means() -> Iterator[Array]:
        return average_by_part(trials, parts, is_mixed=True)

    # mean over trials in the space of the sensors
    evoked = average_trials(trials)

    # agreement of halves, and share of the variance that is not noise
    generator = torch.Generator().manual_seed(0)
    halves = (average_random_halves(means, generator) for means in iterate_means())
    correlations = correlate(halves).mean(0).reshape(shape)
    times = part_counts.sum() / (part_counts // 2).sum()
    split_half = spearman_brown(correlations, times)
    ceiling = noise_ceiling(iterate_means, part_counts)
    return trials.counts, evoked, split_half, ceiling
