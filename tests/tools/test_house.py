"""Sizes of rooms: growth is a decision that a reviewer sees."""

from pathlib import Path

import pytest
import yaml

from tools.house import ROOT, count_tokens

LIMITS_FILE = Path(__file__).with_name("sizes_of_rooms.yaml")
STEP = 500
"""Limits are rounded up to multiples of this number of tokens."""


@pytest.mark.parametrize("folder", ["brainhive_cli", "tests"])
def test_a_room_has_at_most_its_tokens(folder):
    limits = yaml.safe_load(LIMITS_FILE.read_text())[folder]

    sizes = count_tokens(ROOT / folder)

    assert sizes.keys() == limits.keys()
    for room, size in sizes.items():
        limit = limits[room]
        assert size <= limit, (
            f"{folder}/{room} has {size} tokens, {limit} in {LIMITS_FILE.name}: make "
            "it smaller, or raise the limit and say in the commit what the code is for"
        )
        assert limit < size + 2 * STEP, (
            f"{folder}/{room} has only {size} tokens: lower its limit in "
            f"{LIMITS_FILE.name} to {-(-size // STEP) * STEP}"
        )
