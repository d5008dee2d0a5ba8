"""Golden files that hold the sizes of their networks, and values that should be near to
theirs.
"""

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


def below(golden: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take the tensors whose names begin so, without that."""
    return {
        name.removeprefix(prefix): value
        for name, value in golden.items()
        if name.startswith(prefix)
    }


def assert_near(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Compare shapes, and values by the largest: the golden folder calls 1e-4 safe."""
    assert found.shape == expected.shape
    # which may be 0
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
