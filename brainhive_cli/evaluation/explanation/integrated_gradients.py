"""Integrated gradients: what each number of an input adds to an output, on the way from a baseline."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError

POINTS = 50
"""Points of the quadrature: captum's default."""


def mean_gradient(
    function: Callable[[Tensor], Tensor], signal: Tensor, baseline: Tensor, points: int = POINTS
) -> Tensor:
    """Average the gradient on the straight way from a baseline, by Gauss-Legendre quadrature.

    Times (signal - baseline) it is the integrated gradient, and sums to the difference of the outputs.

    Args:
        function: Signals [B, C, T] to one number each, [B].
        signal: [B, C, T].
        baseline: [B, C, T].
        points: Of the quadrature.

    Returns:
        [B, C, T].

    Raises:
        BrainhiveError: if the outputs do not depend on the signals in a way that has a gradient.

    Source: Sundararajan, Taly and Yan 2017; the quadrature is captum's default.
    """
    at, weights = np.polynomial.legendre.leggauss(points)
    total = torch.zeros_like(signal)
    for place, weight in zip((1 + at) / 2, weights / 2, strict=True):
        way = (baseline + float(place) * (signal - baseline)).requires_grad_()
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # of LSTMs it has none here
            values = function(way)
            if not values.requires_grad:
                raise BrainhiveError("the brain encoder has no gradient", "its other analyses need none")
            (gradient,) = torch.autograd.grad(values.sum(), way)
        total += float(weight) * gradient
    return total
