"""One seed out of several numbers, so that what is random depends on all of them and on nothing else."""

import numpy as np


def derive_seed(*seeds: int) -> int:
    """Mix seeds into one of 64 bits."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])
