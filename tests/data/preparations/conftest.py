"""Folders of recordings and pictures."""

import pytest

from tests.worlds.own_recordings import write_pictures


@pytest.fixture
def folder(home):
    """The usual folder of recordings, beside the pictures that they show."""
    write_pictures(home / "data/image-folder")
    (home / "data/recordings").mkdir()
    return home / "data/recordings"
