"""Seeds: mixed, and given to torch."""

import torch

from brainhive_cli.core.seeds import seed_torch


def test_torch_draws_by_the_seed_what_it_draws_by_its_own_function() -> None:
    torch.manual_seed(2**63 + 5)
    expected = torch.randn(3)

    seed_torch(2**63 + 5, torch.device("cpu"))

    assert torch.equal(torch.randn(3), expected)
