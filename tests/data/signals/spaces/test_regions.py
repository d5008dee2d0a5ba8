"""Regions of the head by channel name."""

import numpy as np
import pytest

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.data.published.things_eeg import MONTAGE, POSTERIOR
from brainhive_cli.data.signals.spaces import (
    REGIONS,
    find_channel_region,
    find_channel_rows,
    look_up_positions,
    standardise_name,
    standardise_names,
)


def test_a_channel_lies_where_the_10_10_system_says():
    channels = ("AFz", "FT9", "FCz", "CP5", "TP10", "p7", "POz", "MEG001", "HEOG")
    regions = [
        "frontal",
        "temporal",
        "central",
        "central",
        "temporal",
        "parietal",
        "occipital",
        None,
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


def test_electrodes_have_the_names_of_the_10_10_system():
    names = {"EEG Fp1-REF": "Fp1", "fc5.": "FC5", "T3": "T7", "T5": "P7", "X9": "X9"}
    for written_name, name in names.items():
        assert standardise_name(written_name) == name
    # both names of an electrode are kept if both are there
    assert standardise_names(["T3", "T7", "fz"]) == ["T3", "T7", "Fz"]


def test_positions_are_known_if_all_channels_are_electrodes():
    # metres to the right, to the front and up: ear lobes, and C3 at the top left
    expected = [
        [-0.087941, 0.0026014, -0.026865],
        [0.083928, 0.0019678, -0.026908],
        [-0.067149, 0.023358, 0.10451],
    ]
    positions = look_up_positions(("A1", "A2", "C3"))
    np.testing.assert_allclose(positions, expected, rtol=1e-4)
    assert np.isnan(look_up_positions(("A3", "C3"))).all()
