"""Perceptual distances of generated pictures by torchmetrics: LPIPS, FID and KID."""

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

from brainhive_cli.core.base import (
    BrainhiveError,
    Float64,
    MissingExtra,
    find_error,
    install_line,
)
from brainhive_cli.core.files import Input
from brainhive_cli.core.results import Metric
from brainhive_cli.core.runs import read, reading
from brainhive_cli.measurement.metrics.networks import (
    NETWORKS,
    cached_file,
    fetch_file,
    refetch_hint,
)

INCEPTION = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
"""torch-fidelity's URL_INCEPTION_V3."""


def find_inputs(metric: str) -> list[Input]:
    """Look for the libraries and the weights of a metric, without downloading.

    Args:
        metric: Name of the metric, `LPIPS` or `FID`.

    Returns:
        Inputs of a command: libraries and weights, with an error if they are missing.
    """
    error = find_error(partial(_require_libraries, metric))
    libraries = Input(f"libraries of {metric}", error=error)
    if metric == "LPIPS":
        return [libraries, NETWORKS["alexnet"].find_input()]
    file = cached_file(INCEPTION)
    download_line = f"curl -L --create-dirs -o {file} {INCEPTION}"
    found_files = [file] if file.is_file() else None
    return [libraries, Input.of_file(found_files, file, download_line)]


def lpips(stimuli: Tensor, generated: Tensor, device: torch.device) -> Float64:
    """Compute the perceptual distance between pictures by AlexNet (LPIPS).

    Args:
        stimuli: Pictures [N, 3, H, W] with values in 0..1.
        generated: Reconstructions [N, 3, H, W] with values in 0..1.
        device: Device of the network.

    Returns:
        Distance [N] between each picture and its reconstruction. 0 means equal.

    Raises:
        MissingExtra: if torchmetrics cannot be imported.
        MissingData: if AlexNet's weights are damaged or cannot be fetched.

    Source: Zhang et al. 2018 (arXiv 1801.03924).
    """
    # `normalize` means that values are in 0..1
    with _reading_weights("LPIPS"):
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        metric = LearnedPerceptualImagePatchSimilarity(
            "alex", reduction="none", normalize=True, **WITHOUT_SYNC
        )
    metric = metric.to(device)

    # pairs are compared one at a time to limit memory
    values = []
    for reconstruction, picture in zip(generated, stimuli, strict=True):
        value = metric(reconstruction[None].to(device), picture[None].to(device))
        values.append(value.flatten())
    return torch.cat(values).double().cpu().numpy()


def inception(device: torch.device) -> Callable[[Tensor], Tensor]:
    """Load InceptionV3, the network whose features FID and KID compare.

    Args:
        device: Device of the network.

    Returns:
        Function that computes features [N, 2048] of pictures [N, 3, H, W] with values
        in 0..1.

    Raises:
        MissingExtra: if torchmetrics or torch-fidelity cannot be imported.
        MissingData: if the weights are damaged or cannot be fetched.
    """
    # "2048" is the name of the features that FID uses
    with _reading_weights("FID"):
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3("inception-v3-compat", ["2048"])
    network = network.to(device)

    # this network takes pictures of bytes
    return lambda pictures: network(pictures.mul(255).round().byte().to(device))


@contextmanager
def _reading_weights(metric: str) -> Iterator[None]:
    """Fetch and check weights before a library loads them in the `with` block.

    Raises:
        MissingExtra: if a library of the metric cannot be imported.
        MissingData: if the weights are damaged or cannot be fetched.
    """
    _require_libraries(metric)
    if metric == "LPIPS":
        path = NETWORKS["alexnet"].fetch()
    else:
        path = fetch_file(INCEPTION, "FID's InceptionV3")

    # the libraries would run code hidden in the file, but `read` raises an error
    read(path, refetch_hint(path))
    with reading(path, refetch_hint(path)):
        yield


def _require_libraries(metric: str) -> None:
    """Raise MissingExtra if a library of LPIPS or FID cannot be imported."""
    # Modules that each metric imports.
    modules = {
        "LPIPS": ("torchmetrics.image.lpip",),
        "FID": ("torchmetrics.image.fid", "torch_fidelity"),
    }
    try:
        for module in modules[metric]:
            importlib.import_module(module)
    except ImportError as error:
        packages = [module.partition(".")[0] for module in modules[metric]]
        raise MissingExtra(
            f"{metric} needs {' and '.join(packages)}", install_line("metrics")
        ) from error


N_FOLDS = 10
"""Number of parts of the pictures that the jackknife leaves out in turn."""
JACKKNIFE = (
    f"normal, by a jackknife that leaves out one of {N_FOLDS} parts of the pictures"
)
"""Method of the interval."""
WITHOUT_SYNC: Any = {"sync_on_compute": False}
"""Options of torchmetrics that keep it from waiting for other processes."""


def fid(stimuli: Tensor, generated: Tensor) -> float:
    """Compute the Fréchet distance between two distributions of features (FID).

    Args:
        stimuli: Features [N, D] of real pictures.
        generated: Features [M, D] of generated pictures.

    Source: Heusel et al. 2017 (arXiv 1706.08500).
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    return float(_compute_distance(FrechetInceptionDistance, stimuli, generated))


def kid(stimuli: Tensor, generated: Tensor) -> float:
    """Compute the unbiased kernel distance between two distributions of features (KID).

    If N and M differ, only the first rows of the longer array are used.

    Args:
        stimuli: Features [N, D] of real pictures.
        generated: Features [M, D] of generated pictures.

    Returns:
        Distance, which can be negative.

    Source: Binkowski et al. 2018 (arXiv 1801.01401).
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    # torchmetrics draws random subsets, so a single subset of all rows is set
    count = min(len(stimuli), len(generated))
    distance, _ = _compute_distance(
        KernelInceptionDistance,
        stimuli[:count],
        generated[:count],
        subsets=1,
        subset_size=count,
    )
    return float(distance)


def _compute_distance(
    metric_class: Any, stimuli: Tensor, generated: Tensor, **options: int
) -> Any:
    """Compute a metric of torchmetrics from features instead of pictures.

    Args:
        metric_class: Class of the metric in torchmetrics.
        stimuli: Features [N, D] of real pictures.
        generated: Features [M, D] of generated pictures.
        options: Further arguments of the class.
    """
    # the inputs are features already, so torchmetrics' network returns them unchanged
    identity = nn.Identity()
    identity.num_features = stimuli.shape[1]  # type: ignore[assignment]

    # KID warns that it keeps all features in memory, where they are anyway
    with warnings.catch_warnings(action="ignore"):
        metric = metric_class(identity, **options, **WITHOUT_SYNC)
    metric.to(stimuli.device)
    metric.update(stimuli.float(), real=True)
    metric.update(generated.float(), real=False)
    return metric.compute()


def require_distances(count: int) -> None:
    """Raise an error if FID and KID cannot be measured.

    Args:
        count: Number of pictures to generate.

    Raises:
        BrainhiveError: if there are too few pictures.
        MissingExtra: if torchmetrics is not installed.
    """
    # each part of the jackknife needs at least two pictures
    min_count = 2 * N_FOLDS
    if count < min_count:
        raise BrainhiveError(
            f"FID and KID need at least {min_count} pictures, not {count}",
            f"set fid_items to {min_count} or more; 5000 is usual (at most a fifth of "
            "the pictures is used)",
        )
    if importlib.util.find_spec("torchmetrics") is None:
        raise MissingExtra("FID and KID need torchmetrics", install_line("metrics"))


def measure_distances(
    stimuli: Tensor,
    generated: Tensor,
    *,
    protocol: str,
    split: str,
    seeds: tuple[int, ...],
) -> list[Metric]:
    """Measure FID and KID with 95 % intervals from a jackknife.

    Args:
        stimuli: Features [N, D] of real pictures.
        generated: Features [N, D] of a generated picture for each real picture.
        protocol: Text for tables on the generator and the network of the features.
        split: Part of the data set, such as "validation".
        seeds: Seeds of the trained models.
    """
    part_of_picture = torch.arange(len(stimuli)) % N_FOLDS
    metrics = []
    for name, distance in {"fid": fid, "kid": kid}.items():
        value = distance(stimuli, generated)
        values_without_part = []
        for part in range(N_FOLDS):
            is_kept = part_of_picture != part
            values_without_part.append(distance(stimuli[is_kept], generated[is_kept]))

        # standard error of the jackknife (Efron and Tibshirani, chapter 11)
        error = float(np.sqrt((N_FOLDS - 1) * np.var(values_without_part)))
        metric = Metric(
            name=name,
            value=value,
            n=len(stimuli),
            pool=None,
            chance=None,
            low=value - 1.96 * error,
            high=value + 1.96 * error,
            seeds=seeds,
            protocol=protocol,
            split=split,
            interval=JACKKNIFE,
        )
        metrics.append(metric)
    return metrics
