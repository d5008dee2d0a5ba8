"""Figures of recordings: whose scalp maps are drawn, and where on the head."""

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.data.stores.recordings import Sensors
from brainhive_cli.data.things_files import THINGS_EEG
from brainhive_cli.reports.paper_figures import MIXTURES, draw_evoked

pytest.importorskip("matplotlib")
mne = pytest.importorskip("mne")

HELMET = np.random.default_rng(0).normal(size=(40, 3))
HELMET = 0.11 * np.abs(HELMET) / np.linalg.norm(HELMET, axis=1, keepdims=True) * (1, -1, 1)
MEG = [f"MLO{number}" for number in range(40)]
UNKNOWN = HELMET.copy()
UNKNOWN[5:] = np.nan


def draw(path, sensors, unit="fT"):
    """Draw a response of the first channel alone; returns the picture, and whether there are maps."""
    evoked = np.zeros((len(sensors.names), 50))
    evoked[0] = np.sin(np.linspace(0, 9, 50))
    has_maps = draw_evoked(path, evoked, np.arange(50) / 100, sensors, unit, "what")
    return np.asarray(Image.open(path).convert("RGB"), int), has_maps


def shaded(picture):
    """Say whether the upper third, where maps are, has colours."""
    upper = picture[: len(picture) // 3]
    return (upper.max(2) - upper.min(2) > 60).mean() > 0.002


@pytest.mark.parametrize(
    ("sensors", "unit", "expected"),
    (
        (Sensors(THINGS_EEG), "µV", True),  # by their names
        (Sensors(MEG, HELMET), "fT", True),  # whose names no montage knows
        (Sensors(MEG, UNKNOWN), "fT", True),  # of five channels
        (Sensors(MEG), "fT", False),
        (Sensors(MEG, np.repeat(HELMET[:20], 2, axis=0)), "fT/cm", False),  # two in each place
        (Sensors(THINGS_EEG), MIXTURES, False),
    ),
)
def test_maps_are_drawn_where_channels_have_places(tmp_path, sensors, unit, expected):
    picture, has_maps = draw(tmp_path / "evoked.png", sensors, unit)
    assert has_maps == shaded(picture) == expected


def test_positions_of_the_recording_are_taken_rather_than_standard_ones(tmp_path):
    names = THINGS_EEG
    mirrored = Sensors(
        names, np.array([[(-1) ** n * 0.05, 0.09 - 0.003 * n, 0.05] for n in range(len(names))])
    )
    standard, own = (draw(tmp_path / "evoked.png", each)[0] for each in (Sensors(names), mirrored))
    assert (standard != own).any(2).mean() > 0.02


def test_standard_positions_are_those_of_mne_s_own_maps(tmp_path):
    info = mne.create_info(list(THINGS_EEG), 100.0, "eeg", verbose="ERROR").set_montage("standard_1005")
    places = np.array([channel["loc"][:3] for channel in info["chs"]])
    by_name, by_place = (
        draw(tmp_path / "evoked.png", sensors)[0]
        for sensors in (Sensors(THINGS_EEG), Sensors(THINGS_EEG, places))
    )
    np.testing.assert_array_equal(by_name, by_place)
