"""The metrics that reconstructions can be scored by: their names, ranges and
weights.
"""

import importlib.util
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import torch
from PIL import Image
from torch import Tensor

from brainhive_cli.core import foreign_code, measurements
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingData,
    MissingExtra,
    RecipeError,
    install_line,
)
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.media.stimuli import Clip
from brainhive_cli.data.targets.encoder_groups import encode
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
    load_metrics,
)
from brainhive_cli.measurement.metrics.semantics import SEED, SEED_PARTS
from brainhive_cli.models.encoders import EncoderConfig

PARTS: dict[str, MetricPart] = {
    **image.PARTS,
    **{name: part for name, (_, _, part) in FEATURE_METRICS.items()},
    **video.PARTS,
    **semantics.PARTS,
}
"""All metrics by name; those of networks are bound to their features when they are
loaded.
"""
PICTURE_METRICS = measurements.sort_by_agreement(
    name for name, part in PARTS.items() if part.medium == "picture"
)
OPTIONAL_METRICS = {SEED, "object_f1", "cap_sim"}
"""Metrics of large networks, which are computed where a recipe names them."""
NETWORKS_OF_METRIC = {
    name: [network] for name, (network, *_) in FEATURE_METRICS.items()
}
"""Networks whose weights a metric needs; captions are read by a second one."""
NETWORKS_OF_METRIC["cap_sim"].append("minilm")
NETWORKS_OF_METRIC[SEED] = [*chain(*map(NETWORKS_OF_METRIC.__getitem__, SEED_PARTS))]
CLIP_METRICS = [name for name, part in PARTS.items() if part.medium == "clip"]


def find_metric(name: str) -> MetricPart | None:
    """Find a metric by its name, or by the import path of a module, which calls it
    `PART`; None of others.

    Raises:
        RecipeError: if the module has none, or the user did not allow it.
    """
    # names of encoders may have dots, too
    if "." not in name or name.startswith(measurements.TWO_WAY):
        return PARTS.get(name)
    # what is better is looked up by name, so a stranger's metric must be one of which
    # more is
    module = foreign_code.import_module(name, name, f"the metric {name}", __name__)
    part = getattr(module, "PART", None)
    if not isinstance(part, MetricPart):
        raise RecipeError(
            f"the module {name!r} is no metric",
            "it defines PART, a MetricPart of which more is better",
        )
    return part


def choose_metrics(medium: Medium, names: Sequence[str] | None) -> list[str]:
    """Name the metrics of one medium, by agreement with people: those chosen, and the
    parts of SEED; by default all but the optional ones.

    Raises:
        RecipeError: if a chosen one compares the other medium.
    """
    # metrics of clips need frames, those of pictures a single one
    known = PICTURE_METRICS if medium == "picture" else CLIP_METRICS
    for name in names or ():
        part = find_metric(name)
        if part is None or part.medium != medium:
            raise RecipeError(
                f"{name} does not compare {medium}s", f"metrics={','.join(known)}"
            )
    chosen = (
        [name for name in known if name not in OPTIONAL_METRICS]
        if names is None
        else names
    )
    parts = SEED_PARTS if SEED in chosen else ()
    return measurements.sort_by_agreement(dict.fromkeys([*chosen, *parts]))


def load_metrics_and_encoders(
    names: Sequence[str], encoders: Sequence[EncoderConfig], launch: Launch
) -> tuple[dict[str, MetricPart], dict[str, str]]:
    """Load metrics, and two-way identification in the embeddings of more encoders.

    Returns:
        The metrics by name, and for each one without weights the way to get them.
    """
    # metrics without weights; those of one network together
    parts: dict[str, MetricPart] = {}
    missing = {}
    feature_metrics = defaultdict[str, list[str]](list)
    for name in names:
        if name in FEATURE_METRICS:
            feature_metrics[FEATURE_METRICS[name][0]].append(name)
        elif absent := find_missing_library(name):
            missing[name] = absent.in_one_line
        elif part := find_metric(name):
            parts[name] = part

    # metrics of networks, and identification by encoders, as far as weights are here
    for network, metrics in feature_metrics.items():
        try:
            parts |= load_metrics(network, metrics, launch.device)
        except MissingData as error:
            missing |= dict.fromkeys(metrics, error.in_one_line)

    # SEED compares the features of its parts; names are those of the parts, too
    if seed := parts.pop(SEED, None):
        if absent_parts := [name for name in SEED_PARTS if name in missing]:
            missing[SEED] = missing[absent_parts[0]]
        else:
            functions = [parts[name].features for name in SEED_PARTS]
            parts[SEED] = replace(
                seed,
                features=lambda media: torch.cat([f(media) for f in functions], 1),
            )
    parts = {name: parts[name] for name in names if name in parts}

    # encoders that the user adds, one by one, as each has weights
    for config in encoders:
        try:
            parts[name_two_way_metric(config)] = _load_identification(config, launch)
        except MissingData as error:
            missing[name_two_way_metric(config)] = error.in_one_line
    return parts, missing


def _load_identification(config: EncoderConfig, launch: Launch) -> MetricPart:
    """Load an encoder, and identify media by the mean embedding of their frames."""
    encoder = config.prepare()
    encoder.module.to(launch.device)

    def features(media: Sequence[Image.Image | Clip]) -> Tensor:
        # all frames of the batch are encoded at once, then averaged clip by clip
        frames = [
            opened.to_pictures() if isinstance(opened, Clip) else [opened]
            for opened in media
        ]
        views = encoder.preprocess_all(
            [picture for pictures in frames for picture in pictures]
        )
        # [F of all media, D]
        embeddings = encode(encoder.module, views, "fp32", launch)[0]
        parts = embeddings.split([len(pictures) for pictures in frames])
        # [B, D]
        return image.standardise(torch.stack([part.mean(0) for part in parts]))

    return replace(IDENTIFICATION, features=features, takes_originals=True)


def require_known_metrics(names: list[str]) -> list[str]:
    """Refuse a metric that is not known; one with a dot is the import path of a
    module.
    """
    if unknown := [name for name in names if find_metric(name) is None]:
        known = ", ".join([*PICTURE_METRICS, *CLIP_METRICS])
        raise RecipeError(f"no metric called {unknown[0]!r}", f"there are: {known}")
    return names


def name_two_way_metric(encoder: EncoderConfig) -> str:
    """Name the two-way identification in an encoder's embeddings."""
    return f"two_way_{encoder.name}"


def get_scale(metric: str) -> MetricScale:
    """Say what the values of a metric mean."""
    part = find_metric(metric)
    return part.scale if part else tasks.SCALES.get(metric, IDENTIFICATION.scale)


def find_missing_library(metric: str) -> MissingExtra | None:
    """Say which library a metric without weights lacks, and how to get it."""
    if metric != "epe":
        return tasks.find_missing_library(metric)
    # motion is measured by OpenCV
    is_here = importlib.util.find_spec("cv2") is not None
    return None if is_here else MissingExtra("epe needs OpenCV", install_line("video"))


def find_computable(
    metrics: Sequence[str], encoders: Sequence[EncoderConfig]
) -> tuple[list[str], dict[str, str]]:
    """Find the metrics whose weights and libraries are here or can be fetched.

    Returns:
        Their names, and the way to get each other one.
    """
    errors: dict[str, BrainhiveError | None] = {}
    for name in metrics:
        inputs = [
            NETWORKS[each].find_input() for each in NETWORKS_OF_METRIC.get(name, ())
        ]
        absent = [need.error for need in inputs if need.error is not None]
        errors[name] = next(iter(absent), find_missing_library(name))
    for encoder in encoders:
        absent = [need.error for need in encoder.inputs() if need.error is not None]
        errors[name_two_way_metric(encoder)] = next(iter(absent), None)
    missing = {
        name: error.in_one_line for name, error in errors.items() if error is not None
    }
    return [name for name in errors if name not in missing], missing


def is_available(metric: str, encoders: Sequence[EncoderConfig]) -> bool:
    """Whether a metric, or the two-way identification of one of the encoders, needs no
    download.
    """
    # weights of a network may have to be downloaded
    if metric in NETWORKS_OF_METRIC:
        return all(
            NETWORKS[network].is_here() for network in NETWORKS_OF_METRIC[metric]
        )

    # metrics that need no weights, but perhaps a library
    if metric in tasks.SCALES or find_metric(metric):
        return find_missing_library(metric) is None

    # encoders; a function brings its own weights
    matching = [
        encoder for encoder in encoders if name_two_way_metric(encoder) == metric
    ]
    return any(encoder.is_available or encoder.kind == "python" for encoder in matching)


def list_metric_inputs(
    metrics: Sequence[str], encoders: Sequence[EncoderConfig]
) -> list[Input]:
    """List the weights that metrics, and two-way identification by more encoders, are
    computed with.
    """
    networks = dict.fromkeys(
        chain(*(NETWORKS_OF_METRIC.get(name, ()) for name in metrics))
    )
    return [NETWORKS[network].find_input() for network in networks] + [
        replace(need, is_optional=True)
        for encoder in encoders
        for need in encoder.inputs()
    ]
