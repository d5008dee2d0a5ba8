"""Mixtures of trials: what is mixed with what, and with which shares."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixing:
    """Each trial of a batch mixed with a partner from the same batch (mixup, arXiv 1710.09412).

    Attributes:
        partner: [B] int64, the row each trial is mixed with.
        share: [B] in [0, 1], how much of the mixture is the trial itself.
    """

    partner: Tensor
    share: Tensor

    @classmethod
    def draw(cls, count: int, alpha: float, generator: torch.Generator, mixed: float = 1.0) -> "Mixing":
        """Draw partners as a permutation of `count` trials, and shares from Beta(alpha, alpha).

        A share `mixed` of the trials is mixed, each by chance; the others stay as they are. Everything lies
        on the generator's device.
        """
        partner = torch.randperm(count, generator=generator, device=generator.device)
        both = torch.ones(count, 2, dtype=torch.bool, device=generator.device)
        share = convex_weights(both, alpha, generator)[:, 0]
        if mixed < 1:
            drawn = torch.rand(count, generator=generator, device=generator.device)
            share = share.masked_fill(drawn >= mixed, 1.0)
        return cls(partner, share)

    def of_places(self, places: int) -> "Mixing":
        """Give the mixing of [B · places], where each trial has several places that are mixed as it is."""
        place = torch.arange(places, device=self.partner.device)
        return Mixing(
            (self.partner[:, None] * places + place).flatten(), self.share.repeat_interleave(places)
        )

    def mix(self, values: Tensor) -> Tensor:
        """Mix [B, ...]: share · values + (1 - share) · values[partner]."""
        share = self.share.to(values.dtype).view(-1, *[1] * (values.ndim - 1))
        return torch.lerp(values[self.partner], values, share)


def convex_weights(is_there: Tensor, alpha: float, generator: torch.Generator) -> Tensor:
    """Draw weights from a symmetric Dirichlet distribution over what is there.

    Args:
        is_there: [..., K]; at least one of each K.
        alpha: Above 0. At 1 all weights are equally likely; near 0 one has them all, at large values all are
            equal.
        generator: Of the device of `is_there`.

    Returns:
        [..., K], zero where nothing is, with the sum 1.
    """
    # Gamma(alpha) is Gamma(alpha + 1) · U^(1 / alpha): as logarithms, small alpha does not underflow
    like = torch.full(is_there.shape, alpha + 1, device=is_there.device)
    gamma = torch._standard_gamma(like, generator=generator)  # torch.distributions takes no generator
    logarithm = gamma.log() - torch.empty_like(gamma).exponential_(generator=generator) / alpha
    return logarithm.masked_fill(~is_there, -torch.inf).softmax(-1)
