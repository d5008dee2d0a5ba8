"""The networks in whose features metrics of clips compare them, from the hub by transformers."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.core import console
from brainhive_cli.measurement.metrics import networks
from brainhive_cli.measurement.metrics.image import identified
from brainhive_cli.measurement.metrics.n_way import LABELS, chance, n_way, over_frames
from brainhive_cli.measurement.metrics.networks import IMAGENET, FeatureMetric, Network
from brainhive_cli.measurement.metrics.part import Scale

FRAMES = 6
"""Frames that VideoMAE is built for: those of a clip of cc2017 (NEURONS, NeuroClips)."""
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and standard deviation of ViT's colours."""
VIT, DINO = "hub:google/vit-base-patch16-224", "hub:facebook/dino-vitb16"
VIDEOMAE = "hub:MCG-NJU/videomae-base-finetuned-kinetics"


class _Outputs(nn.Module):
    """A network of transformers, by what a function takes from its outputs."""

    def __init__(self, network: Any, outputs: Callable[[Any], Mapping[str, Tensor]], **options: Any) -> None:
        super().__init__()
        self.network, self._outputs, self._options = network, outputs, options

    def forward(self, media: Tensor) -> Mapping[str, Tensor]:
        """Compute the outputs of pictures or clips."""
        return self._outputs(self.network(pixel_values=media, **self._options))


def _loaded(kind: str, folder: Path, **options: Any) -> Any:
    import transformers

    with console.hushed():
        network, report = getattr(transformers, kind).from_pretrained(
            folder, output_loading_info=True, dtype=torch.float32, **options
        )
    if report["missing_keys"]:
        raise KeyError(f"it lacks {sorted(report['missing_keys'])[0]}")
    return network


def _vit(folder: Path) -> nn.Module:
    return _Outputs(_loaded("ViTForImageClassification", folder), lambda found: {"logits": found.logits})


def _videomae(folder: Path) -> nn.Module:
    network = _loaded("VideoMAEForVideoClassification", folder, num_frames=FRAMES)
    return _Outputs(
        network,
        lambda found: {"logits": found.logits, "features": found.hidden_states[-1].mean(1)},
        output_hidden_states=True,
    )


def _dino(folder: Path) -> nn.Module:
    network = _loaded("ViTModel", folder, add_pooling_layer=False)
    return _Outputs(network, lambda found: {"class token": found.last_hidden_state[:, 0]})


NETWORKS = {
    "vit": Network("ViT-B/16", 224, ("logits",), lambda: VIT, _vit, HALVES),
    "videomae": Network(
        "VideoMAE", 224, ("logits", "features"), lambda: VIDEOMAE, _videomae, IMAGENET, takes_clips=True
    ),
    "dino": Network(
        "DINO ViT-B/16", 224, ("class token",), lambda: DINO, _dino, IMAGENET, weights="pytorch_model.bin"
    ),
    "clip": networks.NETWORKS["clip"],
}
"""Colours are those of the repositories' preprocessor_config.json: VideoMAE's class has others by default."""


def as_they_are(features: Tensor) -> Tensor:
    """Bring features to the CPU in float32."""
    return features.detach().float().cpu()


def directions(features: Tensor) -> Tensor:
    """Bring features [..., D] to unit length, on the CPU."""
    return F.normalize(as_they_are(features), dim=-1)


def consistency(made: Tensor, is_of_neighbours: bool = False) -> Tensor:
    """Mean cosine of the frames of clips with each other: CLIP-pcc.

    Nothing is compared with the stimulus, and a still picture has the highest value, 1.

    Args:
        made: Features of unit length, [B, F, D].
        is_of_neighbours: Whether pairs are one frame apart (Mind-Animator), or all (NEURONS).

    Returns:
        [B], float64; 1 for clips of one frame.
    """
    count = made.shape[1]
    if count < 2:
        return torch.ones(len(made), dtype=torch.float64)
    cosines = made.double() @ made.double().transpose(1, 2)  # [B, F, F]
    if is_of_neighbours:
        return cosines.diagonal(1, 1, 2).mean(1)
    first, second = torch.triu_indices(count, count, 1)
    return cosines[:, first, second].mean(1)


def _similarity(seen: Tensor, made: Tensor, own: Tensor) -> Tensor:
    """Mean cosine of frames [B, F, D] with those of their own clips in [N, F, D]; [B]."""
    return (seen[own].double() * made.double()).sum(-1).mean(1)


def _consistency(is_of_neighbours: bool, short: str) -> FeatureMetric:
    def compare(seen: Tensor, made: Tensor, own: Tensor) -> Tensor:
        return consistency(made, is_of_neighbours)

    return FeatureMetric(
        "clip", "embedding", compare, Scale(short=short, ranks=False), directions, "clip", is_of_one=True
    )


def _n_way(network: str, compare: Callable[..., Tensor], ways: int, labels: int) -> FeatureMetric:
    strict = " strict" if labels == 1 else ""
    scale = Scale(0.0, 1.0, chance=chance(ways, labels), pool=ways, short=f"{ways}-way{strict}")
    scored = partial(compare, ways=ways, labels=labels)
    return FeatureMetric(network, "logits", scored, scale, as_they_are, "clip")


def _n_ways() -> dict[str, FeatureMetric]:
    return {
        f"{what}_{ways}way{'' if labels == LABELS else '_strict'}": _n_way(network, compare, ways, labels)
        for what, network, compare in (("video", "videomae", n_way), ("frame", "vit", over_frames))
        for labels in (LABELS, 1)
        for ways in (2, 50)
    }


FEATURE_METRICS = {
    **_n_ways(),
    "videomae": FeatureMetric(
        "videomae", "features", identified, Scale(0.0, 1.0, chance=0.5, short="VideoMAE"), medium="clip"
    ),
    "dino": FeatureMetric("dino", "class token", _similarity, Scale(short="DINO"), directions, "clip"),
    "clip_pcc": _consistency(False, "CLIP-pcc"),
    "clip_pcc_neighbours": _consistency(True, "CLIP-pcc n."),
}
"""By the name that recipes and tables use."""
