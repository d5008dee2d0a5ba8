"""Metrics of clips in the features of networks of transformers: their networks, and n-way classification."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.measurement.metrics import Scale, networks
from brainhive_cli.measurement.metrics.image import identified
from brainhive_cli.measurement.metrics.networks import IMAGENET, FeatureMetric, Network

LABELS = 3
"""Classes of the stimulus that count as right in the field's definition (NEURONS, NeuroClips, MinD-Video)."""


def n_way(seen: Tensor, made: Tensor, own: Tensor, *, ways: int, labels: int) -> Tensor:
    """Score reconstructions by a classifier: the expected share of trials in which a right class wins.

    A trial draws `ways` - 1 other classes. It is a hit if any right class, of the `labels` that the
    classifier finds likeliest in the stimulus, scores above all of them in the reconstruction; ties are
    misses. Of the m other classes below the best right one, C(m, ways - 1) of all draws hit, so nothing
    has to be drawn.

    Args:
        seen: A classifier's logits of the N stimuli, [N, K].
        made: The same of reconstructions, [B, K].
        own: The row of each one's stimulus, [B].
        ways: Classes of a trial, where one is right.
        labels: Right classes of a stimulus: 3 in the field's definition, 1 in the strict one.

    Returns:
        [B], float64. Chance is labels / (labels + ways - 1).

    Raises:
        BrainhiveError: if the classifier has too few classes.

    Source: MinD-Video (arXiv 2305.11675), its evaluation code, which NEURONS and NeuroClips use; it draws 100
    trials.
    """
    right = seen[own].topk(min(labels, seen.shape[1]), dim=1).indices
    return expected_hits(made, right, ways)


def expected_hits(scores: Tensor, right: Tensor, ways: int) -> Tensor:
    """Share of all draws of `ways` - 1 other classes that the best right class beats.

    Args:
        scores: [B, K].
        right: Right classes, [B, L].
        ways: Classes of a trial, where one is right.

    Returns:
        [B], float64.

    Raises:
        BrainhiveError: if there are fewer other classes than are drawn.
    """
    others = scores.shape[1] - right.shape[1]
    if others < ways - 1:
        raise BrainhiveError(
            f"a classifier of {scores.shape[1]} classes has no {ways}-way trials", "use one of more classes"
        )
    best = scores.gather(1, right).amax(1, keepdim=True)
    below = (scores < best).scatter(1, right, False).sum(1).double()  # m
    drawn = torch.arange(ways - 1, dtype=torch.float64, device=scores.device)
    return ((below[:, None] - drawn).clamp(min=0) / (others - drawn)).prod(1).cpu()


def n_way_of_frames(seen: Tensor, made: Tensor, own: Tensor, *, ways: int, labels: int) -> Tensor:
    """Score clips by a classifier of pictures, [N, F, K] and [B, F, K], frame by frame; the mean, [B]."""
    frames = made.shape[1]
    own_frames = (own[:, None] * frames + torch.arange(frames)).flatten()
    shares = n_way(seen.flatten(0, 1), made.flatten(0, 1), own_frames, ways=ways, labels=labels)
    return shares.unflatten(0, (-1, frames)).mean(1)


def n_way_chance(ways: int, labels: int) -> float:
    """Value expected of random scores: the best of all labels + ways - 1 classes is a right one."""
    return labels / (labels + ways - 1)


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
    return _Outputs(_loaded("ViTForImageClassification", folder), lambda outputs: {"logits": outputs.logits})


def _videomae(folder: Path) -> nn.Module:
    network = _loaded("VideoMAEForVideoClassification", folder, num_frames=FRAMES)
    return _Outputs(
        network,
        lambda outputs: {"logits": outputs.logits, "features": outputs.hidden_states[-1].mean(1)},
        output_hidden_states=True,
    )


def _dino(folder: Path) -> nn.Module:
    network = _loaded("ViTModel", folder, add_pooling_layer=False)
    return _Outputs(network, lambda outputs: {"class token": outputs.last_hidden_state[:, 0]})


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
    scale = Scale(0.0, 1.0, chance=n_way_chance(ways, labels), pool=ways, short=f"{ways}-way{strict}")
    scored = partial(compare, ways=ways, labels=labels)
    return FeatureMetric(network, "logits", scored, scale, as_they_are, "clip")


def _n_ways() -> dict[str, FeatureMetric]:
    return {
        f"{what}_{ways}way{'' if labels == LABELS else '_strict'}": _n_way(network, compare, ways, labels)
        for what, network, compare in (("video", "videomae", n_way), ("frame", "vit", n_way_of_frames))
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
