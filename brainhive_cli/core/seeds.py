"""Random numbers that depend on seeds and on nothing else."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


def derive_seed(*seeds: int) -> int:
    """Mix seeds into one of 64 bits, which depends on all of them."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])


def shuffled(count: int, seed: int) -> NDArray[np.int64]:
    """Shuffle 0 … count - 1 by NumPy's older generator, whose streams do not change."""
    order = np.arange(count)
    np.random.RandomState(seed).shuffle(order)
    return order


def seed_torch(seed: int, device: "torch.device") -> None:
    """Seed what torch draws from on the CPU and on one device.

    `torch.manual_seed` notes the call stack for each kind of device that is not there, at every call: 0.2 ms.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
