"""How far the pictures of a generator lie from true ones, as distributions of features."""

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError, MissingExtra
from brainhive_cli.measurement.statistics import Metric

FOLDS = 10
"""Parts that are left out in turn for the interval."""
JACKKNIFE = f"normal, by a jackknife that leaves out one of {FOLDS} parts of the pictures"
"""How the interval is made."""
ALONE: Any = {"sync_on_compute": False}
"""One process computes; torchmetrics would have it wait for the others."""


def fid(true: Tensor, made: Tensor) -> float:
    """Fréchet distance of features [N, D] and [M, D] (arXiv 1706.08500), by torchmetrics."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    return float(_fed(FrechetInceptionDistance(_as_they_are(true), **ALONE), true, made).compute())


def kid(true: Tensor, made: Tensor) -> float:
    """Kernel distance of features [N, D] and [M, D] (arXiv 1801.01401), unbiased, by torchmetrics."""
    from torchmetrics.image.kid import KernelInceptionDistance

    count = min(len(true), len(made))
    with warnings.catch_warnings(action="ignore"):  # that it keeps all features, which are here anyway
        metric = KernelInceptionDistance(_as_they_are(true), subsets=1, subset_size=count, **ALONE)
    return float(_fed(metric, true[:count], made[:count]).compute()[0])


def require(count: int) -> None:
    """Find out whether FID and KID of so many pictures can be measured.

    Raises:
        BrainhiveError: if there are too few pictures.
        MissingExtra: if torchmetrics is not installed.
    """
    if count < 2 * FOLDS:
        raise BrainhiveError(
            f"FID and KID of {count} pictures mean nothing",
            f"fid_items={2 * FOLDS} at least (a fifth of the pictures at most is kept); 5000 is usual",
        )
    if importlib.util.find_spec("torchmetrics") is None:
        raise MissingExtra("FID and KID need torchmetrics", "pip install 'brainhive[metrics]'")


def distances(
    true: Tensor, made: Tensor, *, protocol: str, split: str, seeds: tuple[int, ...]
) -> list[Metric]:
    """Measure FID and KID with 95 % intervals: a jackknife that leaves out a tenth of the pictures in turn.

    Args:
        true: Features of true pictures [N, D].
        made: Features of pictures generated from the same, [N, D].
        protocol: Whose features.
        split: Part of the data set.
        seeds: Of the training.

    Raises:
        BrainhiveError: as `require`.
    """
    require(len(true))
    found = []
    for name, distance in {"fid": fid, "kid": kid}.items():
        value, spread = distance(true, made), _jackknife(distance, true, made)
        ends = (value - 1.96 * spread, value + 1.96 * spread)
        found.append(Metric(name, value, len(true), None, None, *ends, seeds, protocol, split, JACKKNIFE))
    return found


def _jackknife(distance: Callable[[Tensor, Tensor], float], true: Tensor, made: Tensor) -> float:
    """Standard error by leaving out folds (Efron and Tibshirani, chapter 11)."""
    fold = torch.arange(len(true)) % FOLDS
    values = [distance(true[fold != left_out], made[fold != left_out]) for left_out in range(FOLDS)]
    return float(np.sqrt((FOLDS - 1) * np.var(values)))


def _as_they_are(features: Tensor) -> nn.Module:
    """Make the network that torchmetrics takes where its inputs are features already."""
    identity = nn.Identity()
    identity.num_features = features.shape[1]  # type: ignore[assignment]
    return identity


def _fed(metric: Any, true: Tensor, made: Tensor) -> Any:
    metric.to(true.device)
    metric.update(true.float(), real=True)
    metric.update(made.float(), real=False)
    return metric
