"""Networks that torchmetrics compares pictures with; one that is absent is told with the way to get it."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.errors import MissingData, MissingExtra, first_line

T = TypeVar("T")


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

    metric = _fetched(loaded, "LPIPS", "torchvision's AlexNet (IMAGENET1K_V1)").to(device)
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

    network = _fetched(loaded, "FID", "torch-fidelity's InceptionV3").to(device)
    return lambda pictures: network(pictures.mul(255).round().byte().to(device))


def _fetched(load: Callable[[], T], metric: str, weights: str) -> T:
    try:
        return load()
    except ImportError as error:
        raise MissingExtra(
            f"{metric} needs torchmetrics and torch-fidelity", "pip install 'brainhive[metrics]'"
        ) from error
    except OSError as error:  # torch.hub could not fetch them
        where = f"{torch.hub.get_dir()}/checkpoints"
        raise MissingData(
            f"no weights of {weights} for {metric}: {first_line(error)}",
            f"run once with a network, or copy them to {where}",
        ) from error
