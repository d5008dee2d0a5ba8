"""Ranks among a gallery: right order, ties against the model, honest chance."""

import re
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.measurement import ranks as ranks_module
from brainhive_cli.measurement.ranks import (
    chance_of_precision,
    chance_of_ranks,
    expected_subset_hits,
    find_nearest,
    normalise_tokens,
    rank_first_pictures,
    rank_targets,
    rank_with_precision,
    summarise_ranks,
)


@pytest.fixture
def tokens():
    return torch.randn(40, 16, generator=torch.Generator().manual_seed(0))


def test_a_constant_embedding_scores_no_better_than_chance(tokens):
    constant_tokens = torch.full_like(tokens, 0.1)
    assert (
        rank_targets(constant_tokens, tokens, torch.arange(40)) == 1
    ).double().mean() <= 1 / 40
    for signal, gallery in (
        (tokens, constant_tokens),
        (constant_tokens, constant_tokens),
        (torch.zeros_like(tokens), tokens),
    ):
        # every candidate ties
        assert (rank_targets(signal, gallery, torch.arange(40)) == 40).all()


def test_similarities_and_tokens_give_the_same_ranks_with_ties(tokens):
    noisy = tokens[:30] + 2 * tokens[10:]
    similarity = torch.nn.functional.cosine_similarity(
        noisy[:, None].double(), tokens[None].double(), dim=-1
    )
    for target in (torch.arange(30), torch.tensor([[3, 4], [5, -1]]).repeat(15, 1)):
        expected = rank_targets(noisy, tokens, target)
        assert torch.equal(rank_targets(similarity, None, target), expected)

    # by hand: three candidates tie with the right one, one exceeds it
    row = torch.tensor([[0.5, 0.9, 0.5, 0.1, 0.5, 0.5]])
    target = torch.tensor([2])
    assert rank_targets(row, None, target).item() == 5
    assert rank_targets(row, None, target, tie=-1e-12).item() == 2


def in_float64(signal, gallery, target):
    """Rank by a product of unit tokens in float64; ties, within its rounding, rank
    against the model.
    """
    unit = torch.nn.functional.normalize
    cosine = unit(signal.double(), dim=1) @ unit(gallery.double(), dim=1).T
    return (cosine >= cosine.gather(1, target[:, None]) - 1e-12).sum(1)


def hard(kind):
    """Tokens of 512 dimensions that float32 alone ranks wrongly, or nearly: signals,
    gallery, targets.
    """
    draw = torch.Generator().manual_seed(3)
    signal, gallery = (
        torch.randn(30, 512, generator=draw),
        torch.randn(900, 512, generator=draw),
    )
    target = torch.randperm(900, generator=draw)[:30]
    if kind == "duplicates":
        gallery[450:] = gallery[torch.randperm(450, generator=draw)]
    elif kind == "close":  # cosines that differ by less than float32 can tell
        gallery = gallery[:1] + 3e-7 * gallery
    elif kind == "constant":
        gallery = torch.full_like(gallery, 0.1)
    elif kind == "bf16":  # few values, so that many tokens and cosines are equal
        signal, gallery = (
            tokens[:, :4].bfloat16().float().round() for tokens in (signal, gallery)
        )
    return signal, gallery, target


@pytest.mark.parametrize("kind", ["duplicates", "close", "constant", "bf16"])
def test_ranks_are_those_of_float64_however_the_gallery_is_cut(kind, monkeypatch):
    signal, gallery, target = hard(kind)
    for candidates in (64, 4096):
        monkeypatch.setattr(ranks_module, "MAX_SIMILARITIES", 512 * candidates)
        assert torch.equal(
            rank_targets(signal, gallery, target), in_float64(signal, gallery, target)
        )


def test_a_summary_counts_and_says_chance():
    """Ranks 1, 2, 4, 10 among 10, by hand, each twice."""
    summary = {
        m.name: m
        for m in summarise_ranks(
            [torch.tensor([1, 2, 4, 10] * 2)], pool=10, split="test"
        )
    }

    values = {name: m.value for name, m in summary.items()}
    # without noise of its sum
    assert str(summarise_ranks([torch.ones(3)], 100, split="test")[0].chance) == "0.01"
    assert values == pytest.approx(
        {
            "top1": 0.25,
            "top3": 0.5,
            "top5": 0.75,
            "mean_rank": 4.25,
            "median_rank": 3,
            "mrr": 0.4625,
            "rank_auc": 1 - 3.25 / 9,  # of the mean rank
        }
    )
    chances = {name: m.chance for name, m in summary.items()}
    mrr = sum(1 / r for r in range(1, 11)) / 10
    assert chances == pytest.approx(
        {
            "top1": 0.1,
            "top3": 0.3,
            "top5": 0.5,
            "mean_rank": 5.5,
            "median_rank": 5,
            "mrr": mrr,
            "rank_auc": 0.5,
        }
    )
    assert all((m.n, m.pool) == (8, 10) for m in summary.values())
    median = summary.pop("median_rank")
    assert (median.low, median.interval) == (None, "none: of a median")
    assert all(m.low <= m.value <= m.high for m in summary.values())


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 999), st.integers(1, 4), st.integers(5, 12))
def test_rank_auc_is_the_share_of_wrong_pictures_below(seed, targets, pool):
    random = np.random.default_rng(seed)
    similarities = random.normal(size=(20, pool))
    right_pictures = random.permuted(np.tile(np.arange(pool), (20, 1)), axis=1)[
        :, :targets
    ]
    shares = []
    for row, columns in zip(similarities, right_pictures, strict=True):
        wrong_similarities = np.delete(row, columns)
        shares.append((wrong_similarities < row[columns].max()).mean())
    ranked = rank_targets(
        torch.from_numpy(similarities), None, torch.from_numpy(right_pictures)
    )

    metric_names = ("rank_auc", "mean_rank")
    rank_auc, mean = summarise_ranks(
        [ranked], pool, split="test", targets=targets, metric_names=metric_names
    )

    assert rank_auc.value == pytest.approx(np.mean(shares))
    guesses = [
        min(rank_combination)
        for rank_combination in combinations(range(1, pool + 1), targets)
    ]
    assert mean.chance == pytest.approx(np.mean(guesses))
    wrong_below = 1 - (np.array(guesses) - 1) / (pool - targets)
    assert rank_auc.chance == pytest.approx(wrong_below.mean())


def test_the_median_is_taken_over_items_after_averaging_seeds():
    """Two subjects of three items, two seeds each: means 3, 5, 9 and 2, 2, 8."""
    subjects = [[[1, 9, 8], [5, 1, 10]], [[2, 1, 8], [2, 3, 8]]]
    medians = summarise_ranks(
        subjects, 10, split="test", seeds=[1, 2], metric_names=["median_rank"]
    )

    assert [metric.value for metric in medians] == [(5 + 2) / 2]


@pytest.mark.parametrize(("pool", "median"), [(2, 1), (3, 2), (10, 5), (11, 6)])
def test_the_median_of_guesses_is_the_lowest_with_half_of_them(pool, median):
    (median_rank,) = summarise_ranks(
        [[1, 2]], pool, split="test", metric_names=["median_rank"]
    )

    assert median_rank.chance == median


@pytest.mark.parametrize("pool", [1, 2, 5])
def test_chance_of_precision_is_its_mean_over_all_orders(pool):
    relevant = np.arange(1, pool + 1)

    chances = chance_of_precision(pool, relevant)

    for count, chance in zip(relevant, chances, strict=True):
        orders = [
            average_precision_score(order, -np.arange(pool))
            for order in permutations([1] * count + [0] * (pool - count))
        ]
        assert chance == pytest.approx(np.mean(orders))


def test_chance_is_what_random_tokens_score():
    draw, targets = torch.Generator().manual_seed(0), 3
    signal, gallery = (
        torch.randn(4000, 8, generator=draw),
        torch.randn(12, 8, generator=draw),
    )
    targets_of_signals = torch.rand(4000, 12, generator=draw).argsort(1)[:, :targets]

    ranks = rank_targets(signal, gallery, targets_of_signals)

    scored = np.bincount(ranks.numpy(), minlength=12)[1 : 14 - targets] / 4000
    # four standard errors
    assert np.abs(scored - chance_of_ranks(12, targets)).max() < 0.03
    assert chance_of_ranks(12, targets).sum() == pytest.approx(1)


def test_tokens_that_are_not_finite_are_counted_and_refused(tokens):
    spoilt = tokens.clone()
    spoilt[3, 2], spoilt[5, 0] = float("nan"), float("inf")

    with pytest.raises(BrainhiveError) as caught:
        rank_targets(spoilt, tokens, torch.arange(40))
    assert "2 of 40" in str(caught.value)
    with pytest.raises(BrainhiveError) as caught:
        rank_targets(tokens, spoilt, torch.arange(40))
    assert "2 of 40" in str(caught.value)


def test_average_precision_averages_over_relevant_candidates():
    """By hand: relevant at ranks 1, 3, 6, 9 and 10 of 10."""
    angle = torch.linspace(0, 1, 10)
    # ever less like the signal
    gallery = torch.stack([angle.cos(), angle.sin()], dim=1)
    relevant = torch.tensor([[9, 5, 0, 8, 2], [0, -1, -1, -1, -1], [1, 3, -1, -1, -1]])

    ranked, precision = rank_with_precision(
        gallery[:1].expand(3, 2), gallery, relevant[:, 0], relevant
    )

    by_hand = [(1 + 2 / 3 + 3 / 6 + 4 / 9 + 5 / 10) / 5, 1.0, (1 / 2 + 2 / 4) / 2]
    assert precision.tolist() == pytest.approx(by_hand)
    assert ranked.tolist() == [10, 1, 2]


def test_random_subsets_approach_the_exact_expectation(tokens):
    noisy = tokens + 1.5 * torch.randn(
        40, 16, generator=torch.Generator().manual_seed(1)
    )

    expected = expected_subset_hits(noisy, tokens, subset_size=20)

    random, is_first = np.random.default_rng(0), np.full((2, 1500, 40), np.nan)
    for draw in range(1500):
        subset = random.permutation(40)[:20]
        for direction, pair in enumerate(((noisy, tokens), (tokens, noisy))):
            ranked = in_float64(pair[0][subset], pair[1][subset], torch.arange(20))
            is_first[direction, draw, subset] = ranked == 1
    hits_among_all = expected_subset_hits(noisy, tokens, subset_size=40)
    for exact, drawn_share, of_all in zip(
        expected, np.nanmean(is_first, 1), hits_among_all, strict=True
    ):
        # fewer items: more are found
        assert 0.2 < exact.mean() < 0.95
        assert exact.mean() > of_all.mean()
        # four errors of an item's 750 draws
        assert np.abs(exact - drawn_share).max() < 4 * np.sqrt(0.25 / 700)
        assert set(of_all.tolist()) == {0.0, 1.0}  # all items are the only subset
    assert (expected_subset_hits(noisy, tokens, subset_size=1)[0] == 1).all()


def test_directions_are_named_by_who_seeks_as_mindeyes_are_not(golden):
    """Golden values: MindEye1's retrieval, whose forward has images as rows."""
    values = load_file(golden / "havir" / "losses.safetensors")
    brain, image = values["in.preds_far"], values["in.targs"]
    rows = torch.arange(len(brain))

    signal_seeks, image_seeks = (
        float((ranks == 1).double().mean())
        for ranks in (
            rank_targets(brain, image, rows),
            rank_targets(image, brain, rows),
        )
    )

    assert image_seeks == pytest.approx(float(values["out.top1_fwd"]))
    assert signal_seeks == pytest.approx(float(values["out.top1_bwd"]))
    assert expected_subset_hits(brain, image, len(brain))[1].mean() == pytest.approx(
        image_seeks
    )


@pytest.mark.parametrize(
    ("file", "signals", "images", "pattern"),
    [
        ("neurons", "input.preds", "input.targets", r"expected\.retrieval_top(\d+)"),
        ("havir", "in.preds_far", "in.targs", r"out\.top(\d+)_fwd"),
    ],
    ids=["neurons", "mindeye1"],
)
def test_images_that_seek_their_signal_have_the_published_top_k(
    golden, file, signals, images, pattern
):
    """Golden values: the retrieval of NEURONS and of MindEye1, by the number of ranks
    that count.
    """
    values = load_file(golden / file / "losses.safetensors")
    matches = [re.fullmatch(pattern, name) for name in values]
    expected = {int(m[1]): values[m[0]].item() for m in matches if m}
    rows = torch.arange(len(values[signals]))

    image_seeks = rank_targets(values[images], values[signals], rows)

    top_k = {k: float((image_seeks <= k).double().mean()) for k in expected}
    assert expected
    assert top_k == pytest.approx(expected)


def test_a_perfect_decoder_has_an_interval_from_the_first_rank():
    """That of as many hits, on the scale from the first rank to the last."""
    metrics = {
        metric.name: metric
        for metric in summarise_ranks([torch.ones(200)] * 3, 200, split="test")
    }

    assert metrics["top1"].low == pytest.approx(0.981, abs=1e-3)
    assert metrics["mean_rank"].low == 1
    assert metrics["mean_rank"].high == pytest.approx(
        1 + 199 * (1 - metrics["top1"].low)
    )
    assert metrics["median_rank"].low is None
    assert "nothing varies" not in metrics["mean_rank"].interval


def test_all_pictures_are_ranked_as_each_is_alone(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    signals = torch.randn(20, 8, generator=draw)
    gallery = torch.randn(30, 8, generator=draw)
    gallery[3] = gallery[4]  # they tie
    monkeypatch.setattr(ranks_module, "CANDIDATES_PER_BLOCK", 7)

    ranks = rank_first_pictures(signals, gallery, 12)

    for picture in range(12):
        expected_ranks = rank_targets(signals, gallery, torch.full((20,), picture))
        assert np.array_equal(ranks[:, picture], expected_ranks.numpy())


def test_ties_for_the_nearest_do_not_depend_on_gallery_chunks(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    signals, gallery = (torch.randn(n, 6, generator=draw) for n in (9, 30))
    gallery[20:25] = gallery[5:10] / 4  # equal directions
    cosine = torch.cosine_similarity(signals[:, None], gallery[None], dim=2)
    expected = cosine.argmax(1)
    expected = torch.where(expected // 5 == 4, expected - 15, expected)
    signals = signals * torch.arange(1, 10)[:, None]

    for at_once in (2**22, 60):
        monkeypatch.setattr(ranks_module, "MAX_SIMILARITIES", at_once)
        assert torch.equal(find_nearest(signals, gallery), expected)
        assert torch.equal(find_nearest(signals, gallery.split(7)), expected)
    assert (find_nearest(signals, gallery[:1]) == 0).all()


def test_tokens_of_any_size_and_of_half_precision_have_length_1():
    tokens = torch.randn(5, 8)
    for scaled in (1e-13 * tokens, 1e4 * tokens, tokens.half(), tokens.bfloat16()):
        lengths = normalise_tokens(scaled).norm(dim=1)
        torch.testing.assert_close(lengths, torch.ones(5, dtype=torch.float64))
    assert not normalise_tokens(torch.zeros(2, 8)).any()
