"""The parts of these tests lie outside the package, so that they are code that must be
allowed.
"""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def code_allowed() -> Iterator[None]:
    """Let the parts be imported, also where a model folder names them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_ALLOW_CODE", "1")
        yield
