"""How well the masks, concepts and captions that were decoded are those of the stimuli, item by item."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from brainhive_cli.core.decoded import Decoded
from brainhive_cli.datasets import StimulusSet
from brainhive_cli.metrics.tasks import (
    DICE,
    LIBRARIES,
    RECALL,
    Values,
    caption_scores,
    dice,
    has_library,
    no_library,
    recalled,
)
from brainhive_cli.reconstruction.annotations import CAPTION, CONCEPTS, MASK


@dataclass(frozen=True, eq=False)
class TaskScores:
    """The scores of one decoded set, of what it has and the data set has the truth of.

    Attributes:
        values: [N] by metric; NaN of a stimulus without an object, a known concept or a caption.
        by_concept: Whether each concept was recalled, [N] by its name; NaN of stimuli that do not show it.
        guess: Chance of recalling one of an item's concepts by guessing, [N].
        missing: Scores whose library is missing, and how to get it.
    """

    values: Mapping[str, Values] = field(default_factory=dict)
    by_concept: Mapping[str, Values] = field(default_factory=dict)
    guess: Values = field(default_factory=lambda: np.zeros(0))
    missing: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, decoded: Decoded, images: StimulusSet, image_ids: Sequence[str]) -> Self:
        """Compare decoded heads of N rows with the stimuli `image_ids` [N]."""
        row_of = {image_id: row for row, image_id in enumerate(images.image_ids)}
        rows = [row_of[image_id] for image_id in image_ids]
        masks, likelihood = (decoded.tensors.get(head) for head in (MASK, CONCEPTS))
        values, by_concept, guess = dict[str, Values](), dict[str, Values](), np.zeros(0)
        if images.masks is not None and masks is not None and masks.shape[1:2] == (images.frames or 1,):
            size = (masks.shape[-2], masks.shape[-1])
            true = torch.stack([_resized(images.masks(row), size) for row in rows])  # [N, F, 1, H, W]
            values[DICE] = dice(masks.cpu(), true)
        names = images.label_names
        if images.labels is not None and likelihood is not None and likelihood.shape[1:] == (len(names),):
            shown = np.stack([images.labels(row) for row in rows]).astype(bool)  # [N, K]
            hits, counts = recalled(likelihood.float().cpu().numpy(), shown), shown.sum(1)
            by_concept = {name: hits[:, place] for place, name in enumerate(names)}
            guess = counts / len(names)
            values[RECALL] = np.where(counts > 0, np.nansum(hits, 1) / np.maximum(counts, 1), np.nan)
        captions = [images.captions(row) if images.captions else [] for row in rows]
        texts, present = decoded.texts.get(CAPTION), [n for n, some in enumerate(captions) if len(some)]
        missing = dict[str, str]()
        if texts and present:
            scores = caption_scores([texts[n] for n in present], [captions[n] for n in present])
            for name, of_present in scores.items():
                values[name] = np.full(len(rows), np.nan)
                values[name][present] = of_present
            missing = {name: no_library(name).in_one_line for name in LIBRARIES if not has_library(name)}
        return cls(values, by_concept, guess, missing)


def _resized(masks: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Bring masks [F, H, W] to the size of decoded ones, as their targets are: [F, 1, h, w]."""
    return interpolate(torch.from_numpy(masks)[:, None].gt(0).to(torch.uint8), size, mode="nearest")
