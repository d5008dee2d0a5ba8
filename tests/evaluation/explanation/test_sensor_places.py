"""Maps of sensors: which have a place on the head, and where."""

import numpy as np
import pytest

from brainhive_cli.data.published.things_eeg import MONTAGE
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.evaluation.explanation.sensor_space import place_sensors

pytest.importorskip("mne")

HELMET = np.random.default_rng(0).normal(size=(40, 3))
HELMET = 0.11 * np.abs(HELMET) / np.linalg.norm(HELMET, axis=1, keepdims=True) * (1, -1, 1)
MEG = [f"MLO{number}" for number in range(40)]
UNKNOWN = HELMET.copy()
UNKNOWN[5:] = np.nan


def test_sensors_have_a_place_where_it_is_known():
    for sensors, count in (
        (Sensors(MONTAGE), len(MONTAGE)),  # by their names
        (Sensors(MEG, HELMET), 40),  # whose names no montage knows
        (Sensors(MEG, UNKNOWN), 5),
        (Sensors(MEG), 0),
        (Sensors(MEG, np.repeat(HELMET[:20], 2, axis=0)), 0),  # two in each place
    ):
        assert len(place_sensors(sensors)) == count
