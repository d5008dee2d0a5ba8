"""Scores of NeuralBench's retrieval tasks, in its own protocol and under its own
names.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

AUC, TOP = "inv_norm_rank_mean", (1, 5)
"""Its name of the retrieval AUC, and the k of top-k."""
BEGINNING = "test/full_retrieval/"


def score(
    predicted: Tensor, targets: Tensor, picture: Tensor, subject: Tensor
) -> dict[str, float]:
    """Measure single trials, and predictions that are averaged before they are ranked.

    Similarity is the product of a prediction as it is and a target of unit length; a
    rank counts from 0, and half of the candidates that tie.

    Args:
        predicted: [N, D] one a trial.
        targets: [M, D] one a picture.
        picture: [N] row of each trial's picture.
        subject: [N].

    Returns:
        Retrieval AUC (1 less rank / (M - 1), chance .5) and top-k, by NeuralBench's
        names: of single trials, `_subject-agg` (mean over the trials of a subject and
        picture), and `_instance-agg` (over those of all subjects).

    Source: facebookresearch/neuroai (MIT), neuralbench 0.4.0.
    """
    groups: Mapping[str, Tensor] = {
        "": torch.arange(len(predicted)),
        "_subject-agg": subject * len(targets) + picture,
        "_instance-agg": picture,
    }
    scores = {}
    for ending, group in groups.items():
        # the mean of a group, and what all its trials show
        _, member, counts = group.unique(return_inverse=True, return_counts=True)
        sums = predicted.new_zeros(len(counts), predicted.shape[1])
        means = sums.index_add(0, member, predicted) / counts[:, None]
        shown = picture.new_zeros(len(counts)).scatter(0, member, picture)
        ranks = torch.cat(
            [
                rank(part, targets, rows)
                for part, rows in zip(means.split(4096), shown.split(4096), strict=True)
            ]
        )
        auc = 1 - ranks / (len(targets) - 1)
        scores[f"{BEGINNING}{AUC}{ending}"] = auc.mean().item()
        for k in TOP:
            share = (ranks < k).float().mean().item()
            scores[f"{BEGINNING}top{k}_acc{ending}"] = share
    return scores


def rank(predicted: Tensor, targets: Tensor, shown: Tensor) -> Tensor:
    """Rank what each prediction shows, from 0; candidates that tie count half: [N]."""
    similarity = predicted.float() @ F.normalize(targets.float(), dim=-1).T  # [N, M]
    own = similarity.gather(1, shown[:, None])
    return ((similarity > own).sum(1) + (similarity >= own).sum(1) - 1) / 2
