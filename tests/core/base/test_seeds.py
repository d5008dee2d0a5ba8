"""Random numbers that depend on seeds and on nothing else."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from brainhive_cli.core.base.seeds import (
    derive_seed,
    draw_convex_weights,
    seed_torch,
    shuffle_range,
)


def test_a_derived_seed_depends_on_each_seed_and_their_order():
    seeds = [derive_seed(*parts) for parts in product(range(3), repeat=3)]
    assert len(set(seeds)) == 27
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert seeds == [derive_seed(*parts) for parts in product(range(3), repeat=3)]
    assert max(seeds) > 2**60


def test_an_order_is_that_of_numpys_older_generator():
    for seed in (0, 5):
        expected = list(range(50))
        np.random.RandomState(seed).shuffle(expected)
        assert shuffle_range(50, seed).tolist() == expected
    assert shuffle_range(50, 0).tolist() != shuffle_range(50, 1).tolist()


def test_torch_draws_the_same_after_the_same_seed():
    draws = []
    for seed in (3, 3, 4):
        seed_torch(seed, torch.device("cpu"))
        draws.append(torch.rand(3).tolist())
    assert draws[0] == draws[1] != draws[2]
    torch.manual_seed(3)
    assert torch.rand(3).tolist() == draws[0]


@pytest.mark.parametrize("alpha", [0.1, 1.0, 5.0])
def test_convex_weights_are_of_a_dirichlet_distribution(alpha):
    is_there = torch.ones(4000, 4, dtype=torch.bool)
    is_there[:, 1] = False
    generator = torch.Generator().manual_seed(0)

    weights = draw_convex_weights(is_there, alpha, generator)

    torch.testing.assert_close(weights.sum(1), torch.ones(4000))
    assert (weights[:, 1] == 0).all()
    # each weight of three is of a beta distribution
    for column in (0, 2, 3):
        double = weights[:, column].double().numpy()
        expected = stats.beta(alpha, 2 * alpha)
        assert stats.kstest(double, expected.cdf).pvalue > 1e-3
