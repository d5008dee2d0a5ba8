"""Regions of the head by channel name."""

import pytest

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.data.published.things_eeg import MONTAGE, POSTERIOR
from brainhive_cli.data.signals.spaces import (
    REGIONS,
    find_channel_region,
    find_channel_rows,
)


def test_a_channel_lies_where_the_10_10_system_says():
    channels = ("AFz", "FT9", "FCz", "CP5", "TP10", "p7", "POz", "MEG001")
    regions = [
        "frontal",
        "temporal",
        "central",
        "central",
        "temporal",
        "parietal",
        "occipital",
        None,
    ]
    assert [find_channel_region(channel) for channel in channels] == regions


def test_channels_of_things_eeg_have_plausible_positions():
    assert {find_channel_region(channel) for channel in MONTAGE} == set(REGIONS)
    rows = find_channel_rows(MONTAGE, ["parietal", "Occipital"])
    assert {MONTAGE[row] for row in rows} == set(POSTERIOR)


def test_regions_and_names_mix_and_each_channel_comes_once():
    channels = ("Cz", "O1", "P7", "O2")
    assert find_channel_rows(channels, ["O2", "occipital", "cz"]).tolist() == [3, 1, 0]


def test_empty_and_misspelt_regions_are_refused():
    with pytest.raises(RecipeError, match="temporal"):
        find_channel_rows(("Oz", "O1"), ["temporal"])
    with pytest.raises(RecipeError) as caught:
        find_channel_rows(("Oz", "O1"), ["ocipital"])
    assert "occipital?" in caught.value.hint
