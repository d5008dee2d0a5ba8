"""All analyses of one trained model and one subject, each next to the same of a model of shuffled labels."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.evaluation.explanation import gradients, occlusion
from brainhive_cli.evaluation.explanation.linear_maps import Products, Scale
from brainhive_cli.evaluation.explanation.occlusion import REGION, TIME, centres_of, regions_of, window_masks
from brainhive_cli.evaluation.explanation.profiles import (
    SPACE_PART,
    TIME_PART,
    Profile,
    Profiles,
    SubjectProfiles,
)
from brainhive_cli.evaluation.explanation.reader import Reader
from brainhive_cli.evaluation.explanation.recipe import OF_MODEL, Explanation, Window
from brainhive_cli.measurement.ranks import ranks_of_all

SIGNALS_AT_ONCE = 4096
"""Training signals that are multiplied at once."""


def explain_model(reader: Reader, spec: Explanation, shuffled: Reader | None = None) -> SubjectProfiles:
    """Run the chosen analyses.

    Args:
        reader: The model with the subject's signals.
        spec: What is measured.
        shuffled: The same signals, read by a model that was trained on shuffled labels.
    """
    measured = SubjectProfiles(reader.image_ids)
    for name in (name for name in OF_MODEL if name in spec.analyses):
        measured.attempt(name, lambda name=name: analyse(name, reader, spec))  # type: ignore[misc]
        if shuffled is not None and name not in measured.missing and name != "trained":
            control = SubjectProfiles(shuffled.image_ids)
            control.attempt(name, lambda name=name: analyse(name, shuffled, spec))  # type: ignore[misc]
            for key in measured.profiles.keys() & control.profiles.keys():
                values = control.profiles[key].values
                measured.profiles[key] = measured.profiles[key].with_shuffled(values)
    return measured


def analyse(name: str, reader: Reader, spec: Explanation) -> Profiles:
    """Run one analysis of a model by its name in the recipe."""
    match name:
        case "windows":
            return occlusion.read_windows(reader, spec.window)
        case "occlusion":
            return occlusion.occlude_windows(reader, spec.window)
        case "columns":
            return occlusion.occlude_columns(reader)
        case "sensors":
            return occlusion.occlude_sensors(reader)
        case "bands":
            return occlusion.occlude_bands(reader, spec.bands)
        case "regions":
            return occlusion.occlude_regions(reader)
        case "levels":
            return occlusion.drop_levels(reader)
        case "gradients":
            shares = gradients.attribute(reader, spec.points, spec.window.step_ms)
            return {TIME_PART if axis == TIME else SPACE_PART: part for axis, part in shares.items()}
        case _:
            return decode_parts(reader, spec.window, spec.alpha)


def decode_parts(reader: Reader, window: Window, alpha: float | None) -> dict[str, Profile]:
    """Train a ridge on each window, or each region of voxels, and rank the pictures by its predictions.

    Signals are standardised by the training ones. The targets are those that the model learned from.

    Raises:
        BrainhiveError: if voxels belong to no region.
    """
    training = reader.member.responses(reader.subject, "train", is_tested=False)
    learned = torch.from_numpy(training.signal)
    rows, place = np.unique(training.stimulus, return_inverse=True)
    targets = reader.member.images("train", rows)[torch.from_numpy(place)]  # [n, D]

    def ranks(train: Tensor, test: Tensor) -> NDArray[np.int64]:
        return ranks_of_all(decode(train, targets, test, alpha), reader.gallery, len(reader.gallery))

    signal = reader.signal
    if reader.selection.channels:
        spans, masks = window_masks(reader.times_ms, window)
        by_window = (ranks(learned[..., mask], signal[..., mask]) for mask in masks)
        return Profile.of_ranks(TIME, centres_of(spans), by_window, reader.labels, spans)
    regions = regions_of(reader)

    def by_region() -> Iterator[NDArray[np.int64]]:
        for voxels in map(list, regions.values()):
            yield ranks(learned[:, voxels], signal[:, voxels])

    return Profile.of_ranks(REGION, [*regions], by_region(), reader.labels)


def decode(learned: Tensor, targets: Tensor, signal: Tensor, alpha: float | None = None) -> Tensor:
    """Predict the targets [N, D] of signals [N, ...] by a ridge from others [n, ...] to theirs [n, D]."""
    train, test = (part.flatten(1).to(targets.device) for part in (learned, signal))
    scale = Scale.of(train)
    return Products.of(scale(train), targets.split(SIGNALS_AT_ONCE)).predict(scale(test), alpha)
