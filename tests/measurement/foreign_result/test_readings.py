"""Similarities by usual conventions, and values that are missing."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from brainhive_cli.measurement import foreign_result
from brainhive_cli.measurement.foreign_result import compute_similarities, fill_missing


@pytest.mark.parametrize(
    ("measure", "metric", "sign"),
    [
        (foreign_result.COSINE, "cosine", 1),
        (foreign_result.PEARSON, "correlation", 1),
        (foreign_result.EUCLIDEAN, "euclidean", 0),
    ],
)
def test_similarities_are_those_of_scipy(measure, metric, sign):
    random = np.random.default_rng(0)
    predicted, gallery = random.normal(size=(5, 4)) + 1, random.normal(size=(7, 4))

    similarities = compute_similarities(
        *map(torch.from_numpy, (predicted, gallery)), measure
    )

    expected = sign - cdist(predicted, gallery, metric)
    np.testing.assert_allclose(similarities, expected, atol=1e-12)


def test_products_and_standardised_galleries_are_compared():
    random = np.random.default_rng(0)
    predicted, gallery = random.normal(size=(5, 4)), random.normal(2, 3, size=(7, 4))
    scaled = (gallery - gallery.mean(0)) / gallery.std(0, ddof=1)
    tensors = [torch.from_numpy(values) for values in (predicted, gallery)]

    similarities = [
        compute_similarities(*tensors, name)
        for name in (foreign_result.DOT, foreign_result.STANDARDISED_GALLERY)
    ]

    np.testing.assert_allclose(similarities[0], predicted @ gallery.T)
    np.testing.assert_allclose(similarities[1], 1 - cdist(predicted, scaled, "cosine"))


def test_missing_similarities_rank_below_all_others():
    values = torch.tensor([[0.5, torch.nan], [-0.25, 2.0]])

    filled = fill_missing(values)

    assert filled[0, 1] == pytest.approx(-0.25 - 2.25)
    assert filled[~values.isnan()].tolist() == [0.5, -0.25, 2.0]
    equal = fill_missing(torch.tensor([1.0, torch.nan]))
    assert equal.tolist() == pytest.approx([1.0, 0.999])
    assert fill_missing(torch.full((2, 2), torch.nan)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("largest", [3.0, 0.9])
def test_only_infinities_and_masks_count_as_missing(largest):
    random = np.random.default_rng(0)
    values = torch.from_numpy(random.normal(size=(6, 8)))
    values *= largest / values.abs().max()  # cosines are below 1
    is_masked = torch.from_numpy(random.random((6, 8)) < 0.2)
    for mask in (-1e9, -torch.inf, torch.nan):
        marked_values = foreign_result._mark_missing(
            values.masked_fill(is_masked, mask)
        )
        assert torch.equal(marked_values.isnan(), is_masked)
    # two masks, the second of which lies as far below the values as the first below it
    marked_twice = values.masked_fill(is_masked, -1e9)
    marked_twice[0, 0], is_masked[0, 0] = -1e4, True
    assert torch.equal(foreign_result._mark_missing(marked_twice).isnan(), is_masked)

    # the lowest of few levels, and zeros above values of any size
    near_values = values.masked_fill(is_masked, -90 * float(values.abs().max()))
    logarithms = torch.zeros(6, 8).masked_fill(is_masked, -700.0)
    rare = torch.full((6, 8), -1e9)
    rare[0, :5] = 1.0
    for honest in (near_values, logarithms, rare, values):
        assert torch.equal(foreign_result._mark_missing(honest), honest)
