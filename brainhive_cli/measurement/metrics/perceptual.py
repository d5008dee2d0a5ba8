"""Networks by which torchmetrics compares pictures; if weights are absent, the error says how to get them."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core.errors import MissingExtra
from brainhive_cli.core.weights import read, reading
from brainhive_cli.measurement.metrics.networks import NETWORKS, again, from_url, kept

MODULES = {
    "LPIPS": ("torchmetrics.image.lpip",),
    "FID": ("torchmetrics.image.fid", "torch_fidelity"),
}
"""What each metric imports."""
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
    _require(metric)
    return NETWORKS["alexnet"].is_here() if metric == "LPIPS" else kept(INCEPTION).is_file()


def lpips(true: Tensor, made: Tensor, device: torch.device) -> NDArray[np.float64]:
    """Perceptual distance of pictures [N, 3, H, W] in 0..1 (arXiv 1801.03924, AlexNet): [N].

    Raises:
        MissingExtra: if torchmetrics is not installed.
        MissingData: if AlexNet's weights are not on this machine and cannot be fetched.
    """

    def loaded() -> Any:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        knobs: Any = {"sync_on_compute": False}  # one process computes, and waits for no other
        return LearnedPerceptualImagePatchSimilarity("alex", reduction="none", normalize=True, **knobs)

    metric = _fetched(loaded, "LPIPS").to(device)
    values = [metric(a[None].to(device), b[None].to(device)) for a, b in zip(made, true, strict=True)]
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
    _require(metric)
    path = NETWORKS["alexnet"].fetch() if metric == "LPIPS" else from_url(INCEPTION, "FID's InceptionV3")
    read(path, again(path))  # the libraries themselves would run code from it
    with reading(path, again(path)):
        return load()


def _require(metric: str) -> None:
    try:
        for module in MODULES[metric]:
            importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{metric} needs {' and '.join(m.partition('.')[0] for m in MODULES[metric])}",
            "pip install 'brainhive[metrics]'",
        ) from error
