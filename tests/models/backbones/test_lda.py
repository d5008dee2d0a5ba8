"""lda decides between categories, and takes no other targets for them."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.models.backbones.lda import Config
from brainhive_cli.models.heads import Head
from tests.worlds.model_layouts import spec_of


def test_embeddings_of_pictures_are_no_labels():
    numbers = torch.arange(24) % 3
    signal = torch.randn(24, 4, 5, generator=torch.Generator().manual_seed(0))
    signal[torch.arange(24), numbers] += 4
    model = Config().build(spec_of(("a", "b", "c", "d"), 5), {"given": Head((3,))})
    labels = torch.eye(3)[numbers]

    model.fit(
        1,
        signal,
        lambda rows: {"given": labels[rows]},
        torch.zeros(24, dtype=torch.bool),
    )
    scores = model(signal, torch.zeros(24, dtype=torch.long))["given"]
    assert (scores.argmax(1) == numbers).float().mean() > 0.9
    with pytest.raises(RecipeError, match="given is no label"):
        model.fit(
            1,
            signal,
            lambda rows: {"given": labels[rows] + 0.1},
            torch.zeros(24, dtype=torch.bool),
        )


def fit(signal: Tensor, numbers: Tensor, categories: int, subject: int = 1):
    spec = spec_of(tuple(map(str, range(signal.shape[1]))), signal.shape[2], (7, 1))
    model = Config().build(spec, {"given": Head((categories,))})
    labels = torch.eye(categories)[numbers]
    held_out = torch.zeros(len(signal), dtype=torch.bool)
    model.fit(subject, signal, lambda rows: {"given": labels[rows]}, held_out)
    return model


@pytest.mark.parametrize("categories", [2, 3])
def test_scores_are_scikit_learns_with_a_shrunk_covariance(categories):
    """More features than trials, of different sizes and means."""
    random = np.random.default_rng(0)
    numbers = np.arange(24) % categories
    flat = random.normal(size=(24, 40)) * random.uniform(0.1, 30, 40) + 5
    flat[:, :3] += 4 * numbers[:, None]
    flat[:, 39] = 2.0
    scaler = StandardScaler().fit(flat)
    expected = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    expected.fit(scaler.transform(flat), numbers)
    tested = random.normal(size=(9, 40)) * 10 + 5
    decided = expected.decision_function(scaler.transform(tested))

    signal = torch.from_numpy(flat).float().view(24, 8, 5)
    model = fit(signal, torch.from_numpy(numbers), categories)

    new = torch.from_numpy(tested).float().view(9, 8, 5)
    scores = model(new, torch.ones(9, dtype=torch.long))["given"].numpy()
    if categories == 2:
        scores = scores[:, 1] - scores[:, 0]
    np.testing.assert_allclose(scores, decided, rtol=1e-3, atol=1e-3)
    # the other subject was not fitted
    other = model(new, torch.zeros(9, dtype=torch.long))["given"]
    assert not np.allclose(other[:, 0].detach(), scores.reshape(9, -1)[:, 0])


def test_categories_without_training_trials_never_win():
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(12, 2, 3, generator=generator)
    model = fit(signal, torch.tensor([1, 3, 4] * 4), 6)
    new = 10 * torch.randn(50, 2, 3, generator=generator)
    winners = model(new, torch.ones(50, dtype=torch.long))["given"].argmax(1)
    assert {*winners.tolist()} == {1, 3, 4}


@pytest.mark.parametrize("numbers", [[1, 1, 1, 1], [0, 1, 2, 3]])
def test_one_category_and_one_trial_a_category_are_refused(numbers):
    with pytest.raises(BrainhiveError):
        fit(torch.randn(4, 2, 3), torch.tensor(numbers), 5)
    fit(torch.randn(4, 2, 3), torch.tensor([0, 1, 2, 2]), 5)


def test_a_fit_leaves_its_signals_as_they_are():
    signal = torch.randn(24, 4, 5, dtype=torch.float64) + 3
    before = signal.clone()
    fit(signal, torch.arange(24) % 3, 3)
    assert torch.equal(signal, before)
