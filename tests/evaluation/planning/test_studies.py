"""Tests of simulated studies and of the statistics that support a claim."""

import numpy as np
import pytest

from brainhive_cli.evaluation.planning.assumptions import PublishedResult
from brainhive_cli.evaluation.planning.belief import Belief
from brainhive_cli.evaluation.planning.designs import Design, Question
from brainhive_cli.evaluation.planning.studies import (
    N_LIKELY_STUDIES,
    DecoderBank,
    is_better,
    rank_pictures,
    simulate_studies,
    supports,
)
from brainhive_cli.measurement.units import Items


def make_ranks(n_people, n_hits, pool=50):
    """Make ranks with a number of hits, and the middle rank otherwise."""
    ranks = np.full(pool, pool // 2)
    ranks[:n_hits] = 1
    return [ranks] * n_people


def make_items(n_people, pool=50):
    return Items.independent([list(range(pool))] * n_people, "pictures")


def test_ranks_of_seen_pictures_are_the_diagonal():
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(30, 6))
    tokens = candidates + rng.normal(size=(30, 6))
    table = rank_pictures(tokens, candidates, only_seen=False)
    diagonal_ranks = rank_pictures(tokens, candidates, only_seen=True)
    assert table.shape == (30, 30)
    np.testing.assert_array_equal(table.diagonal(), diagonal_ranks)


@pytest.mark.parametrize(
    ("claim", "size", "n_hits", "is_supported"),
    [
        ("top1", 0.3, 25, True),  # Wilson from .37 to .63
        ("top1", 0.4, 25, False),
        ("interval", 0.3, 25, True),
        ("interval", 0.2, 25, False),
    ],
)
def test_intervals_decide_claims(claim, size, n_hits, is_supported):
    question = Question(claim, size)
    assert supports(question, make_ranks(1, n_hits), make_items(1)) == is_supported


def test_claims_for_new_people_need_five_people():
    question = Question("top1", 0.1, new_people=True)
    rng = np.random.default_rng(0)
    ranks = [rng.permutation(make_ranks(1, 20 + person)[0]) for person in range(5)]
    assert supports(question, ranks, make_items(5))
    assert not supports(question, ranks[:4], make_items(4))
    weaker = [np.where(rng.random(50) < 0.9, 25, table) for table in ranks]
    assert is_better(ranks, weaker, make_items(5), question)
    assert not is_better(ranks[:4], weaker[:4], make_items(4), question)


def test_equal_models_do_not_differ():
    ranks = make_ranks(2, 25)
    assert not is_better(ranks, ranks, make_items(2), Question("difference", 0.1))


@pytest.mark.parametrize("claim", ["above-chance", "difference"])
def test_studies_reach_the_published_top1(claim):
    result = PublishedResult(0.25, 0.15, 0.35, 200, 2, 20, 4, people=10)
    belief = Belief.from_published(result, seed=0)
    design = Design(1, 1, 60, 1, 200, 2, 20, 4)
    bank = DecoderBank(belief, 200, 2, seed=0)
    question = Question(claim, 0.1)
    studies = simulate_studies(design, question, bank, seed=0)
    likely = studies.top1[studies.is_likely]
    assert len(likely) == N_LIKELY_STUDIES
    assert likely.mean() == pytest.approx(0.25, abs=0.06)
    if claim == "difference":
        losses = studies.drop[studies.is_likely].mean(0)
        assert losses[0] == 0
        assert losses[-1] == pytest.approx(0.2, abs=0.07)
        assert not studies.stands[:, 0].any()
    else:
        assert studies.stands[studies.is_likely].mean() > 0.5

    # equal seeds give equal studies
    repeated_studies = simulate_studies(design, question, bank, seed=0)
    np.testing.assert_array_equal(repeated_studies.top1, studies.top1)
