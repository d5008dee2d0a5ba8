"""What every test may ask for."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden tensors and real data that stands beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder `shared` with golden values beside the checkout")
    return SHARED
