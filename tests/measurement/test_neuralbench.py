"""NeuralBench's scores, loss and ranks are the values of its own code."""

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.measurement import neuralbench
from brainhive_cli.models.losses import ClipConfig, LossContext

FIRST = 8
"""Number of trials in the batch whose loss was recorded."""


def test_scores_and_loss_are_neuralbench_s(golden):
    """The golden values come from facebookresearch/neuroai@af8ce00 as published."""
    recorded = load_file(golden / "methods/neuralbench_scores.safetensors")
    gallery = recorded["expected.gallery"]
    row_of = {
        int(name): row for row, name in enumerate(recorded["expected.gallery_picture"])
    }
    picture = torch.tensor([row_of[int(name)] for name in recorded["picture"]])
    predicted = recorded["predicted"]

    scores = neuralbench.score(gallery, predicted, picture, recorded["subject"])
    for ending in ("", "_subject-agg", "_instance-agg"):
        for name in ("top1_acc", "top5_acc"):
            expected = recorded[f"expected.{name}{ending}"].item()
            assert scores[f"test/full_retrieval/{name}{ending}"] == pytest.approx(
                expected
            )
        ranks = recorded[f"expected.ranks{ending}"]
        auc = 1 - ranks.mean().item() / (len(gallery) - 1)
        name = f"test/full_retrieval/inv_norm_rank_mean{ending}"
        assert scores[name] == pytest.approx(auc)
    ranks = neuralbench.rank(predicted, gallery, picture)
    assert torch.equal(ranks, recorded["expected.ranks"])

    # the loss of the recipe
    settings = {"directions": "to_target", "normalise_signal": False}
    settings |= {"initial_logit_scale": 0.0, "learn_scale": False}
    batch = predicted[:FIRST].clone().requires_grad_()
    context = LossContext(stimuli=torch.arange(FIRST))
    loss = ClipConfig(**settings).build()(batch, recorded["true"][:FIRST], context)
    loss.backward()
    torch.testing.assert_close(loss, recorded["expected.loss_of_first_8"])
    torch.testing.assert_close(batch.grad, recorded["expected.grad_of_first_8"])


def test_trials_of_a_batch_find_their_targets_as_neuralbench_s(golden):
    recorded = load_file(golden / "methods/neuralbench_scores.safetensors")
    predicted, targets = recorded["predicted"][:FIRST], recorded["true"][:FIRST]

    ranks = neuralbench.rank(predicted, targets, torch.arange(FIRST))

    top5 = (ranks < 5).float().mean()
    assert top5 == recorded[f"expected.batch_top5_acc_of_first_{FIRST}"]


def test_candidates_that_tie_count_half():
    ranks = neuralbench.rank(torch.ones(1, 2), torch.ones(4, 2), torch.tensor([2]))
    assert ranks.tolist() == [1.5]
