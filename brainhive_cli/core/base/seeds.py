"""Seeds, and random numbers that depend on nothing but a seed."""

from typing import TYPE_CHECKING

import numpy as np

from brainhive_cli.core.base.arrays import Int64

if TYPE_CHECKING:
    import torch


def derive_seed(*seeds: int) -> int:
    """Combine several seeds, whose order matters, into a single seed of 64 bits.

    Args:
        seeds: Integers of at least 0, such as a seed and the number of a step.
    """
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])


def shuffle_range(count: int, seed: int) -> Int64:
    """Return the integers [count] from 0 to `count - 1` in random order.

    The same seed gives the same order in all versions of NumPy.
    """
    # `RandomState` is frozen, but `Generator` may change between versions of NumPy
    order = np.arange(count)
    np.random.RandomState(seed).shuffle(order)
    return order


def seed_torch(seed: int, device: "torch.device") -> None:
    """Seed torch's default random generators of the CPU and of a device.

    `torch.manual_seed` would take 0.2 ms in each training step, because it records the
    call stack for each kind of device that the machine lacks.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def draw_convex_weights(
    is_available: "torch.Tensor", alpha: float, generator: "torch.Generator"
) -> "torch.Tensor":
    """Draw weights for an average of K inputs from a symmetric Dirichlet distribution.

    Args:
        is_available: Boolean tensor [..., K], with at least one True in the last axis.
        alpha: Concentration above 0. Near 0, one input has almost all weight. With a
            large value, the weights are almost equal.
        generator: Random generator on the device of `is_available`.

    Returns:
        Weights [..., K] that sum to 1 over the last axis, and 0 for unavailable inputs.
    """
    import torch

    # A Dirichlet sample consists of Gamma(alpha) samples, divided by their sum. For a
    # small alpha they underflow to 0, so their logarithms are drawn. Gamma(alpha) has
    # the distribution of Gamma(alpha + 1) * U^(1 / alpha), with U uniform on (0, 1).
    # The value -log(U) has an exponential distribution.
    concentration = torch.full(
        is_available.shape, alpha + 1, device=is_available.device
    )
    # the classes of torch.distributions do not accept a generator
    gamma = torch._standard_gamma(concentration, generator=generator)
    exponential = torch.empty_like(gamma).exponential_(generator=generator)
    log_gamma = gamma.log() - exponential / alpha
    return log_gamma.masked_fill(~is_available, -torch.inf).softmax(-1)
