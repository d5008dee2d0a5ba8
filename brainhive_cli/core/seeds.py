"""Random numbers that depend on seeds and on nothing else."""

import numpy as np
from numpy.typing import NDArray


def derive_seed(*seeds: int) -> int:
    """Mix seeds into one of 64 bits, which depends on all of them."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])


def shuffled(count: int, seed: int) -> NDArray[np.int64]:
    """Shuffle 0 … count - 1 by NumPy's older generator, whose streams do not change."""
    order = np.arange(count)
    np.random.RandomState(seed).shuffle(order)
    return order
