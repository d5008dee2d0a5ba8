"""What is known of a stimulus, or decoded, in words and masks: shown to people, and scored item by item."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from brainhive_cli.data.datasets import StimulusSet
from brainhive_cli.measurement.metrics import tasks
from brainhive_cli.measurement.metrics.tasks import Values
from brainhive_cli.models.heads import Decoded

CAPTION, MASK, CONCEPTS = "caption", "mask", "concepts"
"""The heads that are shown: texts, probabilities [F, 1, H, W] and [K]."""
LIKELY = 0.5
"""Probability from which a pixel is the key object's, and a concept is named."""
MOST_CONCEPTS = 4
"""Concepts that are named."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """What is known of one picture or clip.

    Attributes:
        caption: In words; "" where there is none.
        concepts: Names of what it shows.
        masks: Where its key object is, bool [F, H, W]; None where nothing says it.
    """

    caption: str = ""
    concepts: tuple[str, ...] = ()
    masks: NDArray[np.bool_] | None = None

    @property
    def lines(self) -> list[str]:
        """The caption and the concepts, for people."""
        return [*filter(None, (self.caption, ", ".join(self.concepts)))]


def of_stimulus(images: StimulusSet, row: int) -> Annotation:
    """Collect what a data set says of one of its stimuli."""
    captions = images.captions(row) if images.captions else []
    labels = images.labels(row) if images.labels else np.zeros(0, np.uint8)
    names = tuple(name for name, has in zip(images.label_names, labels, strict=False) if has)
    masks = images.masks(row).astype(bool) if images.masks else None
    return Annotation(captions[0] if len(captions) else "", names[:MOST_CONCEPTS], masks)


def of_decoded(decoded: Decoded, image_ids: Sequence[str], names: Sequence[str]) -> dict[str, Annotation]:
    """Collect what was decoded, by image id; empty where no head says anything in words or masks.

    Args:
        decoded: Heads of N rows.
        image_ids: [N].
        names: Those of the K concepts.
    """
    captions = decoded.texts.get(CAPTION)
    masks, concepts = (decoded.tensors.get(head) for head in (MASK, CONCEPTS))
    if masks is not None and masks.ndim != 5:
        masks = None
    if concepts is not None and concepts.shape[1:] != (len(names),):
        concepts = None
    if not captions and masks is None and concepts is None:
        return {}
    return {
        image_id: Annotation(
            captions[row] if captions else "",
            () if concepts is None else _named(concepts[row].cpu().numpy(), names),
            None if masks is None else (masks[row, :, 0] > LIKELY).cpu().numpy(),
        )
        for row, image_id in enumerate(image_ids)
    }


def as_documents(annotations: Mapping[str, Annotation]) -> dict[str, Any]:
    """Give captions and concepts as plain values, for JSON."""
    return {
        image_id: {"caption": annotation.caption, "concepts": list(annotation.concepts)}
        for image_id, annotation in annotations.items()
    }


def _named(likelihood: NDArray[np.floating[Any]], names: Sequence[str]) -> tuple[str, ...]:
    """Name the likely concepts, the likeliest first; one at least."""
    order = np.argsort(-likelihood, kind="stable")[:MOST_CONCEPTS]
    return tuple(names[place] for rank, place in enumerate(order) if not rank or likelihood[place] > LIKELY)


@dataclass(frozen=True, eq=False)
class TaskScores:
    """The scores of one decoded set, of what it has and the data set has the truth of.

    Attributes:
        values: [N] by metric; NaN of a stimulus without an object, a known concept or a caption. None of a
            metric of which all stimuli are such.
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
        values, guess, missing = dict[str, Values](), np.zeros(0), dict[str, str]()
        by_concept = dict[str, Values]()
        if images.masks is not None and masks is not None and masks.shape[1:2] == (images.frames or 1,):
            objects = [torch.from_numpy(images.masks(row))[:, None].gt(0).byte() for row in rows]
            size = (masks.shape[-2], masks.shape[-1])  # to which targets are brought in the same way
            true = torch.stack([interpolate(mask, size, mode="nearest") for mask in objects])
            values[tasks.DICE] = tasks.dice(masks.cpu(), true)
        names = images.label_names
        if images.labels is not None and likelihood is not None and likelihood.shape[1:] == (len(names),):
            shown = np.stack([images.labels(row) for row in rows]).astype(bool)  # [N, K]
            hits = tasks.recalled(likelihood.float().cpu().numpy(), shown)
            by_concept, guess = dict(zip(names, hits.T, strict=True)), shown.mean(1)
            values[tasks.RECALL] = torch.from_numpy(hits).nanmean(1).numpy()
        captions = [images.captions(row) if images.captions else [] for row in rows]
        present = [n for n, some in enumerate(captions) if len(some)]
        if present and (texts := decoded.texts.get(CAPTION)):
            scores = tasks.caption_scores([texts[n] for n in present], [captions[n] for n in present])
            for name, of_present in scores.items():
                values[name] = np.full(len(rows), np.nan)
                values[name][present] = of_present
            absent = [name for name in tasks.LIBRARIES if not tasks.has_library(name)]
            missing = {name: tasks.no_library(name).in_one_line for name in absent}
        return cls(_of_some_item(values), _of_some_item(by_concept), guess, missing)


def _of_some_item(values: Mapping[str, Values]) -> dict[str, Values]:
    return {name: some for name, some in values.items() if not np.isnan(some).all()}
