"""Checks of foreign results, at the limits between a finding and none."""

from math import comb

import numpy as np
import pytest
import torch

from brainhive_cli.measurement.audit import (
    FINDING,
    NOTHING,
    UNDECIDED,
    _score_plain_ranking,
    audit,
)
from brainhive_cli.measurement.foreign_result import ForeignResult

COUNT = 40


def result(similarities: torch.Tensor, repeats: int = 1, **fields) -> ForeignResult:
    """Make a result of pictures that were each shown `repeats` times."""
    targets = torch.arange(COUNT).repeat_interleave(repeats)[:, None]
    seen = [f"picture {row}" for row in targets[:, 0].tolist()]
    return ForeignResult(similarities, targets, seen, **fields)


def state(result: ForeignResult, check: str) -> tuple[str, float | None]:
    """Return the state and the points of a check."""
    (row,) = [row for row in audit(result) if row[0] == check]
    return row[1], row[2]


def noisy(repeats: int = 1, shared: float = 0.0) -> torch.Tensor:
    """Make similarities of signals, with a share of noise common to repetitions."""
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(COUNT * repeats, COUNT, generator=random)
    common = torch.randn(COUNT, COUNT, generator=random).repeat_interleave(repeats, 0)
    own = torch.eye(COUNT).repeat_interleave(repeats, 0)
    return 2 * own + (1 - shared) * noise + shared * common


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.8, FINDING), (1.2, FINDING), (0.7, NOTHING), (1.3, NOTHING)],
)
def test_an_interval_as_if_trials_were_independent_is_a_finding(share, expected):
    similarities = noisy(repeats=16, shared=1.0)
    hits = (similarities.argmax(1) == torch.arange(COUNT).repeat_interleave(16)) * 1.0
    naive = 196 * float(hits.numpy().std()) / len(hits) ** 0.5

    plain = result(similarities, 16, claims={"interval": share * naive})

    assert state(plain, "interval and units")[0] == expected
    # trials that are pictures of their own are independent
    alone = result(noisy(), claims={"interval": 10.0})
    assert state(alone, "interval and units")[0] == NOTHING


@pytest.mark.parametrize(
    ("often", "expected"), [(40, FINDING), (37, FINDING), (36, NOTHING)]
)
def test_one_answer_for_nine_tenths_of_the_signals_is_a_collapse(often, expected):
    similarities = torch.zeros(COUNT, COUNT)
    similarities[:, 0] = 1
    # one order of all pictures gives as much as each signal's own
    similarities -= torch.arange(COUNT) / 1000
    for row in range(often, COUNT):
        similarities[row, 1 + row % 7] += 2
    found = result(similarities)
    targets = found.targets.clone()
    targets[:12] = 0

    collapsed = ForeignResult(similarities, targets, found.seen_names)

    assert state(collapsed, "collapse and hubs")[0] == expected
    assert state(result(noisy()), "collapse and hubs")[0] == NOTHING


@pytest.mark.parametrize("learned", [0, 4])
def test_tested_pictures_in_the_training_set_are_a_finding(learned):
    names = [f"picture {row}" for row in range(learned)] + ["another", "a third"]
    similarities = noisy()
    hits = (similarities.argmax(1) == torch.arange(COUNT)).numpy()

    found = state(result(similarities, train_ids=names), "training pictures")

    gain = 100 * (hits.mean() - hits[learned:].mean()) if learned else None
    assert found == (FINDING if learned else NOTHING, pytest.approx(gain))
    # numbers of rows are no names
    for numbers in ((), ("0", "1", "2")):
        numbered = result(similarities, train_ids=numbers)
        assert state(numbered, "training pictures")[0] == UNDECIDED


def test_gallery_vectors_in_the_training_set_are_a_finding():
    random = np.random.default_rng(0)
    gallery = torch.from_numpy(random.normal(size=(COUNT, 12)))
    others = torch.from_numpy(random.normal(size=(50, 12)))
    copies = torch.cat([others, 3 * gallery[5:9]])

    for train, expected in ((others, NOTHING), (copies, FINDING)):
        fields = {"gallery": gallery, "train_embeddings": train}
        checked = state(result(noisy(), **fields), "copies of training pictures")
        assert checked[0] == expected


@pytest.mark.parametrize(("spread", "expected"), [(1.0, NOTHING), (0.05, UNDECIDED)])
def test_vectors_of_few_effective_dimensions_are_not_compared(spread, expected):
    random = np.random.default_rng(0)
    scale = np.where(np.arange(12) < 4, 1, spread)
    gallery = torch.from_numpy(random.normal(size=(COUNT, 12)) * scale)
    learned = torch.from_numpy(random.normal(size=(50, 12)) * scale)
    fields = {"gallery": gallery, "train_embeddings": learned}
    assert (
        state(result(noisy(), **fields), "copies of training pictures")[0] == expected
    )


@pytest.mark.parametrize(("k", "ways"), [(1, 10), (5, 10), (1, 2)])
def test_accuracy_in_small_galleries_is_a_mean_over_all_subsets(k, ways):
    found = result(noisy(), claims={f"top{k}": 50.0, "pool": ways})

    plain, _ = _score_plain_ranking(found, k)

    # hits if fewer than k of the candidates before it are in the subset
    before = found.ranks - 1
    shares = [
        sum(comb(n, j) * comb(COUNT - 1 - n, ways - 1 - j) for j in range(min(k, ways)))
        / comb(COUNT - 1, ways - 1)
        for n in before.tolist()
    ]
    assert plain == pytest.approx(100 * np.mean(shares))
