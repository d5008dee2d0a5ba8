"""Ranks of a result of another project, compared with SciPy."""

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from brainhive_cli.measurement.foreign_result import ForeignResult


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_ties_are_within_a_share_of_the_largest_similarity(scale):
    random = np.random.default_rng(0)
    levels = random.integers(-10, 11, (30, 20)) / 10
    levels[0, 0] = 1.0
    noise = random.uniform(-1e-4, 1e-4, levels.shape)
    similarities = torch.from_numpy(scale * (levels + noise))
    targets = torch.from_numpy(random.integers(0, 20, (30, 1)))
    result = ForeignResult(similarities, targets, [""] * 30)

    # levels differ by .1, and ties by .0002 at most
    for tolerance, method in ((1e-3, "max"), (-1e-3, "min")):
        expected = rankdata(-levels, method, axis=1)[np.arange(30), targets[:, 0]]
        assert result.rank_with_ties(tolerance).tolist() == expected.tolist()
