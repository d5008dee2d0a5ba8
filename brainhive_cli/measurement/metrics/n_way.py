"""N-way classification: how often the stimulus's class wins in a reconstruction, expected over all draws."""

import torch
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError

LABELS = 3
"""Classes of the stimulus that count as right in the field's definition (NEURONS, NeuroClips, MinD-Video)."""


def n_way(seen: Tensor, made: Tensor, own: Tensor, *, ways: int, labels: int) -> Tensor:
    """Score reconstructions by a classifier: the expected share of trials in which a right class wins.

    A trial draws `ways` - 1 other classes. It is a hit if any right class, of the `labels` that the
    classifier finds likeliest in the stimulus, scores above all of them in the reconstruction; ties are
    misses. Of the m other classes below the best right one, C(m, ways - 1) of all draws hit, so nothing
    has to be drawn.

    Args:
        seen: A classifier's logits of the N stimuli, [N, K].
        made: The same of reconstructions, [B, K].
        own: The row of each one's stimulus, [B].
        ways: Classes of a trial, where one is right.
        labels: Right classes of a stimulus: 3 in the field's definition, 1 in the strict one.

    Returns:
        [B], float64. Chance is labels / (labels + ways - 1).

    Raises:
        BrainhiveError: if the classifier has too few classes.

    Source: MinD-Video (arXiv 2305.11675), its evaluation code, which NEURONS and NeuroClips use; it draws 100
    trials.
    """
    right = seen[own].topk(min(labels, seen.shape[1]), dim=1).indices
    return expected_hits(made, right, ways)


def expected_hits(scores: Tensor, right: Tensor, ways: int) -> Tensor:
    """Share of all draws of `ways` - 1 other classes that the best right class beats.

    Args:
        scores: [B, K].
        right: Right classes, [B, L].
        ways: Classes of a trial, where one is right.

    Returns:
        [B], float64.

    Raises:
        BrainhiveError: if there are fewer other classes than are drawn.
    """
    others = scores.shape[1] - right.shape[1]
    if others < ways - 1:
        raise BrainhiveError(
            f"a classifier of {scores.shape[1]} classes has no {ways}-way trials", "use one of more classes"
        )
    best = scores.gather(1, right).amax(1, keepdim=True)
    below = (scores < best).scatter(1, right, False).sum(1).double()  # m
    drawn = torch.arange(ways - 1, dtype=torch.float64, device=scores.device)
    return ((below[:, None] - drawn).clamp(min=0) / (others - drawn)).prod(1).cpu()


def over_frames(seen: Tensor, made: Tensor, own: Tensor, *, ways: int, labels: int) -> Tensor:
    """Score clips by a classifier of pictures, [N, F, K] and [B, F, K], frame by frame; the mean, [B]."""
    frames = made.shape[1]
    own_frames = (own[:, None] * frames + torch.arange(frames)).flatten()
    found = n_way(seen.flatten(0, 1), made.flatten(0, 1), own_frames, ways=ways, labels=labels)
    return found.unflatten(0, (-1, frames)).mean(1)


def chance(ways: int, labels: int) -> float:
    """Value expected of random scores: the best of all labels + ways - 1 classes is a right one."""
    return labels / (labels + ways - 1)
