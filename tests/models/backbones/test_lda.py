"""Discriminant analysis compared with scikit-learn's, and the labels that it takes."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.models.backbones.lda import Config
from brainhive_cli.models.heads import Head
from tests.worlds.model_layouts import make_signal_spec


def fit(signal, numbers, categories, subject=1):
    """Fit a model of subjects 7 and 1 to the signals of subject 1."""
    names = tuple(map(str, range(signal.shape[1])))
    spec = make_signal_spec(names, signal.shape[2], (7, 1))
    model = Config().build(spec, {"category": Head((categories,))})
    labels = torch.eye(categories)[numbers]
    model.fit(subject, signal, lambda rows: {"category": labels[rows]}, signal[:0])
    return model


def score(model, signal, index):
    """Return the scores of signals of the subject at an index."""
    return model(signal, torch.full((len(signal),), index))["category"].detach()


def test_embeddings_of_pictures_are_no_labels():
    signal = torch.randn(24, 4, 5)
    labels = torch.eye(3)[torch.arange(24) % 3] + 0.1
    model = Config().build(make_signal_spec(tuple("abcd"), 5), {"category": Head((3,))})

    with pytest.raises(RecipeError, match="category"):
        model.fit(1, signal, lambda rows: {"category": labels[rows]}, signal[:0])


@pytest.mark.parametrize("categories", [2, 3])
def test_scores_are_scikit_learns_with_a_shrunk_covariance(categories):
    """There are more features than trials, of different sizes and means."""
    random = np.random.default_rng(0)
    numbers = np.arange(24) % categories
    flat = random.normal(size=(24, 40)) * random.uniform(0.1, 30, 40) + 5
    flat[:, :3] += 4 * numbers[:, None]
    flat[:, 39] = 2.0
    test_flat = random.normal(size=(9, 40)) * 10 + 5
    scaler = StandardScaler().fit(flat)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    reference.fit(scaler.transform(flat), numbers)
    expected = reference.decision_function(scaler.transform(test_flat))

    signal = torch.from_numpy(flat).float().view(24, 8, 5)
    model = fit(signal, torch.from_numpy(numbers), categories)

    test_signal = torch.from_numpy(test_flat).float().view(9, 8, 5)
    scores = score(model, test_signal, 1).numpy()
    if categories == 2:
        scores = scores[:, 1] - scores[:, 0]
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)
    # the other subject was not fitted
    other_scores = score(model, test_signal, 0)
    assert not np.allclose(other_scores[:, 0], scores.reshape(9, -1)[:, 0])


def test_categories_without_training_trials_never_win():
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(12, 2, 3, generator=generator)
    model = fit(signal, torch.tensor([1, 3, 4] * 4), 6)
    test_signal = 10 * torch.randn(50, 2, 3, generator=generator)
    winners = score(model, test_signal, 1).argmax(1)
    assert set(winners.tolist()) == {1, 3, 4}


@pytest.mark.parametrize("numbers", [[1, 1, 1, 1], [0, 1, 2, 3]])
def test_one_category_and_one_trial_a_category_are_refused(numbers):
    with pytest.raises(BrainhiveError):
        fit(torch.randn(4, 2, 3), torch.tensor(numbers), 5)
    fit(torch.randn(4, 2, 3), torch.tensor([0, 1, 2, 2]), 5)


def test_a_fit_leaves_its_signals_as_they_are():
    signal = torch.randn(24, 4, 5, dtype=torch.float64) + 3
    original = signal.clone()
    fit(signal, torch.arange(24) % 3, 3)
    assert torch.equal(signal, original)
