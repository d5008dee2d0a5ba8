"""Folders outside the project, with recordings, weights and golden values for tests."""

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SHARED = Path(
    os.environ.get("BRAINHIVE_SHARED") or CHECKOUT.parent / "shared"
).absolute()
"""Folder of recordings, pictures and weights, by default beside the project."""
GOLDEN = Path(os.environ.get("BRAINHIVE_GOLDEN") or SHARED / "golden").absolute()
"""Folder of values of reference implementations."""
