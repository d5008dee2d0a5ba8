"""Blocks of neighbouring clips: those of a film are alike, so that intervals resample blocks, not clips."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LONGEST = 24
"""Clips of a block: 48 s of cc2017. Where the logits of neighbours correlate by 0, .6 and .9, a nominal 95 %
interval of 1200 clips of five films holds in 92, 90 and 86 % of simulations, one over clips in 93, 68 and
36 % (`benchmarks/simulated_statistics.py`)."""
LEAST = 20
"""Blocks at least; few clips make shorter ones."""


def block_length(clips: int) -> int:
    """Choose how many neighbouring clips a block has."""
    return max(1, min(LONGEST, clips // LEAST))


def blocks(image_ids: Sequence[Sequence[str]], length: int) -> list[list[int]]:
    """Number the block of each clip, one list a subject; clips that several subjects saw are in one block."""
    known = dict.fromkeys(image_id for ids in image_ids for image_id in ids)
    place = {image_id: number // length for number, image_id in enumerate(known)}
    return [[place[image_id] for image_id in ids] for ids in image_ids]


def block_means(values: NDArray[np.float64], block: Sequence[int]) -> NDArray[np.float64]:
    """Average values [S, N] over the blocks of their clips: [S, blocks]."""
    _, rows = np.unique(block, return_inverse=True)
    return np.stack([np.bincount(rows, each) / np.bincount(rows) for each in np.atleast_2d(values)])
