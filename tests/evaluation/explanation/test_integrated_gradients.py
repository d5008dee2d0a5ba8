"""Integrated gradients are complete, exact for polynomials, and captum's."""

import pytest
import torch
from torch import nn

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.evaluation.explanation.model_profiles import mean_gradient


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 1), nn.Flatten(0)).double()


@pytest.fixture
def ends():
    random = torch.Generator().manual_seed(1)
    return [torch.randn(3, 4, 3, generator=random, dtype=torch.float64) for _ in range(2)]


def test_attributions_sum_to_the_difference_of_the_outputs(ends):
    model = network()
    shares = (mean_gradient(model, *ends, points=50) * (ends[0] - ends[1])).sum((1, 2))
    torch.testing.assert_close(shares, (model(ends[0]) - model(ends[1])).detach(), atol=1e-9, rtol=0)


def test_the_quadrature_is_exact_for_a_polynomial(ends):
    """The integral of 3 x² from b to a is a³ - b³."""
    gradient = mean_gradient(lambda x: x.pow(3).sum((1, 2)), *ends, points=2)
    torch.testing.assert_close(gradient * (ends[0] - ends[1]), ends[0].pow(3) - ends[1].pow(3))


def test_they_are_captums(ends):
    captum = pytest.importorskip("captum.attr")
    model = network()
    expected = captum.IntegratedGradients(model).attribute(*ends, n_steps=50)
    found = mean_gradient(model, *ends, points=50) * (ends[0] - ends[1])
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)  # whose weights are float32


def test_what_has_no_gradient_is_one_line(ends):
    with pytest.raises(BrainhiveError, match="has no gradient"):
        mean_gradient(lambda x: torch.ones(len(x)), *ends, points=50)
