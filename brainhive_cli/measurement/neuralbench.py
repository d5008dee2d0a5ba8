"""Scores of NeuralBench's retrieval tasks, in its own protocol and under its own
names.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BEGINNING = "test/full_retrieval/"


def score(
    targets: Tensor, predicted: Tensor, picture: Tensor, subject: Tensor
) -> dict[str, float]:
    """Measure single trials, and predictions that are averaged before they are ranked.

    Similarity is the product of a prediction as it is and a target of unit length; a
    rank counts from 0, and half of the candidates that tie.

    Args:
        targets: [M, D] one a picture.
        predicted: [N, D] one a trial.
        picture: [N] row of each trial's picture.
        subject: [N].

    Returns:
        Retrieval AUC (1 less rank / (M - 1), chance .5) and top-k, by NeuralBench's
        names: of single trials, `_subject-agg` (mean over the trials of a subject and
        picture), and `_instance-agg` (over those of all subjects).

    Source: facebookresearch/neuroai (MIT), neuralbench 0.4.0.
    """
    groups = {
        "": torch.arange(len(predicted)),
        "_subject-agg": subject * len(targets) + picture,
        "_instance-agg": picture,
    }
    scores = {}
    for ending, group in groups.items():
        # the sum ranks as the mean does
        _, member = group.unique(return_inverse=True)
        sums = predicted.new_zeros(int(member.max()) + 1, predicted.shape[1])
        shown = picture.new_zeros(len(sums)).scatter(0, member, picture)
        ranks = rank(sums.index_add(0, member, predicted), targets, shown)
        for name, values in (
            ("inv_norm_rank_mean", 1 - ranks / (len(targets) - 1)),
            ("top1_acc", ranks < 1),
            ("top5_acc", ranks < 5),
        ):
            scores[f"{BEGINNING}{name}{ending}"] = values.float().mean().item()
    return scores


def rank(predicted: Tensor, targets: Tensor, shown: Tensor) -> Tensor:
    """Rank what each prediction shows, from 0; candidates that tie count half: [N]."""
    similarity = predicted @ F.normalize(targets, dim=-1).T  # [N, M]
    own = similarity.gather(1, shown[:, None])
    return ((similarity > own).sum(1) + (similarity >= own).sum(1) - 1) / 2
