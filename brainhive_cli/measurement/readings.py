"""Readings of a foreign result: the usual conventions by which files give a score."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.nn.utils.rnn import pad_sequence

from brainhive_cli.measurement.foreign_result import ForeignResult
from brainhive_cli.measurement.ranks import normalise_tokens

MASK = 100
"""A similarity is a mask if it lies this many times further below zero than any value
above it lies from zero, as -10⁹ does.
"""
AS_FILED = ""
DISTANCE = "distances, of which small ones are alike"
COSINE = "cosine similarity"
PEARSON = "Pearson correlation"
EUCLIDEAN = "Euclidean distance"
DOT = "dot product"
SCALED = "cosine with the gallery standardised"
MEASURES = (AS_FILED, DISTANCE, COSINE, PEARSON, EUCLIDEAN, DOT, SCALED)
MEAN = "mean similarity of repetitions"
RAW_MEAN = "mean prediction of repetitions"
WITHOUT = "signals left out whose own similarity is missing"
REPETITIONS = (AS_FILED, MEAN, RAW_MEAN, WITHOUT)
LAYOUTS = (AS_FILED, "rows are candidates")
DIRECTIONS = (AS_FILED, "picture to signal")


def list_readings(result: ForeignResult) -> Iterator[tuple[str, list[ForeignResult]]]:
    """Read a result by each combination of usual conventions, the fewest first.

    Yields:
        The names of the conventions, empty for the first, and what the files of each
        seed or subject give.
    """
    labels = (AS_FILED, *result.labels)
    options = product(MEASURES, labels, REPETITIONS, LAYOUTS, DIRECTIONS)
    for names in sorted(options, key=lambda names: len([*filter(None, names)])):
        members = list[ForeignResult]()
        for member in (result, *result.others):
            read = _read(member, *names)
            if read is not None:
                members.append(read)
        if members:
            yield ", ".join(filter(None, names)), members


def _read(
    result: ForeignResult,
    measure: str,
    labels: str,
    repetitions: str,
    layout: str,
    direction: str,
) -> ForeignResult | None:
    """Read a result by these conventions; None if they do not apply."""
    targets = result.labels.get(labels, result.targets)
    seen = [*result.seen]
    predicted = result.predicted
    _, firsts, numbers = np.unique(
        targets[:, 0], return_index=True, return_inverse=True
    )
    number = torch.from_numpy(numbers)
    if repetitions in (MEAN, RAW_MEAN):
        if len(firsts) == len(targets):
            return None
        if repetitions == RAW_MEAN and predicted is not None:
            predicted = _average(predicted.double(), number)

    # similarities [N, M], NaN where missing
    if measure in (AS_FILED, DISTANCE) and repetitions != RAW_MEAN:
        values = -result.similarities if measure else result.similarities
    elif predicted is None or result.gallery is None or measure == DISTANCE:
        return None
    else:
        values = compare(predicted, result.gallery, measure)
        values = values.to(result.similarities.dtype)
    values = _mark_missing(values)
    if layout:
        is_ordered = bool((targets[:, 0] == torch.arange(len(targets))).all())
        if values.shape[0] != values.shape[1] or is_ordered:
            return None
        values = values.T
    missing = int(values.isnan().sum())

    # one row a picture, or only the signals whose own similarity is there
    if repetitions in (MEAN, RAW_MEAN):
        if repetitions == MEAN:
            values = _average(values, number)
        targets = targets[firsts]
        seen = [seen[row] for row in firsts]
    elif repetitions == WITHOUT:
        own = values.gather(1, targets.clamp(min=0)).masked_fill(targets < 0, torch.nan)
        rows = own.isfinite().any(1).nonzero()[:, 0]
        if len(rows) in (0, len(values)):
            return None
        values = values[rows]
        targets = targets[rows]
        seen = [seen[row] for row in rows]

    ranked = None
    if direction:
        ranked = targets[:, 0].unique()
        values = values.T[ranked]
        signals = [(targets == picture).any(1).nonzero()[:, 0] for picture in ranked]
        seen = [seen[int(rows[0])] for rows in signals]
        targets = pad_sequence(signals, batch_first=True, padding_value=-1)
    return replace(
        result,
        similarities=fill_missing(values),
        targets=targets,
        seen=seen,
        missing=missing,
        predicted=predicted,
        others=(),
        ranked=ranked,
    )


def compare(predicted: Tensor, gallery: Tensor, measure: str) -> Tensor:
    """Compute similarities [N, M] of predictions [N, D] and a gallery [M, D]."""
    predicted = predicted.double()
    gallery = gallery.double()
    if measure == DOT:
        return predicted @ gallery.T
    if measure == EUCLIDEAN:
        return -torch.cdist(predicted, gallery)
    if measure == PEARSON:
        predicted = predicted - predicted.mean(1, keepdim=True)
        gallery = gallery - gallery.mean(1, keepdim=True)
    elif measure == SCALED:
        gallery = (gallery - gallery.mean(0)) / gallery.std(0).clamp(min=1e-12)
    return normalise_tokens(predicted) @ normalise_tokens(gallery).T


def _average(values: Tensor, number: Tensor) -> Tensor:
    """Average rows [N, M] with the same number, without missing values."""
    members = one_hot(number).T.double()  # [P, N]
    sums = members @ values.nan_to_num(0).double()
    return (sums / (members @ values.isfinite().double())).to(values.dtype)


def _mark_missing(values: Tensor) -> Tensor:
    """Replace infinities and masks by NaN."""
    values = values.where(values.isfinite(), torch.nan)
    present = values[values.isfinite()]
    if not len(present) or present.min() >= -MASK * present.max().abs():
        return values
    levels, counts = present.unique(return_counts=True)
    above = levels[1:].abs().maximum(levels[-1].abs())
    # above a mask are as many similarities as signals or more, and not only zeros: an
    # honest logarithm or distance may be 0 or near it
    is_rare = len(present) - counts.cumsum(0)[:-1] >= len(values)
    is_mask = (levels[:-1] < -MASK * above) & is_rare & (above > 0)
    masks = levels[:-1][is_mask]
    return values.where(values > masks[-1], torch.nan) if len(masks) else values


def fill_missing(values: Tensor) -> Tensor:
    """Make missing similarities lower than all others."""
    present = values[values.isfinite()]
    if len(present) == values.numel():
        return values
    if not len(present):
        return torch.zeros_like(values)
    lowest = float(present.min())
    span = max(float(present.max()) - lowest, 1e-3)
    return values.nan_to_num(max(lowest - span, torch.finfo(values.dtype).min))
