"""The key object of a clip: of the objects with masks, the one that it is about."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.data.datasets._cc2017_words import BACKGROUND, PRIORITY

LARGE = 0.5
"""Share of the picture from which on an object is taken for its setting."""


def key_object(masks: Mapping[str, NDArray[np.bool_]]) -> str | None:
    """Choose the object that moves most; a person or an animal before others, a small one before a large one.

    Args:
        masks: [F, H, W] where each named object is; a frame in which it is not seen is empty.

    Returns:
        Its name; None where there is nothing but background.

    Source: xmed-lab/NEURONS, which masks teach its segmentation.
    """
    known = {name: mask for name, mask in masks.items() if name not in BACKGROUND and mask.any()}
    scores = {name: _path_px(mask) * (2 if name in PRIORITY else 1) for name, mask in known.items()}
    moving = [name for name in known if name in PRIORITY and scores[name] > 0]
    small = [name for name, mask in known.items() if _last_share(mask) < LARGE]
    return max(moving or small or known, key=scores.__getitem__, default=None)


def _path_px(mask: NDArray[np.bool_]) -> float:
    """Add up how far the centre moves between frames that both show the object, in pixels."""
    centres = [np.argwhere(frame).mean(0) if frame.any() else None for frame in mask]
    return sum(
        float(np.linalg.norm(after - before))
        for before, after in pairwise(centres)
        if before is not None and after is not None
    )


def _last_share(mask: NDArray[np.bool_]) -> float:
    """Say how much of the last frame that shows the object is covered by it."""
    return float(next(frame for frame in mask[::-1] if frame.any()).mean())
