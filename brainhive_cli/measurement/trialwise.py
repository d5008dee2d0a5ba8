"""Check of whether a model's prediction for a trial depends on the trials that are predicted with it."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

TRIALS = 32
"""Trials, at most, that are compared, evenly spaced: a dependence through the batch concerns all of them."""
TOLERANCE = 1e-5
"""Cosine distance up to which two tokens are one. It is half the squared relative difference: of the same
sums in another order about 1e-12 in float32 and 1e-6 in TF32, which convolutions on a GPU use."""


def depends_on_other_trials(encode: Callable[[Tensor], Tensor], signals: Tensor) -> bool:
    """Whether trials get other tokens together than one at a time, so that a test would be transductive.

    Args:
        encode: Model, from signals [n, ...] to tokens [n, D].
        signals: [N, ...]; of more than `TRIALS`, as many evenly spaced ones are compared.

    Returns:
        Whether one of them differs by more than rounding, or has no token without the others.

    Source: MOABB 1.7.2, `CrossSubjectMode.TRAIN_TRIALWISE`, which scores one trial at a time.
    """
    rows = np.unique(np.linspace(0, len(signals) - 1, TRIALS).round().astype(np.int64))
    chosen = signals[torch.from_numpy(rows)]
    together = normalize(encode(chosen).double())
    # a trial stands beside itself, since statistics of a batch need two
    alone = torch.cat([encode(torch.stack([signal, signal]))[:1] for signal in chosen])
    distance = (together - normalize(alone.double())).square().sum(1) / 2  # NaN of no token
    return not bool((distance <= TOLERANCE).all())
