"""Partners and shares of mixed signals."""

import pytest
import torch

from brainhive_cli.core.base.seeds import draw_convex_weights
from brainhive_cli.models.losses import Mixing

MANY = 20_000


def generator():
    return torch.Generator().manual_seed(0)


def test_partners_are_permuted_and_shares_are_beta_distributed():
    for alpha in (0.15, 1.0, 4.0):
        mixing = Mixing.draw(MANY, alpha, generator())

        assert torch.equal(mixing.partner.sort().values, torch.arange(MANY))
        assert mixing.share.mean().item() == pytest.approx(0.5, abs=0.02)
        # Beta(a, a)
        assert mixing.share.var().item() == pytest.approx(
            1 / (4 * (2 * alpha + 1)), rel=0.05
        )
    shares = Mixing.draw(MANY, 4.0, generator(), 0.3).share
    assert (shares < 1).float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_weights_range_from_one_hot_to_equal_and_skip_absences():
    """The largest of three uniform weights is (1 + 1/2 + 1/3) / 3 = 11/18 on
    average.
    """
    for alpha, largest in ((1e-3, 1.0), (1.0, 11 / 18), (1e4, 1 / 3)):
        weights = draw_convex_weights(
            torch.ones(MANY, 3, dtype=torch.bool), alpha, generator()
        )

        assert torch.allclose(weights.sum(1), torch.ones(MANY))
        assert weights.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)
        assert weights.amax(1).mean().item() == pytest.approx(largest, abs=0.02)

    is_there = torch.tensor([[True, False, False], [True, False, True]]).repeat(100, 1)

    weights = draw_convex_weights(is_there, 1.0, generator())

    assert (weights[~is_there] == 0).all()
    assert (weights[is_there] > 0).all()
    assert torch.allclose(weights.sum(1), torch.ones(200))
    assert (weights[::2, 0] == 1).all()
