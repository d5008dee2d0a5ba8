"""What is known of a stimulus, or decoded, in words and masks: for people who look at reconstructions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.data.datasets import StimulusSet
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
        image_id: {"caption": each.caption, "concepts": list(each.concepts)}
        for image_id, each in annotations.items()
    }


def _named(likelihood: NDArray[np.floating[Any]], names: Sequence[str]) -> tuple[str, ...]:
    """Name the likely concepts, the likeliest first; one at least."""
    order = np.argsort(-likelihood, kind="stable")[:MOST_CONCEPTS]
    return tuple(names[place] for rank, place in enumerate(order) if not rank or likelihood[place] > LIKELY)
