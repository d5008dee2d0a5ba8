"""Ranks among a gallery: right order, ties against the model, honest chance."""

import numpy as np
import pytest
import torch

from brainhive_cli.errors import BrainhiveError
from brainhive_cli.metrics import _rivals
from brainhive_cli.metrics.retrieval import chance_of_ranks, ranks, summarise


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(40, 16, generator=torch.Generator().manual_seed(0))


def test_ranks_equal_a_sort_of_the_cosines(tokens):
    noisy = tokens + 2 * torch.randn(40, 16, generator=torch.Generator().manual_seed(1))

    found = ranks(noisy * 7, tokens, torch.arange(40))

    cosine = torch.nn.functional.cosine_similarity(noisy[:, None], tokens[None], dim=-1)
    order = cosine.argsort(1, descending=True)
    expected = (order == torch.arange(40)[:, None]).int().argmax(1) + 1
    assert torch.equal(found, expected)
    assert found.max() > 5  # a sort of perfect tokens would prove little


def test_the_target_says_where_in_the_gallery_the_image_is(tokens):
    gallery = tokens.flip(0)

    assert (ranks(tokens[:3], gallery, torch.tensor([39, 38, 37])) == 1).all()
    assert not (ranks(tokens[:3], gallery, torch.tensor([0, 1, 2])) == 1).all()


@pytest.mark.parametrize("constant", ["signal", "gallery", "both", "zero"])
def test_a_constant_embedding_scores_no_better_than_chance(tokens, constant):
    ones = torch.full_like(tokens, 0.1)
    signal = {"gallery": tokens, "zero": torch.zeros_like(tokens)}.get(constant, ones)
    gallery = tokens if constant in ("signal", "zero") else ones

    found = ranks(signal, gallery, torch.arange(40))

    assert (found == 1).double().mean() <= 1 / 40
    if constant != "signal":
        assert (found == 40).all()  # every candidate ties


def test_blocks_do_not_change_the_ranks(tokens, monkeypatch):
    noisy = tokens + torch.randn(40, 16, generator=torch.Generator().manual_seed(1))
    whole = ranks(noisy, tokens, torch.arange(40))
    monkeypatch.setattr(_rivals, "CANDIDATES", 7)
    monkeypatch.setattr(_rivals, "BLOCK", 21)

    assert torch.equal(ranks(noisy, tokens, torch.arange(40)), whole)


def test_of_several_gallery_items_that_show_the_image_the_best_counts():
    gallery = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.0, 1.0]])
    signal = torch.tensor([[1.0, 0.0]])

    assert ranks(signal, gallery, torch.tensor([[1, 2]])).item() == 2
    assert ranks(signal, gallery, torch.tensor([[2]])).item() == 3
    assert ranks(signal, gallery, torch.tensor([[3, 0]])).item() == 1


def test_a_summary_counts_and_says_chance():
    """Ranks 1, 2, 4, 10 among 10, by hand."""
    summary = {m.name: m for m in summarise([torch.tensor([1, 2, 4, 10])], pool=10, split="test")}

    values = {name: m.value for name, m in summary.items()}
    assert values == pytest.approx(
        {"top1": 0.25, "top3": 0.5, "top5": 0.75, "mean_rank": 4.25, "median_rank": 3, "mrr": 0.4625}
    )
    chances = {name: m.chance for name, m in summary.items()}
    mrr = sum(1 / r for r in range(1, 11)) / 10
    assert chances == pytest.approx(
        {"top1": 0.1, "top3": 0.3, "top5": 0.5, "mean_rank": 5.5, "median_rank": 5, "mrr": mrr}
    )
    assert all(m.low <= m.value <= m.high and (m.n, m.pool) == (4, 10) for m in summary.values())


@pytest.mark.parametrize("targets", [1, 3])
def test_chance_is_what_random_tokens_score(targets):
    draw = torch.Generator().manual_seed(0)
    signal, gallery = torch.randn(4000, 8, generator=draw), torch.randn(12, 8, generator=draw)
    seen = torch.rand(4000, 12, generator=draw).argsort(1)[:, :targets]

    found = ranks(signal, gallery, seen)

    scored = np.bincount(found.numpy(), minlength=12)[1 : 14 - targets] / 4000
    assert np.abs(scored - chance_of_ranks(12, targets)).max() < 0.03  # four standard errors
    assert chance_of_ranks(12, targets).sum() == pytest.approx(1)


def test_tokens_that_are_not_finite_are_counted_and_refused(tokens):
    spoilt = tokens.clone()
    spoilt[3, 2], spoilt[5, 0] = float("nan"), float("inf")

    with pytest.raises(BrainhiveError, match="2 of 40 signal tokens are not finite"):
        ranks(spoilt, tokens, torch.arange(40))
    with pytest.raises(BrainhiveError, match="2 of 40 gallery are not finite"):
        ranks(tokens, spoilt, torch.arange(40))


def test_sizes_that_do_not_fit_are_refused(tokens):
    with pytest.raises(BrainhiveError, match="cannot be compared"):
        ranks(tokens[:, :8], tokens, torch.arange(40))
    with pytest.raises(BrainhiveError, match="targets from 0 to 39, got 40 from 1 to 40"):
        ranks(tokens, tokens, torch.arange(1, 41))
    with pytest.raises(BrainhiveError, match="40 signals need as many targets"):
        ranks(tokens, tokens, torch.arange(39))
