"""Tests of measures of a cell, with models that consist of tokens."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from torch.nn.functional import normalize

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.results.measurements import BACKWARD
from brainhive_cli.data.signals.holdout import Holdout
from brainhive_cli.evaluation.retrieval import measure
from brainhive_cli.evaluation.retrieval.measure import (
    encode,
    measure_train_similarities,
)
from brainhive_cli.measurement.retrieval import measure_subsets
from brainhive_cli.training.alignment.trained import TestSet, test_set
from tests.worlds.memory_test_set import (
    DATASET,
    MemoryTestSet,
    PictureModel,
    make_runs,
    make_store,
)


def open_tests(*stores, split="test", dataset=DATASET, **facts):
    """Open a test set, with a model for each store of training pictures."""
    models = [PictureModel(f"{number}", number=number) for number in range(len(stores))]
    train = {f"{number}": store for number, store in enumerate(stores) if store}
    runs = make_runs(models, dataset, **facts)
    return models, MemoryTestSet(runs, split, stores={"train": train} if train else {})


def store(tokens, rows=None):
    """Store tokens [M, D] of pictures, of which only those in `rows` are embedded."""
    numbers = np.arange(len(tokens))
    done = None if rows is None else np.isin(numbers, rows)
    return make_store(tokens, [f"{row}" for row in numbers], has_embedding=done)


def draw(*sizes, seed=0):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("at_once", [3, 5, 1024])
def test_the_nearest_training_picture_is_that_of_all_blocks(at_once, monkeypatch):
    monkeypatch.setattr(measure, "TRAIN_PICTURES_PER_BATCH", at_once)
    learned, tested = draw(14, 6), draw(5, 6, seed=1)
    learned[4] *= 50  # lengths do not matter
    rows = list(range(3, 14))

    models, tests = open_tests(store(learned, rows))

    train_rows = tests.find_trained_rows()
    train_similarities = measure_train_similarities(models, tests, tested, train_rows)

    expected = cosine_similarity(tested, learned[rows]).max(1)
    np.testing.assert_allclose(train_similarities, expected, atol=1e-5)


def test_models_are_joined_by_the_mean_of_their_cosines(monkeypatch):
    learned = [draw(9, 4), 7 * draw(9, 5, seed=1)]
    tested = [draw(3, 4, seed=2), draw(3, 5, seed=3)]
    joined = torch.cat([normalize(tokens) for tokens in tested], 1)
    models, tests = open_tests(
        store(learned[0], range(8)), store(learned[1], range(2, 9))
    )

    train_rows = tests.find_trained_rows()
    train_similarities = measure_train_similarities(models, tests, joined, train_rows)

    cosines = [
        cosine_similarity(*pair)[:, 2:8] for pair in zip(tested, learned, strict=True)
    ]
    np.testing.assert_allclose(
        train_similarities, np.mean(cosines, 0).max(1), atol=1e-5
    )
    readers = [SimpleNamespace(encode=lambda tokens: tokens) for _ in models]
    torch.testing.assert_close(encode(readers, tested), joined)
    assert torch.equal(encode(readers[:1], tested[:1]), tested[0])


@pytest.mark.parametrize(
    "facts",
    [
        {"split": "train"},
        {"dataset": replace(DATASET, holdout=Holdout(by="runs", folds=2))},
        {"origin": "another data set"},
    ],
    ids=["training pictures", "seen pictures", "another data set"],
)
def test_nothing_is_near_where_training_pictures_are_not_others(facts):
    models, tests = open_tests(store(draw(4, 2)), **facts)
    train_rows = tests.find_trained_rows()
    assert not len(train_rows)
    assert not measure_train_similarities(models, tests, draw(3, 2), train_rows).size


def test_nothing_is_near_without_embeddings_of_training_pictures():
    models, tests = open_tests(None)
    train_rows = tests.find_trained_rows()
    assert not len(train_rows)
    assert not measure_train_similarities(models, tests, draw(3, 2), train_rows).size


def test_models_share_the_pictures_that_all_have():
    tokens = draw(6, 2)
    _, tests = open_tests(store(tokens, [0, 2, 4, 5]), store(tokens, [1, 2, 5]))

    assert tests.find_rows("train").tolist() == [2, 5]


def test_runs_of_different_pictures_are_not_tested_together(monkeypatch):
    runs = make_runs([PictureModel(), PictureModel(number=1)])
    for finished_run, image_ids in zip(runs, ("abc", "abd"), strict=True):
        finished_run.stores = {
            finished_run.name: make_store(draw(3, 2), list(image_ids))
        }
        finished_run.dataset_config = finished_run.encoders = None
        finished_run.check_stores = lambda stores: None
    store_iterator = iter([finished_run.stores for finished_run in runs])
    monkeypatch.setattr(
        test_set, "open_stores", lambda *arguments: next(store_iterator)
    )

    with pytest.raises(BrainhiveError, match="different pictures"):
        TestSet(runs, "test").open_stores("test")


def test_subsets_are_of_all_pictures_where_these_are_fewer():
    tokens, shown = draw(6, 3), draw(6, 3) + 2 * draw(6, 3, seed=1)

    few_subsets = measure_subsets(tokens, shown, 4)
    subsets = measure_subsets(tokens, shown, 300)

    assert (few_subsets.pool, subsets.pool, subsets.scopes[BACKWARD].pool) == (4, 6, 6)
    cosines = cosine_similarity(tokens, shown)
    for found, similarity in (
        (subsets, cosines),
        (subsets.scopes[BACKWARD], cosines.T),
    ):
        hits = similarity.argmax(1) == np.arange(6)
        assert found.values["top1_expected"].tolist() == hits.tolist()
    assert (cosines.argmax(1) != cosines.argmax(0)).any()
    assert (
        few_subsets.values["top1_expected"].mean()
        > subsets.values["top1_expected"].mean()
    )
