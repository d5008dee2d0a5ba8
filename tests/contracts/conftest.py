"""Permission to import parts, which lie outside the package in these tests."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def code_allowed():
    """Allow the parts to be imported, also if a model folder names them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_ALLOW_CODE", "1")
        yield
