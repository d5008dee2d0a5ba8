"""Random numbers that depend only on a seed."""

from typing import TYPE_CHECKING

import numpy as np

from brainhive_cli.core.arrays import Int64

if TYPE_CHECKING:
    import torch


def derive_seed(*seeds: int) -> int:
    """Derive a seed of 64 bits that depends on all given seeds."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])


def shuffle_range(count: int, seed: int) -> Int64:
    """Return the numbers 0 to count - 1 in random order.

    The order is the same in all versions of NumPy.
    """
    # `RandomState` is frozen, but `Generator` may change between versions of NumPy
    order = np.arange(count)
    np.random.RandomState(seed).shuffle(order)
    return order


def seed_torch(seed: int, device: "torch.device") -> None:
    """Seed torch's random generators of the CPU and of a device.

    This replaces `torch.manual_seed`, which takes 0.2 ms: it records the call stack for
    each kind of device that the machine lacks.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def draw_convex_weights(
    is_available: "torch.Tensor", alpha: float, generator: "torch.Generator"
) -> "torch.Tensor":
    """Draw weights from a symmetric Dirichlet distribution over the available inputs.

    Args:
        is_available: Mask [..., K] of the available inputs. At least one input of each
            row must be available.
        alpha: Concentration, above 0. With 1, all combinations of weights are equally
            likely. Near 0, a single input gets almost all weight. With a large value,
            the weights are almost equal.
        generator: Random generator on the device of `is_available`.

    Returns:
        Weights [..., K] with the sum 1. Missing inputs have the weight 0.
    """
    import torch

    # A Dirichlet sample is a normalised Gamma(alpha) sample, which underflows if alpha
    # is small. The logarithm does not. Gamma(alpha) is distributed like Gamma(alpha +
    # 1) times U^(1 / alpha), and -log U is exponential
    concentration = torch.full(
        is_available.shape, alpha + 1, device=is_available.device
    )
    # the classes of torch.distributions do not accept a generator
    gamma = torch._standard_gamma(concentration, generator=generator)
    exponential = torch.empty_like(gamma).exponential_(generator=generator)
    log_gamma = gamma.log() - exponential / alpha
    return log_gamma.masked_fill(~is_available, -torch.inf).softmax(-1)
