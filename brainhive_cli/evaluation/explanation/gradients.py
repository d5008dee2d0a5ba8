"""Integrated gradients of the margin of a trained model, by time and by sensor or region."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Float64, Int64
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
from brainhive_cli.evaluation.explanation.recipe import Explanation
from brainhive_cli.evaluation.explanation.sensor_space import SensorSpace

SHARE = "margin_gained"
"""Name of the metric: what a part of the signal adds to the margin, on the way from the mean signal."""
GAP = 0.05
"""Share of the largest margin that may be missing without a warning."""
AT_ONCE = 64
"""Signals whose gradients are computed at once, to bound memory."""


def attribute(reader: Reader, spec: Explanation) -> dict[str, Profile]:
    """Share the margin among times, and among sensors or regions; all shares of an axis sum to the margin.

    Sensors are those of sensor space where the store's whiteners are known. The control has the gradients
    of margins with wrong pictures.

    Raises:
        BrainhiveError: if the model has no gradient.
    """
    # shares [N, E, T] of the margins with the seen pictures, and with wrong ones; of mixtures by channel
    if reader.mixture:
        deviation = reader.signal - reader.baseline  # [N, C, T]
        space = SensorSpace((), reader.signal, reader.signal - deviation, deviation[:, None], None)
    else:
        space = reader.space
    labels = reader.labels
    shares, wrong_shares = (
        _shares(reader, space, rows, spec.points) for rows in (labels.right, labels.wrong)
    )
    sums, controls = (
        _sum_by_axis(reader, space, part, spec.window.step_ms) for part in (shares, wrong_shares)
    )

    # the outputs may bend too sharply for so few points
    items = np.arange(len(shares))
    whole, rest = (margins[items, labels.right] for margins in (reader.whole, reader.margins(space.baseline)))
    gap = float(np.abs(sums[0][1].sum(0) - (whole - rest)).max())
    if gap > GAP * float(np.abs(whole - rest).max()):
        console.warn(f"gradients sum to the margins up to {gap:.2g} only: take more points")

    # a profile by time, and one by sensor or region, next to their controls
    profiles = {}
    for (axis, values), (_, control) in zip(sums, controls, strict=True):
        part, null = TIME_PART if axis.name == TIME else SPACE_PART, np.empty((0, len(axis.at)))
        profiles[part] = Profile(SHARE, axis, values, null, control)
    return profiles


def _shares(reader: Reader, space: SensorSpace, labels: Int64, points: int) -> Float64:
    """Share the margins with the pictures of some labels among sensors and times: [N, E, T]."""
    # the margin is the product of a token with its target
    gallery = F.normalize(reader.gallery)
    targets = gallery[torch.from_numpy(labels).to(gallery.device)] - gallery.mean(0)  # [N, D]

    # integrated gradients in chunks, shared among the sensors
    model, parts = reader.member.module, []
    for rows in torch.arange(len(space.signal)).split(AT_ONCE):
        signal, baseline = space.signal[rows], space.baseline[rows]  # [B, C, T]
        chunk = replace(space, signal=signal, baseline=baseline, deviation=space.deviation[rows])
        index = reader.member.index(reader.subject, len(rows))
        seen = targets[rows.to(targets.device)]  # [B, D]

        def margin(signal: Tensor, index: Any = index, seen: Tensor = seen) -> Tensor:
            tokens = model.encode_signal(signal.to(model.device), index)
            return (F.normalize(tokens.float()) * seen.to(tokens.device)).sum(1)

        gradient = mean_gradient(margin, signal.to(model.device), baseline.to(model.device), points).cpu()
        parts.append(chunk.by_sensor(gradient).double())
    return torch.cat(parts).numpy()


def _sum_by_axis(
    reader: Reader, space: SensorSpace, shares: Float64, step_ms: float
) -> list[tuple[Axis, Float64]]:
    """Sum shares [N, E, T] over all axes but one: [P, N] by axis."""
    # bins of times, named by the mean of their samples
    sums, times_ms = [], reader.times_ms
    if shares.shape[2] > 1:
        bins = np.floor((times_ms - times_ms[0]) / step_ms + 1e-9).astype(int)
        numbers = np.unique(bins)
        centres = [float(times_ms[bins == number].mean().round(3)) for number in numbers]
        starts = times_ms[0] + step_ms * numbers
        axis = Axis(TIME, centres, np.stack([starts, starts + step_ms], 1))
        sums.append((axis, np.stack([shares[..., bins == number].sum((1, 2)) for number in numbers])))

    # sensors, or regions of voxels
    if space.names:
        sums.append((Axis(SENSOR, space.names), shares.sum(2).T))
    elif not reader.trials.channels:
        regions = regions_of(reader)
        by_region = np.stack([shares[:, list(voxels)].sum((1, 2)) for voxels in regions.values()])
        sums.append((Axis(REGION, [*regions]), by_region))
    return sums


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
    # nodes and weights of the quadrature, from [-1, 1] to [0, 1]
    nodes, weights = np.polynomial.legendre.leggauss(points)
    total = torch.zeros_like(signal)
    for fraction, weight in zip((1 + nodes) / 2, weights / 2, strict=True):
        inputs = (baseline + float(fraction) * (signal - baseline)).requires_grad_()

        # cuDNN's LSTMs have no gradient in evaluation mode
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            values = function(inputs)
            if not values.requires_grad:
                raise BrainhiveError("the brain encoder has no gradient", "its other analyses need none")
            (gradient,) = torch.autograd.grad(values.sum(), inputs)
        total += float(weight) * gradient
    return total
