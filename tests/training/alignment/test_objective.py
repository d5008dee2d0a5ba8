"""The weighted sum of loss terms, in the precision that small temperatures need."""

from typing import Any

import pytest
import torch

from brainhive_cli.models.losses import LossContext
from brainhive_cli.training.alignment.objective import Objective, Term

TEMPERATURE = 0.004


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        ({"kind": "soft_clip", "temperature": TEMPERATURE}, (500,)),
        ({"kind": "mixco", "temperature": TEMPERATURE}, (500,)),
        ({"kind": "soft_cont", "temperature": TEMPERATURE}, (4, 50)),
        ({"kind": "sobel"}, (4, 16, 16)),
    ],
)
def test_losses_and_their_gradients_are_the_same_where_networks_run_in_bfloat16(
    loss: dict[str, Any], shape: tuple[int, ...]
) -> None:
    random = torch.Generator().manual_seed(0)
    target = torch.randn(1, *shape, generator=random) + torch.randn(32, *shape, generator=random) / 2
    objective = Objective([Term(prediction="head", loss=loss)])
    found = []
    for is_mixed in (False, True):
        noise = 3 * torch.randn(target.shape, generator=random.manual_seed(1))
        predicted = (target + noise).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
            value = objective({"head": predicted}, {"head": target}, LossContext())
        value.backward()
        assert predicted.grad is not None
        found.append(predicted.grad)

    assert (found[1] - found[0]).norm() < 1e-4 * found[0].norm()
