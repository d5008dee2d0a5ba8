"""Golden files with the config of their network, and comparisons with them."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the config and the tensors of a golden file."""
    with safe_open(path, "pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
        return config, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def select_prefix(golden: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names have a prefix, without it."""
    tensors = {}
    for name, value in golden.items():
        if name.startswith(prefix):
            tensors[name.removeprefix(prefix)] = value
    return tensors


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Compare shapes, and values relative to the largest.

    The golden folder recommends a tolerance of 1e-4.
    """
    assert actual.shape == expected.shape
    # the largest value may be 0
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()
