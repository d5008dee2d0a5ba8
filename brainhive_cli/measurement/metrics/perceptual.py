"""Metrics of generated pictures by torchmetrics: LPIPS of pairs, FID and KID of distributions of features."""

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError, MissingExtra
from brainhive_cli.core.weights import read, reading
from brainhive_cli.measurement.metrics.networks import NETWORKS, again, cached_file, from_url
from brainhive_cli.measurement.statistics import Metric

MODULES = {
    "LPIPS": ("torchmetrics.image.lpip",),
    "FID": ("torchmetrics.image.fid", "torch_fidelity"),
}
"""Library that each metric imports."""
INCEPTION = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
"""torch-fidelity's URL_INCEPTION_V3."""


def is_here(metric: str) -> bool:
    """Whether the weights of LPIPS or FID are on this machine; loads nothing, and uses no network.

    Raises:
        MissingExtra: if a library that the metric needs is not installed.
    """
    _require_libraries(metric)
    return NETWORKS["alexnet"].is_here() if metric == "LPIPS" else cached_file(INCEPTION).is_file()


def lpips(true: Tensor, generated: Tensor, device: torch.device) -> NDArray[np.float64]:
    """Perceptual distance of pictures [N, 3, H, W] in 0..1 (arXiv 1801.03924, AlexNet): [N].

    Raises:
        MissingExtra: if torchmetrics is not installed.
        MissingData: if AlexNet's weights are not on this machine and cannot be fetched.
    """

    def loaded() -> Any:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        return LearnedPerceptualImagePatchSimilarity("alex", reduction="none", normalize=True, **ALONE)

    metric = _fetched(loaded, "LPIPS").to(device)
    values = [metric(a[None].to(device), b[None].to(device)) for a, b in zip(generated, true, strict=True)]
    return torch.cat([value.flatten() for value in values]).double().cpu().numpy()


def inception(device: torch.device) -> Callable[[Tensor], Tensor]:
    """Load the InceptionV3 of FID: pictures [N, 3, H, W] in 0..1 to features [N, 2048].

    Raises:
        MissingExtra: if torchmetrics or torch-fidelity is not installed.
        MissingData: if its weights are not on this machine and cannot be fetched.
    """

    def loaded() -> Any:
        from torchmetrics.image.fid import NoTrainInceptionV3

        return NoTrainInceptionV3("inception-v3-compat", ["2048"])

    network = _fetched(loaded, "FID").to(device)
    return lambda pictures: network(pictures.mul(255).round().byte().to(device))


def _fetched(load: Callable[[], Any], metric: str) -> Any:
    _require_libraries(metric)
    path = NETWORKS["alexnet"].fetch() if metric == "LPIPS" else from_url(INCEPTION, "FID's InceptionV3")
    read(path, again(path))  # the libraries themselves would run code from it
    with reading(path, again(path)):
        return load()


def _require_libraries(metric: str) -> None:
    try:
        for module in MODULES[metric]:
            importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{metric} needs {' and '.join(m.partition('.')[0] for m in MODULES[metric])}",
            "pip install 'brainhive[metrics]'",
        ) from error


FOLDS = 10
"""Parts that are left out in turn for the interval."""
JACKKNIFE = f"normal, by a jackknife that leaves out one of {FOLDS} parts of the pictures"
"""Method of the interval."""
ALONE: Any = {"sync_on_compute": False}
"""One process computes; torchmetrics would have it wait for the others."""


def fid(true: Tensor, generated: Tensor) -> float:
    """Fréchet distance of features [N, D] and [M, D] (arXiv 1706.08500), by torchmetrics."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    return float(_fed(FrechetInceptionDistance(_as_they_are(true), **ALONE), true, generated).compute())


def kid(true: Tensor, generated: Tensor) -> float:
    """Kernel distance of features [N, D] and [M, D] (arXiv 1801.01401), unbiased, by torchmetrics."""
    from torchmetrics.image.kid import KernelInceptionDistance

    count = min(len(true), len(generated))
    with warnings.catch_warnings(action="ignore"):  # that it keeps all features, which are here anyway
        metric = KernelInceptionDistance(_as_they_are(true), subsets=1, subset_size=count, **ALONE)
    return float(_fed(metric, true[:count], generated[:count]).compute()[0])


def require_distances(count: int) -> None:
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


def measure_distances(
    true: Tensor, generated: Tensor, *, protocol: str, split: str, seeds: tuple[int, ...]
) -> list[Metric]:
    """Measure FID and KID with 95 % intervals: a jackknife that leaves out a tenth of the pictures in turn.

    Args:
        true: Features of true pictures [N, D].
        generated: Features of pictures generated from the same, [N, D].
        protocol: Whose features.
        split: Part of the data set.
        seeds: Of the training.

    Raises:
        BrainhiveError: as `require_distances`.
    """
    require_distances(len(true))
    metrics = []
    for name, distance in {"fid": fid, "kid": kid}.items():
        value, spread = distance(true, generated), _jackknife(distance, true, generated)
        ends = (value - 1.96 * spread, value + 1.96 * spread)
        metrics.append(Metric(name, value, len(true), None, None, *ends, seeds, protocol, split, JACKKNIFE))
    return metrics


def _jackknife(distance: Callable[[Tensor, Tensor], float], true: Tensor, generated: Tensor) -> float:
    """Standard error by leaving out folds (Efron and Tibshirani, chapter 11)."""
    fold = torch.arange(len(true)) % FOLDS
    values = [distance(true[fold != left_out], generated[fold != left_out]) for left_out in range(FOLDS)]
    return float(np.sqrt((FOLDS - 1) * np.var(values)))


def _as_they_are(features: Tensor) -> nn.Module:
    """Make the network that torchmetrics takes where its inputs are features already."""
    identity = nn.Identity()
    identity.num_features = features.shape[1]  # type: ignore[assignment]
    return identity


def _fed(metric: Any, true: Tensor, generated: Tensor) -> Any:
    metric.to(true.device)
    metric.update(true.float(), real=True)
    metric.update(generated.float(), real=False)
    return metric
