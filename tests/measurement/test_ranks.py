"""Ranks among a gallery: right order, ties against the model, honest chance."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.measurement import ranks as ranks_module
from brainhive_cli.measurement.ranks import (
    chance_of_precision,
    chance_of_ranks,
    nearest,
    ranks,
    ranks_and_precisions,
    ranks_of_all,
    subset_expectations,
    summarise,
)
from brainhive_cli.measurement.statistics import describe
from brainhive_cli.measurement.units import Items


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


def in_float64(signal: torch.Tensor, gallery: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Rank by one product of unit tokens in float64; ties, within its rounding, rank against the model."""
    unit = torch.nn.functional.normalize
    cosine = unit(signal.double(), dim=1) @ unit(gallery.double(), dim=1).T
    return (cosine >= cosine.gather(1, target[:, None]) - 1e-12).sum(1)


def hard(kind: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens of 512 dimensions that float32 alone ranks wrongly, or nearly: signals, gallery, targets."""
    draw = torch.Generator().manual_seed(3)
    signal, gallery = torch.randn(30, 512, generator=draw), torch.randn(900, 512, generator=draw)
    target = torch.randperm(900, generator=draw)[:30]
    if kind == "duplicates":
        gallery[450:] = gallery[torch.randperm(450, generator=draw)]
    elif kind == "close":  # cosines that differ by less than float32 can tell
        gallery = gallery[:1] + 3e-7 * gallery
    elif kind == "constant":
        gallery = torch.full_like(gallery, 0.1)
    elif kind == "bf16":  # few values, so that many tokens and cosines are equal
        signal, gallery = (tokens[:, :4].bfloat16().float().round() for tokens in (signal, gallery))
    return signal, gallery, target


@pytest.mark.parametrize("kind", ["random", "duplicates", "close", "constant", "bf16"])
@pytest.mark.parametrize("candidates", [3, 64, 4096])
def test_ranks_are_those_of_float64_however_the_gallery_is_cut(kind, candidates, monkeypatch):
    signal, gallery, target = hard(kind)
    monkeypatch.setattr(ranks_module, "SIMILARITIES_AT_ONCE", 512 * candidates)

    assert torch.equal(ranks(signal, gallery, target), in_float64(signal, gallery, target))


def test_float32_alone_would_rank_close_candidates_otherwise():
    signal, gallery, target = hard("close")
    unit = torch.nn.functional.normalize

    cosine = unit(signal, dim=1) @ unit(gallery, dim=1).T

    in_float32 = (cosine >= cosine.gather(1, target[:, None])).sum(1)
    assert not torch.equal(in_float32, in_float64(signal, gallery, target))


def test_autocast_changes_no_rank():
    signal, gallery, target = hard("duplicates")

    with torch.autocast("cpu", torch.bfloat16):
        found = ranks(signal, gallery, target)

    assert torch.equal(found, in_float64(signal, gallery, target))


def degenerate(kind: str, width: int) -> torch.Tensor:
    """Tokens [40, D] of which some tie, or nearly."""
    draw = torch.Generator().manual_seed(width)
    gallery = torch.randn(40, width, generator=draw) + torch.randn(width, generator=draw)
    if kind == "duplicates":
        gallery[20:] = gallery[:20]
    elif kind == "constant":
        gallery = gallery[:1].repeat(40, 1)
    elif kind == "close":
        gallery = gallery[:1] + 3e-7 * gallery
    return gallery[:1] if kind == "one" else gallery


@pytest.mark.parametrize("kind", ["random", "duplicates", "constant"])
def test_ranks_beside_precision_are_those_alone(kind):
    gallery = degenerate(kind, 65)
    signal = gallery + 3 * torch.randn(40, 65, generator=torch.Generator().manual_seed(2))
    seen = torch.arange(40)
    relevant = torch.stack([(seen + 20) % 40, seen, torch.where(seen < 9, -1, (seen + 1) % 40)], 1)

    together, precision = ranks_and_precisions(signal, gallery, seen, relevant)

    assert torch.equal(together, ranks(signal, gallery, seen))
    alone = ranks_and_precisions(signal, gallery, seen, seen[:, None])
    assert torch.equal(alone[0], together) and torch.equal(alone[1], 1 / together.double())
    assert not torch.equal(precision, alone[1])


class Waits(TorchDispatchMode):
    """Counts the operations after which a program must wait for a GPU: their result has a size or is read."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        waiting = ("nonzero", "_local_scalar_dense", "is_nonzero", "masked_select", "equal", "unique")
        reads_mask = "index" in str(function) and any(
            index is not None and index.dtype == torch.bool
            for indices in args
            if isinstance(indices, (list, tuple))
            for index in indices
        )
        self.count += reads_mask or str(function).split(".")[1] in waiting
        return function(*args, **(kwargs or {}))


def test_no_block_waits_for_a_gpu(tokens, monkeypatch):
    monkeypatch.setattr(ranks_module, "SIMILARITIES_AT_ONCE", 8 * 16)
    counts = []
    for size in (8, 40):
        with Waits() as waits:
            ranks(tokens[:4], tokens[:size], torch.arange(4))
        counts.append(waits.count)

    assert counts[1] == counts[0]


def test_of_several_gallery_items_that_show_the_image_the_best_counts():
    gallery = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.0, 1.0]])
    signal = torch.tensor([[1.0, 0.0]])

    assert ranks(signal, gallery, torch.tensor([[1, 2]])).item() == 2
    assert ranks(signal, gallery, torch.tensor([[2]])).item() == 3
    assert ranks(signal, gallery, torch.tensor([[3, 0]])).item() == 1


def test_a_summary_counts_and_says_chance():
    """Ranks 1, 2, 4, 10 among 10, by hand, each twice."""
    summary = {m.name: m for m in summarise([torch.tensor([1, 2, 4, 10] * 2)], pool=10, split="test")}

    values = {name: m.value for name, m in summary.items()}
    assert values == pytest.approx(
        {"top1": 0.25, "top3": 0.5, "top5": 0.75, "mean_rank": 4.25, "median_rank": 3, "mrr": 0.4625}
    )
    chances = {name: m.chance for name, m in summary.items()}
    mrr = sum(1 / r for r in range(1, 11)) / 10
    assert chances == pytest.approx(
        {"top1": 0.1, "top3": 0.3, "top5": 0.5, "mean_rank": 5.5, "median_rank": 5, "mrr": mrr}
    )
    assert all(m.low <= m.value <= m.high and (m.n, m.pool) == (8, 10) for m in summary.values())


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
    with pytest.raises(BrainhiveError, match="2 of 40 gallery embeddings are not finite"):
        ranks(tokens, spoilt, torch.arange(40))


def test_average_precision_is_the_mean_precision_at_each_relevant_one():
    """By hand: relevant at ranks 1, 3, 6, 9 and 10 of 10."""
    angle = torch.linspace(0, 1, 10)
    gallery = torch.stack([angle.cos(), angle.sin()], dim=1)  # ever less like the signal
    relevant = torch.tensor([[9, 5, 0, 8, 2], [0, -1, -1, -1, -1], [1, 3, -1, -1, -1]])

    ranked, precision = ranks_and_precisions(gallery[:1].expand(3, 2), gallery, relevant[:, 0], relevant)

    by_hand = [(1 + 2 / 3 + 3 / 6 + 4 / 9 + 5 / 10) / 5, 1.0, (1 / 2 + 2 / 4) / 2]
    assert precision.tolist() == pytest.approx(by_hand)
    assert ranked.tolist() == [10, 1, 2]


def test_wrong_candidates_that_tie_stand_before_the_relevant():
    gallery = torch.ones(5, 3)

    ranked, precision = ranks_and_precisions(
        torch.ones(1, 3), gallery, torch.tensor([2]), torch.tensor([[1, 2]])
    )

    assert precision.item() == pytest.approx((1 / 4 + 2 / 5) / 2) and ranked.item() == 5


@pytest.mark.parametrize("relevant", [1, 4])
def test_chance_of_precision_is_what_random_tokens_score(relevant):
    draw = torch.Generator().manual_seed(0)
    signal, gallery = torch.randn(4000, 8, generator=draw), torch.randn(15, 8, generator=draw)
    right = torch.rand(4000, 15, generator=draw).argsort(1)[:, :relevant]

    found = ranks_and_precisions(signal, gallery, right[:, 0], right)[1]

    assert found.mean().item() == pytest.approx(chance_of_precision(15, relevant), abs=0.015)
    assert chance_of_precision(3, 3) == pytest.approx(1)


def test_the_nearest_is_the_most_alike(tokens):
    assert torch.equal(nearest(tokens * 9, tokens), torch.arange(40))


def test_subsets_of_all_items_are_the_whole_test(tokens):
    noisy = tokens + 1.5 * torch.randn(40, 16, generator=torch.Generator().manual_seed(1))

    forward, backward = subset_expectations(noisy, tokens, ways=40)

    assert np.array_equal(forward == 1, (ranks(noisy, tokens, torch.arange(40)) == 1).numpy())
    assert np.array_equal(backward == 1, (ranks(tokens, noisy, torch.arange(40)) == 1).numpy())


def test_a_perfect_decoder_is_right_in_all_subsets_without_certainty(tokens):
    forward, backward = subset_expectations(tokens, tokens, ways=10)

    assert (forward == 1).all() and (backward == 1).all()
    interval = describe([forward], limits=(0, 1))
    assert 0.9 < interval.low < interval.high == 1  # as of so many hits: width and doubt remain


def test_chance_is_written_without_the_noise_of_its_sum() -> None:
    top1, *_ = summarise([torch.ones(3)], 100, split="test")
    assert str(top1.chance) == "0.01"


def test_what_is_drawn_of_subsets_tends_to_what_is_expected_exactly(tokens):
    noisy = tokens + 1.5 * torch.randn(40, 16, generator=torch.Generator().manual_seed(1))

    expected = subset_expectations(noisy, tokens, ways=20)

    random, found = np.random.default_rng(0), np.full((2, 1500, 40), np.nan)
    for draw in range(1500):
        chosen = random.permutation(40)[:20]
        for direction, pair in enumerate(((noisy, tokens), (tokens, noisy))):
            ranked = in_float64(pair[0][chosen], pair[1][chosen], torch.arange(20))
            found[direction, draw, chosen] = ranked == 1
    whole = subset_expectations(noisy, tokens, ways=40)
    for exact, drawn, of_all in zip(expected, np.nanmean(found, 1), whole, strict=True):
        assert 0.2 < exact.mean() < 0.95 and exact.mean() > of_all.mean()  # fewer items: more are found
        assert np.abs(exact - drawn).max() < 4 * np.sqrt(0.25 / 700)  # four errors of an item's 750 draws
        assert set(of_all.tolist()) == {0.0, 1.0}  # all items are the only subset
    assert (subset_expectations(noisy, tokens, ways=1)[0] == 1).all()


def test_directions_are_named_by_who_seeks_as_mindeyes_are_not(golden):
    """Golden values: MindEye1's retrieval, whose forward has images as rows."""
    values = load_file(golden / "havir" / "losses.safetensors")
    brain, image = values["in.preds_far"], values["in.targs"]
    rows = torch.arange(len(brain))

    signal_seeks, image_seeks = (
        float((each == 1).double().mean()) for each in (ranks(brain, image, rows), ranks(image, brain, rows))
    )

    assert image_seeks == pytest.approx(float(values["out.top1_fwd"]))
    assert signal_seeks == pytest.approx(float(values["out.top1_bwd"]))
    assert subset_expectations(brain, image, len(brain))[1].mean() == pytest.approx(image_seeks)


def test_a_summary_matches_the_items_of_subjects_by_their_ids():
    ranks_of = torch.arange(1, 21)
    names = [f"{n}" for n in range(20)]

    items = Items.independent([names, names[::-1]])
    (turned,) = summarise([ranks_of, ranks_of.flip(0)], 20, split="test", items=items, only=["mean_rank"])

    (same,) = summarise([ranks_of, ranks_of], 20, split="test", only=["mean_rank"])
    (other,) = summarise([ranks_of, ranks_of.flip(0)], 20, split="test", only=["mean_rank"])
    assert turned.these_subjects == same.these_subjects != other.these_subjects
    error = (turned.high - turned.low) - (other.high - other.low)
    assert error > 0  # what is good for one is bad for the other


def test_only_some_metrics_are_made_when_no_more_are_asked():
    found = summarise([torch.tensor([1, 2])], 10, split="test", only=("top5", "top1"))

    assert [metric.name for metric in found] == ["top5", "top1"]


@pytest.mark.parametrize("subjects", [1, 3])
def test_the_ranks_of_a_perfect_decoder_have_an_interval_that_begins_at_the_first(subjects):
    """That of as many hits, on the scale from the first rank to the last."""
    found = {each.name: each for each in summarise([torch.ones(200)] * subjects, 200, split="test")}

    assert found["top1"].low == pytest.approx(0.981, abs=1e-3)
    assert found["mean_rank"].low == 1
    assert found["mean_rank"].high == pytest.approx(1 + 199 * (1 - found["top1"].low))
    assert found["median_rank"].low is None and "nothing varies" not in found["mean_rank"].interval


def test_all_pictures_are_ranked_as_each_is_alone(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    signals, gallery = torch.randn(20, 8, generator=draw), torch.randn(30, 8, generator=draw)
    gallery[3] = gallery[4]  # they tie
    monkeypatch.setattr(ranks_module, "CANDIDATES", 7)

    found = ranks_of_all(signals, gallery, 12)

    for place in range(12):
        alone = ranks(signals, gallery, torch.full((20,), place))
        assert np.array_equal(found[:, place], alone.numpy())


def test_all_pictures_tie_for_a_constant_token():
    assert (ranks_of_all(torch.ones(3, 4), torch.ones(9, 4), 5) == 9).all()


def test_the_nearest_of_a_gallery_is_the_same_block_by_block_and_the_first_of_equals():
    torch.manual_seed(0)
    gallery = torch.randn(11, 5)
    gallery[9] = 2 * gallery[4]  # as near as the fourth to everything
    signals = torch.cat([torch.randn(6, 5), gallery[4:5]])

    whole = nearest(signals, gallery)

    assert torch.equal(nearest(signals, iter(gallery.split(4))), whole)
    assert whole[-1] == 4 and len(set(whole.tolist())) > 2
