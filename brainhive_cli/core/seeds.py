"""Random numbers that depend on seeds and on nothing else."""

from typing import TYPE_CHECKING

import numpy as np

from brainhive_cli.core.arrays import Int64

if TYPE_CHECKING:
    import torch


def derive_seed(*seeds: int) -> int:
    """Mix seeds into one of 64 bits, which depends on all of them."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])


def shuffled(count: int, seed: int) -> Int64:
    """Shuffle 0 … count - 1 by NumPy's older generator, whose streams do not change."""
    # RandomState is frozen; Generator may change between versions of NumPy
    order = np.arange(count)
    np.random.RandomState(seed).shuffle(order)
    return order


def seed_torch(seed: int, device: "torch.device") -> None:
    """Seed what torch draws from on the CPU and on one device.

    `torch.manual_seed` notes the call stack for each kind of device that is not there,
    at every call: 0.2 ms.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def convex_weights(
    is_there: "torch.Tensor", alpha: float, generator: "torch.Generator"
) -> "torch.Tensor":
    """Draw weights from a symmetric Dirichlet distribution over what is there.

    Args:
        is_there: [..., K]; at least one of each K.
        alpha: Above 0. At 1 all weights are equally likely; near 0 one has them all, at
            large values all are equal.
        generator: Of the device of `is_there`.

    Returns:
        [..., K], zero where nothing is, with the sum 1.
    """
    import torch

    # Gamma(alpha) is Gamma(alpha + 1) · U^(1 / alpha): as logarithms, small alpha does
    # not underflow
    like = torch.full(is_there.shape, alpha + 1, device=is_there.device)
    # torch.distributions takes no generator
    gamma = torch._standard_gamma(like, generator=generator)
    logarithm = (
        gamma.log() - torch.empty_like(gamma).exponential_(generator=generator) / alpha
    )
    return logarithm.masked_fill(~is_there, -torch.inf).softmax(-1)
