"""Metrics of reconstructions, with their networks and encoders."""

import importlib.util
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from brainhive_cli.core.base import (
    BrainhiveError,
    MissingData,
    MissingExtra,
    RecipeError,
    install_line,
)
from brainhive_cli.core.files import Input, foreign_code
from brainhive_cli.core.results import measurements
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.media import Clip
from brainhive_cli.data.targets import encode
from brainhive_cli.measurement.metrics import (
    Medium,
    MetricPart,
    MetricScale,
    image,
    semantics,
    tasks,
    video,
)
from brainhive_cli.measurement.metrics.networks import (
    FEATURE_METRICS,
    IDENTIFICATION,
    NETWORKS,
    find_feature_metric,
    load_metrics,
)
from brainhive_cli.measurement.metrics.semantics import SEED, SEED_PARTS
from brainhive_cli.models.encoders import EncoderConfig

PARTS: dict[str, MetricPart] = {
    **image.PARTS,
    **{name: metric for name, (_, _, metric) in FEATURE_METRICS.items()},
    **video.PARTS,
    **semantics.PARTS,
}
"""Metrics by name. Metrics of networks cannot compute features before `load_metrics`.
"""
PICTURE_METRICS = measurements.sort_by_agreement(
    name for name, metric in PARTS.items() if metric.medium == "picture"
)
CLIP_METRICS = [name for name, metric in PARTS.items() if metric.medium == "clip"]


def find_metric(name: str) -> MetricPart | None:
    """Find a metric by its name, or by the import path of a module.

    The module defines the metric as `PART`. Other names give None.

    Raises:
        RecipeError: if the module has no `PART`, or the user did not allow it.
    """
    # names of encoders, in names of two-way identification, may also have dots
    if "." not in name or name.startswith(measurements.TWO_WAY):
        feature_metric = find_feature_metric(name)
        return PARTS.get(name) if feature_metric is None else feature_metric[2]
    # metrics of which less is better are listed by name, so more is better here
    module = foreign_code.import_module(name, name, f"the metric {name}", __name__)
    metric = getattr(module, "PART", None)
    if not isinstance(metric, MetricPart):
        raise RecipeError(
            f"the module {name!r} is no metric",
            "it defines PART, a MetricPart of which more is better",
        )
    return metric


def list_networks(metric: str) -> list[str]:
    """List the keys of the networks that a metric needs."""
    if metric == SEED:
        return list(chain.from_iterable(map(list_networks, SEED_PARTS)))
    feature_metric = find_feature_metric(metric)
    networks = [] if feature_metric is None else [feature_metric[0]]
    # MiniLM embeds the captions
    return [*networks, "minilm"] if metric == "cap_sim" else networks


def choose_metrics(medium: Medium, names: Sequence[str] | None) -> list[str]:
    """Choose the metrics of a medium, sorted by their agreement with ratings of people.

    Args:
        medium: Medium of the stimuli.
        names: Names in the recipe, or None for all but the optional metrics. The metric
            SEED adds the metrics that it combines.

    Raises:
        RecipeError: if a metric compares media of the other kind.
    """
    available = PICTURE_METRICS if medium == "picture" else CLIP_METRICS
    for name in names or ():
        metric = find_metric(name)
        if metric is None or metric.medium != medium:
            raise RecipeError(
                f"{name} does not compare {medium}s", f"metrics={','.join(available)}"
            )
    if names is None:
        # Metrics with large networks, which are computed only if a recipe names them.
        names = [
            name for name in available if name not in {SEED, "object_f1", "cap_sim"}
        ]
    unique_names = dict.fromkeys(names)
    if SEED in unique_names:
        unique_names |= dict.fromkeys(SEED_PARTS)
    return measurements.sort_by_agreement(unique_names)


def load_metrics_and_encoders(
    names: Sequence[str], encoders: Sequence[EncoderConfig], launch: Launch
) -> tuple[dict[str, MetricPart], dict[str, str]]:
    """Load metrics, and two-way identification in the embeddings of encoders.

    Returns:
        The metrics by name, and an advice for each metric that cannot be loaded.
    """
    # metrics without a network, and names of metrics by network
    metrics: dict[str, MetricPart] = {}
    missing = {}
    names_of_network = defaultdict[str, list[str]](list)
    for name in names:
        feature_metric = find_feature_metric(name)
        if feature_metric is not None:
            names_of_network[feature_metric[0]].append(name)
            continue
        library_error = find_missing_library(name)
        metric = find_metric(name)
        if library_error is not None:
            missing[name] = library_error.in_one_line
        elif metric is not None:
            metrics[name] = metric

    # metrics of networks
    for network, network_names in names_of_network.items():
        try:
            metrics |= load_metrics(network, network_names, launch.device)
        except MissingData as error:
            missing |= dict.fromkeys(network_names, error.in_one_line)

    # SEED joins the features of its parts
    seed = metrics.pop(SEED, None)
    if seed is not None:
        absent_parts = [name for name in SEED_PARTS if name in missing]
        if absent_parts:
            missing[SEED] = missing[absent_parts[0]]
        else:
            functions = [metrics[name].features for name in SEED_PARTS]
            join = partial(_join_features, functions)
            metrics[SEED] = replace(seed, features=join)
    metrics = {name: metrics[name] for name in names if name in metrics}

    # further encoders
    for config in encoders:
        name = name_two_way_metric(config)
        try:
            metrics[name] = _load_identification(config, launch)
        except MissingData as error:
            missing[name] = error.in_one_line
    return metrics, missing


def _join_features(functions: Sequence[Callable[..., Tensor]], media: Any) -> Tensor:
    """Compute features [B, D] by several functions, and concatenate them."""
    return torch.cat([compute(media) for compute in functions], 1)


def _load_identification(config: EncoderConfig, launch: Launch) -> MetricPart:
    """Load an encoder, and make a metric of two-way identification by its embeddings.

    The embedding of a clip is the mean over its frames.
    """
    encoder = config.prepare()
    encoder.module.to(launch.device)

    def compute_features(media: Sequence[Image.Image | Clip]) -> Tensor:
        # encode the frames of all media at once
        pictures = []
        n_frames = []
        for original in media:
            if isinstance(original, Clip):
                pictures += original.to_pictures()
                n_frames.append(len(original.frames))
            else:
                pictures.append(original)
                n_frames.append(1)
        views = encoder.preprocess_all(pictures)
        embeddings = encode(encoder.module, views, "fp32", launch)[0]  # [sum(F), D]
        means = [clip.mean(0) for clip in embeddings.split(n_frames)]
        return image.standardise(torch.stack(means))  # [B, D]

    return replace(IDENTIFICATION, features=compute_features, takes_originals=True)


def require_known_metrics(names: list[str]) -> list[str]:
    """Return names of metrics, or raise an error.

    Raises:
        RecipeError: if there is no such metric, or a module has none.
    """
    for name in names:
        if find_metric(name) is None:
            valid_names = ", ".join(PICTURE_METRICS + CLIP_METRICS)
            raise RecipeError(
                f"no metric called {name!r}", f"choose from: {valid_names}"
            )
    return names


def name_two_way_metric(encoder: EncoderConfig) -> str:
    """Name the two-way identification by the embeddings of an encoder."""
    return f"two_way_{encoder.name}"


def is_two_way(name: str) -> bool:
    """Return True if a metric is the share of wrong candidates below the right one."""
    if name.startswith(measurements.TWO_WAY):
        return True
    metric = find_metric(name)
    return metric is not None and metric.compare is IDENTIFICATION.compare


def get_scale(name: str) -> MetricScale:
    """Return the scale of a metric."""
    metric = find_metric(name)
    if metric is not None:
        return metric.scale
    return tasks.SCALES.get(name, IDENTIFICATION.scale)


def find_missing_library(metric: str) -> MissingExtra | None:
    """Return the error of the library that a metric lacks, or None.

    Libraries of networks are not checked.
    """
    if metric != "epe":
        return tasks.find_missing_library(metric)
    # OpenCV measures motion
    if importlib.util.find_spec("cv2") is not None:
        return None
    return MissingExtra("epe needs OpenCV", install_line("video"))


def find_computable(
    metrics: Sequence[str], encoders: Sequence[EncoderConfig]
) -> tuple[list[str], dict[str, str]]:
    """Find the metrics whose weights and libraries are present or can be downloaded.

    They include two-way identification by the encoders.

    Returns:
        Names of these metrics, and an advice for each other metric.
    """
    inputs_of: dict[str, list[Input]] = {}
    for name in metrics:
        inputs_of[name] = list_metric_inputs([name], [])
    for encoder in encoders:
        inputs_of[name_two_way_metric(encoder)] = list(encoder.inputs())

    computable = []
    missing = {}
    for name, inputs in inputs_of.items():
        errors: list[BrainhiveError | None] = [item.error for item in inputs]
        errors.append(find_missing_library(name))
        error = next(filter(None, errors), None)
        if error is None:
            computable.append(name)
        else:
            missing[name] = error.in_one_line
    return computable, missing


def is_available(metric: str, encoders: Sequence[EncoderConfig]) -> bool:
    """Return True if a metric can be computed without a download.

    Args:
        metric: Name of a metric, or of the two-way identification by an encoder.
        encoders: Encoders of two-way identification.
    """
    networks = list_networks(metric)
    if networks:
        return all(NETWORKS[network].is_here() for network in networks)
    if metric in tasks.SCALES or find_metric(metric):
        return find_missing_library(metric) is None
    for encoder in encoders:
        # an encoder that is a Python function has its own weights
        has_weights = encoder.is_available or encoder.kind == "python"
        if name_two_way_metric(encoder) == metric and has_weights:
            return True
    return False


def list_metric_inputs(
    metrics: Sequence[str], encoders: Sequence[EncoderConfig]
) -> list[Input]:
    """List the weights of metrics, and the optional weights of encoders."""
    networks: dict[str, None] = {}
    for name in metrics:
        networks |= dict.fromkeys(list_networks(name))
    inputs = [NETWORKS[network].find_input() for network in networks]
    for encoder in encoders:
        inputs += [replace(item, is_optional=True) for item in encoder.inputs()]
    return inputs
