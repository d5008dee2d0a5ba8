"""Digests of networks and their outputs, in a few numbers.

Double precision keeps the recorded digits independent of the number of threads.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def doubles() -> Iterator[None]:
    """Run a test in double precision, with a fixed seed."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def digest(value: Any) -> Any:
    """Return the shape, mean magnitude and weighted mean of each tensor in a value."""
    if isinstance(value, Mapping):
        return {str(name): digest(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [digest(item) for item in value]
    if not isinstance(value, Tensor):
        return value
    flat = value.detach().double().flatten()
    weights = 1.5 + torch.arange(len(flat), dtype=torch.float64).cos()
    return list(value.shape) + [
        flat.abs().mean().item(),
        (flat * weights).mean().item(),
    ]


def parameters(module: nn.Module) -> list[float]:
    """Return the number and mean magnitude of a network's parameters and buffers."""
    state = [value.double() for value in module.state_dict().values()]
    count = sum(value.numel() for value in state)
    return [count, sum(value.abs().sum().item() for value in state) / max(1, count)]


def disturb(module: nn.Module) -> None:
    """Add noise to all parameters, so that none is exactly 0 or 1."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def gradient_norm(outputs: Any, module: nn.Module) -> float:
    """Return the norm of the gradient of the sum of squared outputs."""
    values = list(outputs.values()) if isinstance(outputs, Mapping) else [outputs]
    total = sum(value.square().sum() for value in values if value.requires_grad)
    module.zero_grad()
    total.backward()
    squares = []
    for parameter in module.parameters():
        if parameter.grad is not None:
            squares.append(parameter.grad.square().sum().item())
    return math.sqrt(sum(squares))
