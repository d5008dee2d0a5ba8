"""Integrated gradients of the margin of a trained model, by time and by sensor or region."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.evaluation.explanation.occlusion import regions_of
from brainhive_cli.evaluation.explanation.profiles import (
    REGION,
    SENSOR,
    SPACE_PART,
    TIME,
    TIME_PART,
    Axis,
    Profile,
)
from brainhive_cli.evaluation.explanation.reader import Reader
from brainhive_cli.evaluation.explanation.sensor_space import SensorSpace

SHARE = "margin_gained"
"""Name of the metric: what a part of the signal adds to the margin, on the way from the mean signal."""
GAP = 0.05
"""Share of the largest margin that may be missing without a warning."""
AT_ONCE = 64
"""Signals whose gradients are computed at once."""


def attribute(reader: Reader, points: int, step_ms: float) -> dict[str, Profile]:
    """Share the margin among times, and among sensors or regions; all shares of an axis sum to the margin.

    Sensors are those of sensor space where the store's whiteners are known. The control has the gradients
    of margins with wrong pictures.

    Raises:
        BrainhiveError: if the model has no gradient.
    """
    if reader.mixture:  # channels as they are
        away = reader.signal - reader.baseline
        space = SensorSpace((), reader.signal, reader.signal - away, away[:, None], None)
    else:
        space = reader.space
    right = _shares(reader, space, reader.labels.right, points)  # [N, E, T]
    wrong = _shares(reader, space, reader.labels.wrong, points)

    # the outputs may bend too sharply for so few points
    items = np.arange(len(right))
    whole, rest = (
        margins[items, reader.labels.right] for margins in (reader.whole, reader.margins(space.baseline))
    )
    by_place, controls = (_by_place(reader, space, shares, step_ms) for shares in (right, wrong))
    gap = float(np.abs(by_place[0][1].sum(0) - (whole - rest)).max())
    if gap > GAP * float(np.abs(whole - rest).max()):
        console.warn(f"gradients sum to the margins up to {gap:.2g} only: take more points")
    profiles = {}
    for (axis, values), (_, control) in zip(by_place, controls, strict=True):
        part, null = TIME_PART if axis.name == TIME else SPACE_PART, np.empty((0, len(axis.at)))
        profiles[part] = Profile(SHARE, axis, values, null, control)
    return profiles


def _shares(
    reader: Reader, space: SensorSpace, labels: NDArray[np.int64], points: int
) -> NDArray[np.float64]:
    """Share the margins with the pictures of some labels among sensors and times: [N, E, T]."""
    gallery = F.normalize(reader.gallery, dim=1)
    targets = gallery[torch.from_numpy(labels).to(gallery.device)] - gallery.mean(0)  # [N, D]
    parts = []
    for rows in torch.arange(len(space.signal)).split(AT_ONCE):
        some = replace(
            space, signal=space.signal[rows], baseline=space.baseline[rows], deviation=space.deviation[rows]
        )
        device = reader.member.model.device
        margin = partial(reader.margin_of, targets=targets[rows.to(targets.device)])
        gradient = mean_gradient(margin, some.signal.to(device), some.baseline.to(device), points).cpu()
        parts.append(some.by_sensor(gradient).double())
    return torch.cat(parts).numpy()


def _by_place(
    reader: Reader, space: SensorSpace, shares: NDArray[np.float64], step_ms: float
) -> list[tuple[Axis, NDArray[np.float64]]]:
    """Sum shares [N, E, T] over all axes but one: [P, N] by axis."""
    by_place, times_ms = [], reader.times_ms
    if shares.shape[2] > 1:
        bins = np.floor((times_ms - times_ms[0]) / step_ms + 1e-9).astype(int)
        numbers = np.unique(bins)
        centres = [float(times_ms[bins == number].mean().round(3)) for number in numbers]
        starts = times_ms[0] + step_ms * numbers
        axis = Axis(TIME, centres, np.stack([starts, starts + step_ms], 1))
        by_place.append((axis, np.stack([shares[..., bins == number].sum((1, 2)) for number in numbers])))
    if space.names:
        by_place.append((Axis(SENSOR, space.names), shares.sum(2).T))
    elif not reader.selection.channels:
        regions = regions_of(reader)
        by_region = np.stack([shares[:, list(places)].sum((1, 2)) for places in regions.values()])
        by_place.append((Axis(REGION, [*regions]), by_region))
    return by_place


POINTS = 50
"""Points of the quadrature: captum's default."""


def mean_gradient(
    function: Callable[[Tensor], Tensor], signal: Tensor, baseline: Tensor, points: int = POINTS
) -> Tensor:
    """Average the gradient on the straight way from a baseline, by Gauss-Legendre quadrature.

    Times (signal - baseline) it is the integrated gradient, and sums to the difference of the outputs.

    Args:
        function: Signals [B, C, T] to one number each, [B].
        signal: [B, C, T].
        baseline: [B, C, T].
        points: Of the quadrature.

    Returns:
        [B, C, T].

    Raises:
        BrainhiveError: if the outputs do not depend on the signals in a way that has a gradient.

    Source: Sundararajan, Taly and Yan 2017; the quadrature is captum's default.
    """
    at, weights = np.polynomial.legendre.leggauss(points)
    total = torch.zeros_like(signal)
    for place, weight in zip((1 + at) / 2, weights / 2, strict=True):
        way = (baseline + float(place) * (signal - baseline)).requires_grad_()
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # of LSTMs it has none here
            values = function(way)
            if not values.requires_grad:
                raise BrainhiveError("the brain encoder has no gradient", "its other analyses need none")
            (gradient,) = torch.autograd.grad(values.sum(), way)
        total += float(weight) * gradient
    return total
