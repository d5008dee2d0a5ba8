"""Tests of measures of a cell, with models that consist of tokens."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from torch.nn.functional import normalize

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.measurements import BACKWARD
from brainhive_cli.evaluation.retrieval import measure
from brainhive_cli.evaluation.retrieval.measure import (
    encode,
    find_shared_rows,
    measure_subsets,
    measure_train_similarities,
)


class Model:
    """Model that knows the tokens [M, D] of its training pictures."""

    def __init__(
        self, tokens, rows=None, ids=None, has_seen_pictures=False, origin=None
    ):
        self.tokens = tokens
        self.kept = np.arange(len(tokens)) if rows is None else np.array(rows)
        self.ids = ids or [f"{row}" for row in range(len(tokens))]
        holdout = SimpleNamespace(has_seen_pictures=has_seen_pictures)
        dataset = SimpleNamespace(holdout=holdout)
        self.run = SimpleNamespace(dataset=dataset, origin=origin)

    def open_pictures(self, split):
        if split == "train" and self.tokens is None:
            raise MissingData("no embeddings", "embed")
        return SimpleNamespace(image_ids=self.ids, path="a store")

    def find_rows(self, split):
        return self.kept

    def encode_pictures(self, split, rows):
        return self.tokens[torch.from_numpy(rows)]


def draw(*sizes, seed=0):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("at_once", [3, 5, 1024])
def test_the_nearest_training_picture_is_that_of_all_blocks(at_once, monkeypatch):
    monkeypatch.setattr(measure, "TRAIN_PICTURES_PER_BATCH", at_once)
    learned, tested = draw(14, 6), draw(5, 6, seed=1)
    learned[4] *= 50  # lengths do not matter
    rows = [*range(3, 14)]

    found = measure_train_similarities([Model(learned, rows)], tested, "test")

    expected = cosine_similarity(tested, learned[rows]).max(1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_models_are_joined_by_the_mean_of_their_cosines(monkeypatch):
    learned = [draw(9, 4), 7 * draw(9, 5, seed=1)]
    tested = [draw(3, 4, seed=2), draw(3, 5, seed=3)]
    joined = torch.cat([normalize(tokens) for tokens in tested], 1)
    models = [Model(learned[0], range(8)), Model(learned[1], range(2, 9))]

    found = measure_train_similarities(models, joined, "test")

    cosines = [
        cosine_similarity(*pair)[:, 2:8] for pair in zip(tested, learned, strict=True)
    ]
    np.testing.assert_allclose(found, np.mean(cosines, 0).max(1), atol=1e-5)
    readers = [SimpleNamespace(encode=lambda tokens: tokens) for _ in models]
    torch.testing.assert_close(encode(readers, tested), joined)
    assert torch.equal(encode(readers[:1], tested[:1]), tested[0])


@pytest.mark.parametrize(
    ("model", "split"),
    [
        (Model(draw(4, 2)), "train"),
        (Model(draw(4, 2), has_seen_pictures=True), "test"),
        (Model(draw(4, 2), origin="another data set"), "test"),
        (Model(None, rows=[], ids=["a"]), "test"),
    ],
    ids=["training pictures", "seen pictures", "another data set", "no embeddings"],
)
def test_nothing_is_near_where_training_pictures_are_not_others(model, split):
    assert measure_train_similarities([model], draw(3, 2), split).size == 0


def test_models_share_the_pictures_that_all_have():
    tokens = draw(6, 2)
    models = [Model(tokens, [0, 2, 4, 5]), Model(tokens, [1, 2, 5])]

    assert find_shared_rows(models, "test").tolist() == [2, 5]
    others = [f"other {row}" for row in range(6)]
    with pytest.raises(BrainhiveError, match="different pictures"):
        find_shared_rows([models[0], Model(tokens, ids=others)], "test")


def test_subsets_are_of_all_pictures_where_these_are_fewer():
    tokens, shown = draw(6, 3), draw(6, 3) + 2 * draw(6, 3, seed=1)

    few = measure_subsets(tokens, shown, 4)
    most = measure_subsets(tokens, shown, 300)

    assert (few.pool, most.pool, most.scopes[BACKWARD].pool) == (4, 6, 6)
    cosines = cosine_similarity(tokens, shown)
    for found, similarity in ((most, cosines), (most.scopes[BACKWARD], cosines.T)):
        hits = similarity.argmax(1) == np.arange(6)
        assert found.values["top1_expected"].tolist() == hits.tolist()
    assert (cosines.argmax(1) != cosines.argmax(0)).any()
    assert few.values["top1_expected"].mean() > most.values["top1_expected"].mean()
