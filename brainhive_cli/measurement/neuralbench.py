"""Scores of NeuralBench's retrieval tasks, by its protocol and under its names."""

import torch
import torch.nn.functional as F
from torch import Tensor


def score(
    targets: Tensor, predictions: Tensor, picture_rows: Tensor, subjects: Tensor
) -> dict[str, float]:
    """Score single trials, and predictions averaged over trials.

    Args:
        targets: Embeddings [M, D] of the pictures.
        predictions: Predicted embeddings [N, D] of the trials.
        picture_rows: Row [N] in `targets` of the picture of each trial.
        subjects: Number [N] of the subject of each trial, from 0.

    Returns:
        Scores, keyed by `test/full_retrieval/`, score and ending. The scores are:

        - `inv_norm_rank_mean`: mean of 1 - rank / (M - 1), with chance 0.5.
        - `top1_acc` and `top5_acc`: shares of trials with a rank below 1 or 5.

        The endings are:

        - no ending: single trials are scored.
        - `_subject-agg`: trials of the same subject and picture are averaged.
        - `_instance-agg`: trials of the same picture are averaged over subjects.

    Source: facebookresearch/neuroai (MIT), neuralbench 0.4.0.
    """
    # number of the group in which each trial is averaged, keyed by ending
    groups = {
        "": torch.arange(len(predictions)),
        "_subject-agg": subjects * len(targets) + picture_rows,
        "_instance-agg": picture_rows,
    }
    scores = {}
    for ending, group_of_trial in groups.items():
        # sum the predictions of each group, which gives the ranks of the means
        _, groups_from_0 = group_of_trial.unique(return_inverse=True)
        n_groups = int(groups_from_0.max()) + 1
        sums = predictions.new_zeros(n_groups, predictions.shape[1])
        sums = sums.index_add(0, groups_from_0, predictions)
        rows = picture_rows.new_zeros(n_groups)
        rows = rows.scatter(0, groups_from_0, picture_rows)

        ranks = rank(sums, targets, rows)
        values_by_name = {
            "inv_norm_rank_mean": 1 - ranks / (len(targets) - 1),
            "top1_acc": ranks < 1,
            "top5_acc": ranks < 5,
        }
        for name, values in values_by_name.items():
            # Beginning of the names of NeuralBench's retrieval scores.
            key = f"test/full_retrieval/{name}{ending}"
            scores[key] = values.float().mean().item()
    return scores


def rank(predictions: Tensor, targets: Tensor, picture_rows: Tensor) -> Tensor:
    """Rank all pictures by similarity to each prediction, and find the right picture.

    Similarity is the dot product of the prediction and the unit vector of the picture.

    Args:
        predictions: Embeddings [N, D] that a model predicted from brain signals.
        targets: Embeddings [M, D] of the pictures.
        picture_rows: Row [N] in `targets` of the right picture of each prediction.

    Returns:
        Rank [N], from 0: the number of pictures with a larger similarity, plus half the
        number of other pictures with an equal similarity.
    """
    similarities = predictions @ F.normalize(targets, dim=-1).T  # [N, M]
    target_values = similarities.gather(1, picture_rows[:, None])
    n_above = (similarities > target_values).sum(1)

    # subtract the right picture, and count a tie as half a rank
    n_above_or_tied = (similarities >= target_values).sum(1)
    return (n_above + n_above_or_tied - 1) / 2
