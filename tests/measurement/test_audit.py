"""Checks of foreign results, at the limits between a finding and none."""

from hashlib import sha256
from math import comb

import numpy as np
import pytest
import torch

from brainhive_cli.measurement import FINDING, ForeignResult, rank_targets
from brainhive_cli.measurement.audit import (
    NOTHING,
    UNDECIDED,
    _score_plain_ranking,
    audit,
)
from brainhive_cli.measurement.corrections import Assignment

COUNT = 40


def result(similarities, repeats=1, **fields):
    """Make a result of pictures that were each shown `repeats` times."""
    targets = torch.arange(COUNT).repeat_interleave(repeats)[:, None]
    seen_names = [f"picture {row}" for row in targets[:, 0].tolist()]
    return ForeignResult(similarities, targets, seen_names, **fields)


def state(result, check):
    """Return the state and the points of a check."""
    (row,) = [row for row in audit(result) if row[0] == check]
    return row[1], row[2]


def noisy(repeats=1, shared=0.0):
    """Make similarities of signals, with a share of noise common to repetitions."""
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(COUNT * repeats, COUNT, generator=random)
    common = torch.randn(COUNT, COUNT, generator=random).repeat_interleave(repeats, 0)
    response = torch.eye(COUNT).repeat_interleave(repeats, 0)
    return 2 * response + (1 - shared) * noise + shared * common


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.8, FINDING), (1.2, FINDING), (0.7, NOTHING), (1.3, NOTHING)],
)
def test_an_interval_as_if_trials_were_independent_is_a_finding(share, expected):
    similarities = noisy(repeats=16, shared=1.0)
    hits = (similarities.argmax(1) == torch.arange(COUNT).repeat_interleave(16)) * 1.0
    naive = 196 * float(hits.numpy().std()) / len(hits) ** 0.5

    foreign_result = result(similarities, 16, claims={"interval": share * naive})

    assert state(foreign_result, "interval and units")[0] == expected
    # trials that are pictures of their own are independent
    result_of_pictures = result(noisy(), claims={"interval": 10.0})
    assert state(result_of_pictures, "interval and units")[0] == NOTHING


@pytest.mark.parametrize(
    ("often", "expected"), [(40, FINDING), (37, FINDING), (36, NOTHING)]
)
def test_one_answer_for_nine_tenths_of_the_signals_is_a_collapse(often, expected):
    similarities = torch.zeros(COUNT, COUNT)
    similarities[:, 0] = 1
    # an order of all pictures gives as much as each signal's own
    similarities -= torch.arange(COUNT) / 1000
    for row in range(often, COUNT):
        similarities[row, 1 + row % 7] += 2
    honest_result = result(similarities)
    targets = honest_result.targets.clone()
    targets[:12] = 0

    collapsed = ForeignResult(similarities, targets, honest_result.seen_names)

    assert state(collapsed, "collapse and hubs")[0] == expected
    assert state(result(noisy()), "collapse and hubs")[0] == NOTHING


@pytest.mark.parametrize("learned", [0, 4])
def test_tested_pictures_in_the_training_set_are_a_finding(learned):
    names = [f"picture {row}" for row in range(learned)] + ["another", "a third"]
    similarities = noisy()
    hits = (similarities.argmax(1) == torch.arange(COUNT)).numpy()

    judged = state(result(similarities, train_ids=names), "training pictures")

    gain = 100 * (hits.mean() - hits[learned:].mean()) if learned else None
    assert judged == (FINDING if learned else NOTHING, pytest.approx(gain))
    # numbers of rows are no names
    for numbers in ((), ("0", "1", "2")):
        numbered = result(similarities, train_ids=numbers)
        assert state(numbered, "training pictures")[0] == UNDECIDED


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


def name_check(seen_names, train_ids):
    """Return the state of the check that compares names."""
    similarities = (
        torch.eye(len(seen_names)) if len(seen_names) == COUNT else noisy(repeats=5)
    )
    targets = torch.arange(COUNT).repeat_interleave(len(seen_names) // COUNT)[:, None]
    foreign = ForeignResult(similarities, targets, seen_names, train_ids=train_ids)
    return state(foreign, "training pictures")[0]


@pytest.mark.parametrize(
    "name",
    [
        "{:04d}",
        "{}",
        "img_{}",
        "{:03d}_256x256",
        "{split}/img_{:03d}",
        "{split}_{:04d}",
    ],
)
def test_counted_names_do_not_prove_equal_pictures(name):
    seen_names = [name.format(row, split="test") for row in range(100, 100 + COUNT)]
    train = [name.format(row, split="train") for row in range(100, 300)]

    assert name_check(seen_names, train) == UNDECIDED


@pytest.mark.parametrize("n_pictures", [1, 5])
def test_numbers_in_the_folders_of_classes_prove_nothing(n_pictures):
    names = "{split}/class {letter}{0}/{1:03d}"
    seen_names, train = (
        [
            names.format(row, number + 1, split=split, letter=chr(65 + row))
            for row in range(COUNT)
            for number in range(count)
        ]
        for split, count in (("test", n_pictures), ("train", 10))
    )

    assert name_check(seen_names, train) == UNDECIDED


@pytest.mark.parametrize(
    ("first_class", "repeats"), [(0, 1), (0, 10), (5, 10), (-5, 10)]
)
def test_names_of_classes_do_not_prove_equal_pictures(first_class, repeats):
    """Some classes may be only trained, or only tested."""
    classes = [f"n{7919 * row + 1440764:08d}" for row in range(-5, COUNT + 5)]
    seen_names = [name for name in classes[5 : COUNT + 5] for _ in range(5)]
    train = classes[5 + first_class : COUNT + 5] * repeats

    assert name_check(seen_names, train) == UNDECIDED


@pytest.mark.parametrize(
    ("test_name", "train_name", "repeats"),
    [
        ("{}", "{}", 1),
        ("{}", "{}", 3),
        ("test_images/{}", "training_images/{}", 1),
        ("test_{}", "train_{}", 1),
        ("{}_256", "{}_256", 1),
    ],
)
@pytest.mark.parametrize("kind", ["digest", "catalogue"])
def test_distinctive_names_prove_equal_pictures(test_name, train_name, repeats, kind):
    if kind == "digest":
        names = [sha256(bytes([row])).hexdigest() for row in range(200)]
    else:
        numbers = np.random.default_rng(0).permutation(10_000)[:200]
        names = [f"coco_{number:012d}" for number in numbers]
    seen_names = [test_name.format(name) for name in names[:COUNT]]
    train = [train_name.format(name) for name in names[COUNT - 4 :]]

    assert name_check(seen_names, train * repeats) == FINDING
    assert name_check(seen_names, train[4:] * repeats) == NOTHING


def test_a_split_of_a_catalogue_is_compared_by_its_numbers():
    order = np.random.default_rng(0).permutation(500)
    names = [f"img_{number:03d}" for number in order]

    assert name_check(names[:COUNT], names[COUNT:]) == NOTHING
    assert name_check(names[:COUNT], names[COUNT - 4 :]) == FINDING


@pytest.mark.parametrize(
    ("claims", "rounding", "expected"),
    [
        ({"top1": 1}, 0.005, UNDECIDED),
        ({"top1": 1, "top5": 5}, 0.5, UNDECIDED),
        ({"top1": 1, "top5": 5}, 0.005, FINDING),
    ],
)
def test_an_honest_mean_over_seeds_is_not_taken_for_assignment(
    claims, rounding, expected
):
    """A mean over seeds differs from the score of the first as much as seeds do."""
    random = torch.Generator().manual_seed(2)
    similarities = torch.eye(200) + torch.randn(200, 200, generator=random) / 2.7
    assigned = Assignment().correct(similarities, similarities, similarities)
    targets = torch.arange(200)[:, None]
    ranks = rank_targets(assigned, None, targets, 0).numpy()
    scores = {name: 100 * float((ranks <= k).mean()) for name, k in claims.items()}
    foreign = ForeignResult(
        similarities,
        targets,
        [f"picture {row}" for row in range(200)],
        claims=scores | {"rounding": rounding},
    )

    assert state(foreign, "test signals together")[0] == expected
    assert state(foreign, "claimed numbers")[0] != FINDING


@pytest.mark.parametrize(
    ("test_scores", "validation", "expected"),
    [
        ([10, 40, 45, 41], [1, 2, 3, 4], FINDING),
        # the best epoch is the last, or has the best validation score
        ([10, 40, 41, 45], [1, 4, 3, 2], UNDECIDED),
        ([10, 40, 45, 41], [1, 2, 4, 3], UNDECIDED),
        ([10, 40, 45, 41], None, UNDECIDED),
        ([10, 40, 41.0, 41.2], [1, 2, 4, 3], NOTHING),
    ],
)
def test_a_best_epoch_that_may_be_honest_is_not_decidable(
    test_scores, validation, expected
):
    log = {"test_top1": np.array(test_scores, float)}
    if validation:
        log["val_top1"] = np.array(validation, float)
    foreign = result(noisy(), log=log, claims={"top1": max(test_scores)})

    assert state(foreign, "epoch")[0] == expected


def test_gallery_vectors_in_the_training_set_are_a_finding():
    random = np.random.default_rng(0)
    gallery = torch.from_numpy(random.normal(size=(COUNT, 12)))
    other_vectors = torch.from_numpy(random.normal(size=(50, 12)))
    copies = torch.cat([other_vectors, 3 * gallery[5:9]])

    for train, expected in ((other_vectors, NOTHING), (copies, FINDING)):
        fields = {"gallery": gallery, "train_embeddings": train}
        checked = state(result(noisy(), **fields), "copies of training pictures")
        assert checked[0] == expected


@pytest.mark.parametrize(("k", "n_ways"), [(1, 10), (5, 10), (1, 2)])
def test_accuracy_in_small_galleries_is_a_mean_over_all_subsets(k, n_ways):
    foreign_result = result(noisy(), claims={f"top{k}": 50.0, "pool": n_ways})

    plain_score, _ = _score_plain_ranking(foreign_result, k)

    # hits if fewer than k of the candidates before it are in the subset
    n_better = foreign_result.ranks - 1
    shares = [
        sum(
            comb(n, j) * comb(COUNT - 1 - n, n_ways - 1 - j)
            for j in range(min(k, n_ways))
        )
        / comb(COUNT - 1, n_ways - 1)
        for n in n_better.tolist()
    ]
    assert plain_score == pytest.approx(100 * np.mean(shares))
