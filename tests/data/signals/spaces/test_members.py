"""Sensors and voxels, of which a reader asks the same."""

import numpy as np
import pytest

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.data.signals.spaces import Sensors, Voxels

SENSORS = Sensors(["Cz", "Oz"])
VOXELS = Voxels({"V1": np.array([True, False])}, {"ncsnr": np.ones(2)})


def list_members(space):
    """List the public attributes and methods of a space."""
    return {name for name in dir(space) if not name.startswith("_")}


def test_sensors_and_voxels_have_the_same_members():
    assert list_members(SENSORS) == list_members(VOXELS)


def test_a_space_names_its_size_and_its_rows():
    assert SENSORS.describe_size(1200) == "1,200 channels"
    assert VOXELS.describe_size(1200) == "1,200 voxels, 1 regions"
    assert SENSORS.name_row(1, 7) == "channel Oz"
    # voxels are counted as in the recording
    assert VOXELS.name_row(1, 7) == "voxel 7"


def test_rows_are_found_by_channel_or_region():
    assert SENSORS.find_rows(["occipital", "Cz"]).tolist() == [1, 0]
    assert VOXELS.find_rows(["v1"]).tolist() == [0]
    empty = VOXELS.add_regions({"V2": np.zeros(2, bool)})
    with pytest.raises(RecipeError, match="no voxel lies in V2") as caught:
        empty.find_rows(["V2"])
    assert "V1" in caught.value.hint


def test_only_voxels_take_regions_and_maps():
    mask = {"V2": np.array([False, True])}
    assert list(VOXELS.add_regions(mask).regions) == ["V1", "V2"]
    assert list(VOXELS.replace_maps({"tsnr": np.ones(2)}).maps) == ["tsnr"]
    assert SENSORS.add_regions(mask) is SENSORS.replace_maps({}) is SENSORS


def test_sensors_without_positions_lie_at_standard_positions():
    assert np.isfinite(SENSORS.locate()).all()
    own_zeros = np.zeros((2, 3))
    assert Sensors(SENSORS.names, own_zeros).locate() is own_zeros
    assert VOXELS.locate().shape == (0, 3)
