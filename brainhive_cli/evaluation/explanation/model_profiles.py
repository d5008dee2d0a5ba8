"""All analyses of one trained model and one subject, each next to the same of a model of shuffled labels."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.evaluation.explanation import gradients, occlusion
from brainhive_cli.evaluation.explanation.occlusion import regions_of, window_masks
from brainhive_cli.evaluation.explanation.profiles import (
    BAND,
    REGION,
    SENSOR,
    TIME,
    Axis,
    Profile,
    Profiles,
    SubjectProfiles,
)
from brainhive_cli.evaluation.explanation.reader import Reader
from brainhive_cli.evaluation.explanation.recipe import Explanation
from brainhive_cli.measurement.linear_maps import Products, Scale
from brainhive_cli.measurement.ranks import ranks_of_all

SIGNALS_AT_ONCE = 4096
"""Training signals that are multiplied at once, to bound memory."""


def explain_model(reader: Reader, spec: Explanation, shuffled: Reader | None = None) -> SubjectProfiles:
    """Run the chosen analyses.

    Args:
        reader: The model with the subject's signals.
        spec: What is measured.
        shuffled: The same signals, read by a model that was trained on shuffled labels.
    """
    measured = SubjectProfiles(reader.image_ids)
    chosen = {name: analyse for name, analyse in ANALYSES.items() if name in spec.analyses}
    with console.progress("analyses", len(chosen)) as bar:
        for name, analyse in chosen.items():
            measured.attempt(name, partial(analyse, reader, spec))

            # the same of the model of shuffled labels; the ridges of "trained" are not that model's
            if shuffled is not None and name not in measured.missing and name != "trained":
                control = SubjectProfiles(shuffled.image_ids)
                control.attempt(name, partial(analyse, shuffled, spec))
                for key in measured.profiles.keys() & control.profiles.keys():
                    values = control.profiles[key].values
                    measured.profiles[key] = replace(measured.profiles[key], shuffled=values)
            bar.advance()
    return measured


def decode_parts(reader: Reader, spec: Explanation) -> dict[str, Profile]:
    """Train a ridge on each window, or each region of voxels, and rank the pictures by its predictions.

    Signals are standardised by the training ones. The targets are those that the model learned from.

    Raises:
        BrainhiveError: if voxels belong to no region.
    """
    training = reader.member.trials(reader.subject, "train", is_tested=False)
    learned = torch.from_numpy(training.averages)
    rows, indices = np.unique(training.stimulus, return_inverse=True)
    targets = reader.member.images("train", rows)[torch.from_numpy(indices)]  # [n, D]

    # the part [C, T] of the signals that each ridge reads, as indices
    parts: list[tuple[Any, ...]]
    if reader.trials.channels:
        axis, masks = window_masks(reader.times_ms, spec.window)
        parts = [(..., mask) for mask in masks]
    else:
        regions = regions_of(reader)
        axis, parts = Axis(REGION, [*regions]), [(slice(None), list(voxels)) for voxels in regions.values()]

    # ranks [N, M] by the predictions of each ridge
    gallery = reader.gallery
    predictions = (decode(learned[part], targets, reader.signal[part], spec.alpha) for part in parts)
    ranks = (ranks_of_all(predicted, gallery, len(gallery)) for predicted in predictions)
    return Profile.of_ranks(axis, ranks, reader.labels)


ANALYSES: Mapping[str, Callable[[Reader, Explanation], Profiles]] = {
    "windows": occlusion.read_windows,
    "occlusion": partial(occlusion.occlude, TIME),
    "columns": occlusion.occlude_columns,
    "sensors": partial(occlusion.occlude, SENSOR),
    "bands": partial(occlusion.occlude, BAND),
    "regions": partial(occlusion.occlude, REGION),
    "levels": occlusion.drop_levels,
    "gradients": gradients.attribute,
    "trained": decode_parts,
}
"""The analyses of a model by their names in the recipe, in the order of reports."""


def decode(learned: Tensor, targets: Tensor, signal: Tensor, alpha: float | None = None) -> Tensor:
    """Predict the targets [N, D] of signals [N, ...] by a ridge from others [n, ...] to theirs [n, D]."""
    train, test = (part.flatten(1).to(targets.device) for part in (learned, signal))
    scale = Scale.of(train)
    return Products.of(scale(train), targets.split(SIGNALS_AT_ONCE)).predict(scale(test), alpha)
