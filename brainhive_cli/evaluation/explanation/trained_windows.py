"""What can be decoded from a part of the signal: a ridge to the targets, trained anew on each part."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.evaluation.explanation.linear_maps import Products, Scale
from brainhive_cli.evaluation.explanation.occlusion import REGION, TIME, centres_of, regions_of, window_masks
from brainhive_cli.evaluation.explanation.profiles import Profile, Spans
from brainhive_cli.evaluation.explanation.reader import Reader
from brainhive_cli.evaluation.explanation.recipe import Window
from brainhive_cli.measurement.retrieval import ranks_of_all

AT_ONCE = 4096
"""Training signals that are multiplied at once."""


def decode_parts(reader: Reader, window: Window, alpha: float | None) -> dict[str, Profile]:
    """Train a ridge on each window, or each region of voxels, and rank the pictures by its predictions.

    Signals are standardised by the training ones. The targets are those that the model learned from.

    Raises:
        BrainhiveError: if voxels belong to no region.
    """
    spans: Spans | None = None
    if reader.selection.channels:
        spans, masks = window_masks(reader.times_ms, window)
        parts = (lambda signal, mask=mask: signal[..., mask] for mask in masks)
    else:
        regions = regions_of(reader)
        parts = (lambda signal, some=list(places): signal[:, some] for places in regions.values())
    train = reader.member.responses(reader.subject, "train", is_tested=False)
    learned = torch.from_numpy(train.signal)
    rows, place = np.unique(train.stimulus, return_inverse=True)
    targets = reader.member.images("train", rows)[torch.from_numpy(place)]  # [n, D]

    def ranks() -> Iterator[NDArray[np.int64]]:
        for part in parts:
            predicted = decode(part(learned), targets, part(reader.signal), alpha)
            yield ranks_of_all(predicted, reader.gallery, len(reader.gallery))

    if spans is None:
        return Profile.of_ranks(REGION, [*regions], ranks(), reader.labels)
    return Profile.of_ranks(TIME, centres_of(spans), ranks(), reader.labels, spans)


def decode(learned: Tensor, targets: Tensor, signal: Tensor, alpha: float | None = None) -> Tensor:
    """Predict the targets [N, D] of signals [N, ...] by a ridge from others [n, ...] to theirs [n, D]."""
    train, test = (each.flatten(1).to(targets.device) for each in (learned, signal))
    scale = Scale.of(train)
    return Products.of(scale(train), targets.split(AT_ONCE)).predict(scale(test), alpha)
