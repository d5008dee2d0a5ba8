"""Integrated gradients of the margin of a trained model, by time and by sensor or region."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.evaluation.explanation.occlusion import REGION, SENSOR, TIME, regions_of
from brainhive_cli.evaluation.explanation.profiles import Profile, Spans
from brainhive_cli.evaluation.explanation.reader import Reader
from brainhive_cli.evaluation.explanation.sensor_space import SensorSpace

SHARE = "margin_gained"
"""Name of the metric: what a part of the signal adds to the margin, on the way from the mean signal."""
GAP = 0.05
"""Share of the largest margin that may be missing without a warning."""
AT_ONCE = 64
"""Signals whose gradients are computed at once."""
Shares = tuple[list[object], NDArray[np.float64], Spans | None]
"""Places, shares [P, N], and where places that are windows begin and end."""


def attribute(reader: Reader, points: int, step_ms: float) -> dict[str, Profile]:
    """Share the margin among times, and among sensors or regions; all shares of an axis sum to the margin.

    Sensors are those of sensor space where the store's whiteners are known. The control has the gradients
    of margins with wrong pictures.

    Raises:
        BrainhiveError: if the model has no gradient.
    """
    space, left_out = _space(reader)
    own = _shares(reader, space, reader.labels.right, points, step_ms)
    wrong = _shares(reader, space, reader.labels.wrong, points, step_ms)
    _check_sum(reader, space, next(iter(own.values()))[1].sum(0))
    profiles = {}
    for axis, (at, values, spans) in own.items():
        if axis != SENSOR or not left_out:
            null, control = np.empty((0, len(at))), wrong[axis][1]
            profiles[axis] = Profile(SHARE, axis, tuple(at), values, null, control, spans=spans)
    return profiles


def _check_sum(reader: Reader, space: SensorSpace, sums: NDArray[np.float64]) -> None:
    """Warn if shares [N] do not sum to the margins: the output bends too sharply for so few points."""
    items = np.arange(len(sums))
    whole, rest = (
        each[items, reader.labels.right] for each in (reader.whole, reader.margins(space.baseline))
    )
    gap = float(np.abs(sums - (whole - rest)).max())
    if gap > GAP * float(np.abs(whole - rest).max()):
        console.warn(f"gradients sum to the margins up to {gap:.2g} only: take more points")


def _space(reader: Reader) -> tuple[SensorSpace, str]:
    """Return sensor space; where whitening cannot be undone the channels as they are, and why."""
    try:
        return reader.space, ""
    except BrainhiveError as error:
        away = reader.signal - reader.baseline
        plain = SensorSpace((), reader.signal, reader.signal - away, away[:, None], None)
        return plain, error.message


def _shares(
    reader: Reader, space: SensorSpace, labels: NDArray[np.int64], points: int, step_ms: float
) -> Mapping[str, Shares]:
    """Compute shares by axis."""
    gallery = F.normalize(reader.gallery, dim=1)
    targets = gallery[torch.from_numpy(labels).to(gallery.device)] - gallery.mean(0)  # [N, D]
    parts = []
    for rows in torch.arange(len(space.signal)).split(AT_ONCE):
        signal, rest = (each[rows].to(reader.member.model.device) for each in (space.signal, space.baseline))

        def margin(way: Tensor, rows: Tensor = rows) -> Tensor:
            return reader.margin_of(way, targets[rows.to(targets.device)])

        gradient = mean_gradient(margin, signal, rest, points).cpu()
        some = SensorSpace(
            space.names, space.signal[rows], space.baseline[rows], space.deviation[rows], space.mixing
        )
        parts.append(some.by_sensor(gradient).double())
    shares = torch.cat(parts).numpy()  # [N, E, T]
    return _by_place(reader, space, shares, step_ms)


def _by_place(
    reader: Reader, space: SensorSpace, shares: NDArray[np.float64], step_ms: float
) -> Mapping[str, Shares]:
    """Sum shares [N, E, T] over all axes but one."""
    shares_by_axis: dict[str, Shares] = {}
    if shares.shape[2] > 1:
        bins = np.floor((reader.times_ms - reader.times_ms[0]) / step_ms + 1e-9).astype(int)
        by_time = np.stack([shares[..., bins == each].sum((1, 2)) for each in np.unique(bins)])
        centres = [float(reader.times_ms[bins == each].mean().round(3)) for each in np.unique(bins)]
        starts = reader.times_ms[0] + step_ms * np.unique(bins)
        shares_by_axis[TIME] = (list(centres), by_time, np.stack([starts, starts + step_ms], 1))
    if space.names:
        shares_by_axis[SENSOR] = (list(space.names), shares.sum(2).T, None)
    elif not reader.selection.channels:
        regions = regions_of(reader)
        by_region = np.stack([shares[:, list(places)].sum((1, 2)) for places in regions.values()])
        shares_by_axis[REGION] = (list(regions), by_region, None)
    return shares_by_axis


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
