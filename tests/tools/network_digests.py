"""Small numbers that stand for networks and what they compute.

They are computed in double precision, so that the order of additions, and with it the
number of threads, does not change a recorded digit.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def doubles() -> Iterator[None]:
    """Make and compute all tensors of a test in double precision, from one seed."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def digest(value: Any) -> Any:
    """Give a tensor's shape, its mean magnitude, and a mean with a weight for each
    position; of a mapping or a list those of its members.
    """
    if isinstance(value, Mapping):
        return {str(name): digest(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [digest(item) for item in value]
    if not isinstance(value, Tensor):
        return value
    flat = value.detach().double().flatten()
    weights = 1.5 + torch.arange(len(flat), dtype=torch.float64).cos()
    return [*value.shape, flat.abs().mean().item(), (flat * weights).mean().item()]


def parameters(module: nn.Module) -> list[float]:
    """Give the number and the mean magnitude of a network's parameters and buffers."""
    state = [value.double() for value in module.state_dict().values()]
    count = sum(value.numel() for value in state)
    return [count, sum(value.abs().sum().item() for value in state) / max(1, count)]


def disturb(module: nn.Module) -> None:
    """Move all parameters a little, so that none is exactly 0 or 1."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def gradient_norm(outputs: Any, module: nn.Module) -> float:
    """Give the length of the gradient of the sum of squared outputs."""
    values = [*outputs.values()] if isinstance(outputs, Mapping) else [outputs]
    total = sum(value.square().sum() for value in values if value.requires_grad)
    module.zero_grad()
    total.backward()
    gradients = [
        parameter.grad.square().sum().item()
        for parameter in module.parameters()
        if parameter.grad is not None
    ]
    return math.sqrt(sum(gradients))
