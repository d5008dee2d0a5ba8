"""Metrics of generated pictures by torchmetrics: LPIPS of pairs, FID and KID of
distributions of features.
"""

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingExtra,
    find_error,
    install_line,
)
from brainhive_cli.core.weights import read, reading
from brainhive_cli.measurement.metrics.networks import (
    NETWORKS,
    cached_file,
    from_url,
    refetch_hint,
)
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


def inputs_of(metric: str) -> list[Input]:
    """Look for the libraries and the weights of LPIPS or FID; no network is used."""
    # libraries first, then weights; neither is fetched here
    error = find_error(partial(_require_libraries, metric))
    file = cached_file(INCEPTION)
    way = f"curl -L --create-dirs -o {file} {INCEPTION}"
    inception = Input.of_file([file] if file.is_file() else None, file, way)
    weights = NETWORKS["alexnet"].find_input() if metric == "LPIPS" else inception
    return [Input(f"libraries of {metric}", error=error), weights]


def lpips(true: Tensor, generated: Tensor, device: torch.device) -> Float64:
    """Compute the perceptual distance [N] of pictures [N, 3, H, W] in 0..1 (arXiv
    1801.03924, AlexNet).

    Raises:
        MissingExtra: if torchmetrics is not installed.
        MissingData: if AlexNet's weights are not on this machine and cannot be fetched.
    """
    # LPIPS on AlexNet, whose weights are checked before the library reads them
    with _reading_weights("LPIPS"):
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        metric = LearnedPerceptualImagePatchSimilarity(
            "alex", reduction="none", normalize=True, **ALONE
        )
    metric = metric.to(device)

    # pair by pair, which bounds memory
    values = [
        metric(a[None].to(device), b[None].to(device))
        for a, b in zip(generated, true, strict=True)
    ]
    return torch.cat([value.flatten() for value in values]).double().cpu().numpy()


def inception(device: torch.device) -> Callable[[Tensor], Tensor]:
    """Load the InceptionV3 of FID: pictures [N, 3, H, W] in 0..1 to features [N, 2048].

    Raises:
        MissingExtra: if torchmetrics or torch-fidelity is not installed.
        MissingData: if its weights are not on this machine and cannot be fetched.
    """
    # torch-fidelity's port of FID's network, which takes bytes
    with _reading_weights("FID"):
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3("inception-v3-compat", ["2048"])
    network = network.to(device)
    return lambda pictures: network(pictures.mul(255).round().byte().to(device))


@contextmanager
def _reading_weights(metric: str) -> Iterator[None]:
    """Fetch the weights of LPIPS or FID; what a library then raises about them becomes
    one line.
    """
    _require_libraries(metric)
    path = (
        NETWORKS["alexnet"].fetch()
        if metric == "LPIPS"
        else from_url(INCEPTION, "FID's InceptionV3")
    )
    read(path, refetch_hint(path))  # the libraries themselves would run code from it
    with reading(path, refetch_hint(path)):
        yield


def _require_libraries(metric: str) -> None:
    """Import the libraries of LPIPS or FID; MissingExtra if one is not installed."""
    # imported, not looked up: a broken installation counts as missing too
    try:
        for module in MODULES[metric]:
            importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{metric} needs "
            f"{' and '.join(m.partition('.')[0] for m in MODULES[metric])}",
            install_line("metrics"),
        ) from error


FOLDS = 10
"""Parts that are left out in turn for the interval."""
JACKKNIFE = (
    f"normal, by a jackknife that leaves out one of {FOLDS} parts of the pictures"
)
"""Method of the interval."""
ALONE: Any = {"sync_on_compute": False}
"""One process computes; torchmetrics would have it wait for the others."""


def fid(true: Tensor, generated: Tensor) -> float:
    """Compute the Fréchet distance of features [N, D] and [M, D] (arXiv 1706.08500), by
    torchmetrics.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    return float(_compute_distance(FrechetInceptionDistance, true, generated))


def kid(true: Tensor, generated: Tensor) -> float:
    """Compute the unbiased kernel distance of features [N, D] and [M, D] (arXiv
    1801.01401).
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    # one subset of all features, so that nothing is drawn
    count = min(len(true), len(generated))
    options = {"subsets": 1, "subset_size": count}
    return float(
        _compute_distance(
            KernelInceptionDistance, true[:count], generated[:count], **options
        )[0]
    )


def _compute_distance(
    metric_class: Any, true: Tensor, generated: Tensor, **options: int
) -> Any:
    """Compute a metric of torchmetrics from features instead of pictures."""
    # its network returns what it takes
    identity = nn.Identity()
    identity.num_features = true.shape[1]  # type: ignore[assignment]
    # that KID keeps all features, which are here anyway
    with warnings.catch_warnings(action="ignore"):
        metric = metric_class(identity, **options, **ALONE)

    # features of true pictures, then of generated ones
    metric.to(true.device)
    metric.update(true.float(), real=True)
    metric.update(generated.float(), real=False)
    return metric.compute()


def require_distances(count: int) -> None:
    """Find out whether FID and KID of so many pictures can be measured.

    Raises:
        BrainhiveError: if there are too few pictures.
        MissingExtra: if torchmetrics is not installed.
    """
    # each left-out part must hold two pictures at least
    if count < 2 * FOLDS:
        raise BrainhiveError(
            f"FID and KID of {count} pictures mean nothing",
            f"fid_items={2 * FOLDS} at least (a fifth of the pictures at most is "
            "kept); 5000 is usual",
        )
    if importlib.util.find_spec("torchmetrics") is None:
        raise MissingExtra("FID and KID need torchmetrics", install_line("metrics"))


def measure_distances(
    true: Tensor,
    generated: Tensor,
    *,
    protocol: str,
    split: str,
    seeds: tuple[int, ...],
) -> list[Metric]:
    """Measure FID and KID with 95 % intervals: a jackknife that leaves out a tenth of
    the pictures in turn.

    Args:
        true: Features of true pictures [N, D].
        generated: Features of pictures generated from the same, [N, D].
        protocol: Whose features.
        split: Part of the data set.
        seeds: Of the training.
    """
    fold = torch.arange(len(true)) % FOLDS
    metrics = []
    for name, distance in {"fid": fid, "kid": kid}.items():
        # standard error by leaving out folds (Efron and Tibshirani, chapter 11)
        value = distance(true, generated)
        values = [
            distance(true[fold != left_out], generated[fold != left_out])
            for left_out in range(FOLDS)
        ]
        spread = float(np.sqrt((FOLDS - 1) * np.var(values)))
        ends = (value - 1.96 * spread, value + 1.96 * spread)
        metrics.append(
            Metric(
                name,
                value,
                len(true),
                None,
                None,
                *ends,
                seeds,
                protocol,
                split,
                JACKKNIFE,
            )
        )
    return metrics
