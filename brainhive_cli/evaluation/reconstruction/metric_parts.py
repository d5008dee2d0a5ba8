"""The metrics that reconstructions can be scored by: their names, ranges and weights."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.results import Need
from brainhive_cli.data.datasets import Clip
from brainhive_cli.data.targets.encoder_groups import encode
from brainhive_cli.measurement.metrics import (
    Medium,
    MetricPart,
    Scale,
    image,
    networks,
    tasks,
    video,
)
from brainhive_cli.measurement.metrics.networks import FEATURE_METRICS, Network, parts_of
from brainhive_cli.models.encoders import EncoderConfig

OWN_PARTS = {**image.PARTS, **video.PARTS}
"""Metrics that need no weights."""
MEDIA = {name: metric.medium for name, metric in FEATURE_METRICS.items()}
PICTURE_METRICS = (*image.PARTS, *(name for name, medium in MEDIA.items() if medium == "picture"))
CLIP_METRICS = (*(name for name, medium in MEDIA.items() if medium == "clip"), *video.PARTS)
SCALES = {**tasks.SCALES, **{name: part.scale for name, part in (OWN_PARTS | FEATURE_METRICS).items()}}
TWO_WAY = Scale(0.0, 1.0, chance=0.5)
"""That of two-way identification in the embeddings of an encoder."""


def names_for(medium: Medium, names: Sequence[str] | None) -> list[str]:
    """Name the metrics of one medium: those chosen, by default all.

    Raises:
        RecipeError: if a chosen one compares the other medium.
    """
    of_medium = PICTURE_METRICS if medium == "picture" else CLIP_METRICS
    if unfit := [name for name in names or () if name not in of_medium]:
        raise RecipeError(f"{unfit[0]} does not compare {medium}s", f"metrics={','.join(of_medium)}")
    return list(of_medium if names is None else names)


def load(
    names: Sequence[str], encoders: Sequence[EncoderConfig], launch: Launch
) -> tuple[dict[str, MetricPart], dict[str, str]]:
    """Load metrics, and two-way identification in the embeddings of more encoders.

    Returns:
        The metrics by name, and for each one without weights the way to get them.
    """
    parts: dict[str, MetricPart] = {}
    missing: dict[str, str] = {}
    for name in (chosen for chosen in names if chosen in OWN_PARTS):
        if _has_library(name):
            parts[name] = OWN_PARTS[name]
        else:
            missing[name] = video.no_opencv().in_one_line
    featured = {name: FEATURE_METRICS[name] for name in names if name in FEATURE_METRICS}
    for network in dict.fromkeys(_network_of(name) for name in featured):
        of_network = {name: metric for name, metric in featured.items() if _network_of(name) is network}
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

    def features(media: Sequence[Image.Image | Clip]) -> Tensor:
        frames = [each.pictures if isinstance(each, Clip) else [each] for each in media]
        views = encoder.preprocess_all([picture for some in frames for picture in some])
        found = encode(encoder.module, views, "fp32", launch)[0].split([len(some) for some in frames])
        return image.standardised(torch.stack([each.mean(0) for each in found]))

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


def scale_of(metric: str) -> Scale:
    """Say what the values of a metric mean."""
    return SCALES.get(metric, TWO_WAY)


def is_here(metric: str, encoders: Sequence[EncoderConfig]) -> bool:
    """Whether a metric, or the two-way identification of one of the encoders, needs no download."""
    if metric in FEATURE_METRICS:
        return _network_of(metric).is_here()
    named = [encoder for encoder in encoders if two_way_name(encoder) == metric]
    # a function brings its own weights
    return _has_library(metric) or any(encoder.is_here or encoder.kind == "python" for encoder in named)


def needs_of(metrics: Sequence[str], encoders: Sequence[EncoderConfig]) -> list[Need]:
    """List the weights that metrics, and two-way identification by more encoders, are computed with."""
    networks = dict.fromkeys(_network_of(name) for name in metrics if name in FEATURE_METRICS)
    of_encoders = [replace(need, is_optional=True) for encoder in encoders for need in encoder.needs()]
    return [*(network.need() for network in networks), *of_encoders]


def _has_library(metric: str) -> bool:
    is_of_task = metric in tasks.SCALES and tasks.has_library(metric)
    return is_of_task or (metric in OWN_PARTS and (metric != "epe" or video.has_opencv()))


def _network_of(metric: str) -> Network:
    return networks.NETWORKS[FEATURE_METRICS[metric].network]
