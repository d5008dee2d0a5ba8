"""How alike reconstructions and their stimuli are."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from brainhive_cli.encoders import Encoder
from brainhive_cli.launch import Launch
from brainhive_cli.metrics import image as image_metrics
from brainhive_cli.pipelines._trunks import encode


def score(
    seen: Sequence[Image.Image],
    drawn: Sequence[Sequence[Image.Image]],
    encoders: Mapping[str, Encoder],
    protocol: str,
    launch: Launch,
) -> dict[str, NDArray[np.float64]]:
    """Score reconstructions of N stimuli, averaged over repeats: each metric [N]."""
    truth = _prepared(seen, protocol)
    sums: dict[str, NDArray[np.float64]] = {}
    features = {name: _features(e, seen, launch) for name, e in encoders.items()}
    repeats = len(drawn[0])
    for repeat in range(repeats):
        pictures = [each[repeat] for each in drawn]
        made = _prepared(pictures, protocol)
        found = {"pixcorr": image_metrics.pixcorr(truth, made), "ssim": image_metrics.ssim(truth, made)}
        for name, encoder in encoders.items():
            found[f"two_way_{name}"] = image_metrics.two_way(
                features[name], _features(encoder, pictures, launch)
            )
        for name, values in found.items():
            sums[name] = sums.get(name, 0) + values.numpy() / repeats
    return sums


def _prepared(pictures: Sequence[Image.Image], protocol: str) -> Tensor:
    """Bring pictures to the protocol's size: [N, 3, H, W] in 0..1."""
    return torch.cat(
        [image_metrics.prepare(pil_to_tensor(picture)[None] / 255, protocol) for picture in pictures]
    )


def _features(encoder: Encoder, pictures: Sequence[Image.Image], launch: Launch) -> Tensor:
    encoder.module.to(launch.device)
    views = torch.stack([encoder.preprocess(picture) for picture in pictures])
    return torch.cat([encode(encoder, part, "fp32", launch)[0].flatten(1).cpu() for part in views.split(64)])
