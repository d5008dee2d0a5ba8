"""The metrics that reconstructions can be scored by: their names, ranges and weights."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.encoder_groups import encode
from brainhive_cli.encoders import EncoderConfig
from brainhive_cli.metrics import image, video
from brainhive_cli.metrics.networks import FEATURE_METRICS, NETWORKS, parts_of
from brainhive_cli.metrics.part import Medium, MetricPart

OWN_PARTS = {**image.PARTS, **video.PARTS}
"""Metrics that need no weights."""
PICTURE_METRICS, CLIP_METRICS = (*image.PARTS, *FEATURE_METRICS), tuple(video.PARTS)

SHORT = {
    "pixcorr": "PixCorr",
    "ssim": "SSIM",
    "alexnet2": "Alex2",
    "alexnet5": "Alex5",
    "inception": "Incep",
    "clip": "CLIP",
    "effnet": "Eff",
    "swav": "SwAV",
}
"""Short names, of the metrics that have one."""


def names_for(medium: Medium, names: Sequence[str] | None) -> list[str]:
    """Name the metrics of one medium: those chosen, by default all.

    Raises:
        RecipeError: if a chosen one compares the other medium.
    """
    of_medium = PICTURE_METRICS if medium == "picture" else CLIP_METRICS
    if others := [name for name in names or () if name not in of_medium]:
        raise RecipeError(f"{others[0]} does not compare {medium}s", f"metrics={','.join(of_medium)}")
    return list(of_medium if names is None else names)


def load(
    names: Sequence[str], encoders: Sequence[EncoderConfig], launch: Launch
) -> tuple[dict[str, MetricPart], dict[str, str]]:
    """Load metrics, and two-way identification in the embeddings of more encoders.

    Returns:
        The metrics by name, and for each one without weights the way to get them.
    """
    parts = {name: OWN_PARTS[name] for name in names if name in OWN_PARTS}
    missing: dict[str, str] = {}
    featured = [name for name in names if name in FEATURE_METRICS]
    for network in dict.fromkeys(FEATURE_METRICS[name].network for name in featured):
        of_network = [name for name in featured if FEATURE_METRICS[name].network == network]
        try:
            parts |= parts_of(network, of_network, launch.device)
        except MissingData as error:
            missing |= dict.fromkeys(of_network, error.in_one_line)
    for config in encoders:
        try:
            parts[two_way_name(config)] = _of_encoder(config, launch)
        except MissingData as error:
            missing[two_way_name(config)] = error.in_one_line
    return parts, missing


def _of_encoder(config: EncoderConfig, launch: Launch) -> MetricPart:
    encoder = config.build()
    encoder.module.to(launch.device)

    def features(pictures: Sequence[Image.Image]) -> Tensor:
        views = torch.stack([encoder.preprocess(picture) for picture in pictures])
        return image.standardised(encode(encoder.module, views, "fp32", launch)[0])

    return MetricPart(features, image.identified, is_identification=True, takes_originals=True)


def known_metrics(names: list[str]) -> list[str]:
    """Refuse a metric that is not known."""
    known = (*PICTURE_METRICS, *CLIP_METRICS)
    if unknown := [name for name in names if name not in known]:
        raise RecipeError(f"no metric called {unknown[0]!r}", f"there are: {', '.join(known)}")
    return names


def two_way_name(encoder: EncoderConfig) -> str:
    """Name the two-way identification in an encoder's embeddings."""
    return f"two_way_{encoder.name}"


def short(metric: str) -> str:
    """Shorten the name of a metric."""
    return SHORT.get(metric, metric.removeprefix("two_way_"))


def is_here(metric: str, encoders: Sequence[EncoderConfig]) -> bool:
    """Whether a metric, or the two-way identification of one of the encoders, needs no download."""
    if metric in FEATURE_METRICS:
        return NETWORKS[FEATURE_METRICS[metric].network].is_here()
    named = [encoder for encoder in encoders if two_way_name(encoder) == metric]
    # a function brings its own weights
    return metric in OWN_PARTS or any(encoder.is_here or encoder.kind == "python" for encoder in named)


def lower_is_better(metric: str) -> bool:
    """Whether a metric is a distance."""
    return metric in FEATURE_METRICS and FEATURE_METRICS[metric].is_distance


def chance_of(metric: str) -> float | None:
    """Return the value expected of guessing; None for metrics without such a level."""
    return None if metric in OWN_PARTS or lower_is_better(metric) else 0.5


def limits_of(metric: str) -> tuple[float, float]:
    """Return the bounds of a share, a correlation distance or a correlation (or SSIM)."""
    if chance_of(metric) is not None:
        return (0.0, 1.0)
    return (0.0, 2.0) if lower_is_better(metric) else (-1.0, 1.0)
