"""Tests of pooled folds, and of metrics of held-out trials."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.evaluation.retrieval import folds
from brainhive_cli.evaluation.retrieval.folds import (
    measure_categories,
    measure_guess,
    merge_folds,
)
from brainhive_cli.measurement import Gallery, Items, Scores, rank_targets
from brainhive_cli.measurement.retrieval import (
    compute_auc_parts,
    compute_decision_scores,
)
from brainhive_cli.measurement.statistics import estimate_mean_variance
from brainhive_cli.training.alignment.cells import Cell


def delong(first_array, second):
    """Compute the variance of the area under the ROC curve (DeLong 1988)."""
    wins = (first_array[:, None] < second) + (first_array[:, None] == second) / 2
    parts = wins.mean(1).var(ddof=1) / len(first_array), wins.mean(0).var(ddof=1)
    return parts[0] + parts[1] / len(second)


@pytest.mark.parametrize("sizes", [(12, 30), (25, 25)])
def test_the_area_has_the_variance_of_delong(sizes, monkeypatch):
    random = np.random.default_rng(sum(sizes))
    target = np.repeat([0, 1], sizes)
    signals = torch.from_numpy(random.normal(size=(sum(sizes), 3)))
    signals[:, 0] += torch.from_numpy((target - 0.5) * 1.5)
    gallery = torch.tensor([[-1.0, 0, 0], [1, 0, 0]]).double()
    wins = compute_auc_parts(compute_decision_scores(signals, gallery), target)
    names = [f"{row}" for row in range(len(target))]
    shuffled = random.permutation(len(target))
    scores = Scores(
        labels=[str(target[row]) for row in shuffled],
        ranks=rank_targets(signals, gallery, torch.from_numpy(target)).numpy()[
            shuffled
        ],
        auc_parts=wins[shuffled],
    )
    variances = []

    def note(name, linear, items, **fields):
        variances.append(estimate_mean_variance([linear[0][0]], items).variance)
        return folds_measure(name, linear, items=items, **fields)

    folds_measure = folds.measure
    monkeypatch.setattr(folds, "measure", note)
    items = Items.independent([names])

    fields = {"protocol": "cosine", "split": "test"}
    categories = measure_categories([[scores]], fields | {"items": items, "pool": 2})

    likeness = signals[:, 0] / signals.norm(dim=1)
    area = categories["auc"]
    assert area.value == pytest.approx(roc_auc_score(target, likeness))
    expected = delong(*(likeness[target == value].numpy() for value in (0, 1)))
    assert variances[-1] == pytest.approx(expected)
    assert area.chance == 0.5
    assert area.low < area.value < area.high
    assert ("balanced_accuracy" in categories) == (sizes[0] != sizes[1])
    if sizes[0] != sizes[1]:
        named = np.where(scores.ranks == 1, target[shuffled], 1 - target[shuffled])
        expected = balanced_accuracy_score(target[shuffled], named)
        assert categories["balanced_accuracy"].value == pytest.approx(expected)
        assert categories["balanced_accuracy"].chance == 0.5


def one_hot(target, count):
    return np.eye(count, dtype=int)[target]


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("seed", range(3))
def test_the_area_is_macro_averaged_as_in_scikit_learn(count, seed):
    """Scores have few values, so some tie."""
    random = np.random.default_rng(seed)
    target = random.integers(0, count, 60)
    scores = random.integers(-2, 3, (60, count)) + 1.0 * one_hot(target, count)

    parts = compute_auc_parts(scores, target)

    # for two candidates, one score is the other with a changed sign
    if count == 2:
        scores = scores - scores.mean(1, keepdims=True)
        parts = compute_auc_parts(scores, target)
    expected = roc_auc_score(one_hot(target, count), scores, average="macro")
    assert np.mean(parts) == pytest.approx(expected)
    assert not len(compute_auc_parts(scores, 0 * target))


@pytest.mark.parametrize("seed", range(3))
def test_parts_of_an_area_have_the_variance_of_its_jackknife(seed):
    random = np.random.default_rng(seed)
    target = np.repeat(range(4), (40, 60, 80, 70))
    scores = random.normal(size=(250, 4)) + 1.2 * one_hot(target, 4)

    parts = compute_auc_parts(scores, target)

    # variance within categories, against the area without each signal
    variance = 0.0
    jackknife = 0.0
    for category in range(4):
        rows = np.flatnonzero(target == category)
        variance += len(rows) * parts[rows].var(ddof=1) / len(parts) ** 2
        areas = []
        for row in rows:
            delete = np.delete(np.arange(250), row)
            labels = one_hot(target[delete], 4)
            areas.append(roc_auc_score(labels, scores[delete], average="macro"))
        jackknife += (len(rows) - 1) * np.var(areas)
    assert variance == pytest.approx(jackknife, rel=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_the_length_of_a_classifiers_output_decides_its_area(seed):
    """Outputs for two labels are collinear, so their cosines are only -1 or 1."""
    random = np.random.default_rng(seed)
    target = np.arange(40) % 2
    second = random.normal(size=40) + target - 0.5
    signals = np.stack([-second, second], 1) * (1 + 1e-6 * random.normal(size=(40, 2)))
    signals = torch.from_numpy(signals.astype(np.float32))
    gallery = torch.eye(2)

    cosines = compute_decision_scores(signals, gallery)
    outputs = compute_decision_scores(signals, gallery, are_labels=True)

    is_right = (second > 0) == target
    accuracy = np.mean([is_right[target == value].mean() for value in (0, 1)])
    assert np.mean(compute_auc_parts(cosines, target)) == pytest.approx(accuracy)
    expected = roc_auc_score(target, second)
    assert np.mean(compute_auc_parts(outputs, target)) == pytest.approx(expected)


def test_an_area_needs_no_table_of_signals_with_signals():
    target, scores = (
        np.arange(2000) % 2,
        np.random.default_rng(0).normal(size=(2000, 2)),
    )
    tracemalloc.start()
    compute_auc_parts(scores, target)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < len(target) ** 2 / 4


def of_fold(fold, shown, candidates):
    """Make the scores of a fold, with numbers of its own."""
    size = len(shown)
    own = 10 * fold + np.arange(1, size + 1)
    table = own[:, None] + np.arange(len(candidates))
    scores = Scores(
        image_ids=shown,
        labels=shown,
        concepts=[name[0] for name in shown],
        units=own,
        is_trialwise=fold != 1,
        ranks=own,
        pool=3,
        values={"map": 1 / own},
        relevant=own,
        nearest_concepts=[name[0] for name in shown],
        train_similarities=own / 100,
        verdict_ids=candidates,
        verdict_ranks=table,
        control={"top1": np.array([0.1 * fold, 1.0])},
    )
    tile = np.tile(own, (2 + fold, 1))
    scores_by_name = {
        name: Scores(ranks=tile) for name in ("repetitions · 2", "backward")
    }
    return replace(scores, scopes=scores_by_name)


def test_folds_are_pooled_item_by_item():
    shown = {0: ["a1", "b1", "a2"], 1: ["b2"], 2: ["a3", "b3"]}
    candidates = {0: ["a1", "b1", "a2"], 1: ["b2", "x1", "x2"], 2: ["a3", "b3", "a1"]}
    cells = {}
    for fold in shown:
        cell = Cell(f"sub-01_fold-{fold}_seed-1", (1,), (1,), 1, fold=fold)
        gallery = Gallery({}, candidates[fold], [name[0] for name in candidates[fold]])
        cells[cell] = gallery, {1: of_fold(fold, shown[fold], candidates[fold])}
    single_cell = Cell("sub-01_seed-2", (1,), (1,), 2)
    cells[single_cell] = cells[cell]

    merged = merge_folds(cells)

    assert merged.pop(single_cell) == cells[single_cell]
    ((gallery, subjects),) = merged.values()
    scores = subjects[1]
    assert gallery.image_ids == ["a1", "b1", "a2", "b2", "x1", "x2", "a3", "b3"]
    assert gallery.concepts == [name[0] for name in gallery.image_ids]
    assert scores.labels == ["a1", "b1", "a2", "b2", "a3", "b3"]
    assert scores.groups == ["fold 0"] * 3 + ["fold 1"] + ["fold 2"] * 2
    assert scores.ranks.tolist() == [1, 2, 3, 11, 21, 22]
    assert scores.values["map"] == pytest.approx(1 / scores.ranks)
    assert scores.relevant.tolist() == scores.ranks.tolist()
    assert scores.train_similarities == pytest.approx(scores.ranks / 100)
    assert scores.units.tolist() == [1, 2, 3, 11, 21, 22]
    assert scores.is_trialwise is False
    assert scores.pool == 3
    # candidates of other folds were not compared
    column = {name: number for number, name in enumerate(scores.verdict_ids)}
    assert scores.verdict_ranks.shape == (6, 8)
    assert scores.verdict_ranks[3, column["x1"]] == 12
    assert scores.verdict_ranks[3, column["a1"]] == 0
    assert scores.verdict_ranks[4, column["a1"]] == 23
    assert scores.verdict_ranks[0, column["a1"]] == 1
    # controls by the items of folds, draws as many as all folds have
    assert scores.control["top1"] == pytest.approx([(0.1 + 0.2 * 2) / 6, 1])
    assert list(scores.scopes) == ["repetitions · 2"]
    assert scores.scopes["repetitions · 2"].ranks.shape == (2, 6)


def test_folds_of_different_chance_are_refused():
    cells = {}
    for fold, pool in enumerate((3, 4)):
        cell = Cell(f"sub-01_fold-{fold}", (1,), (1,), 1, fold=fold)
        cells[cell] = Gallery({}, list("abcd"[:pool]), list("abcd"[:pool])), {}
    with pytest.raises(BrainhiveError, match="3 to 4"):
        merge_folds(cells)


def test_a_guess_names_the_most_frequent_label_first():
    labels = ["cat", "dog", "dog", "car", "dog", "cat"]
    concepts = ["pet", "pet", "pet", "thing", "pet", "pet"]
    rare = Scores(labels=labels, concepts=concepts)
    scores = Scores(labels=["a", "b", "c"], concepts=["a", "b", "c"])

    guess = measure_guess([[rare]], 3)

    assert guess["top1"] == pytest.approx(3 / 6)
    assert guess["mean_rank"] == pytest.approx((2 * 2 + 3 * 1 + 3) / 6)
    # pets stand at ranks 1 and 2, the thing at 3
    assert guess["map"] == pytest.approx((5 * 1 + 1 / 3) / 6)
    assert measure_guess([[scores]], 3) == {}
    assert measure_guess([[scores], [rare]], 3)["top1"] == pytest.approx(
        (1 / 3 + 0.5) / 2
    )
