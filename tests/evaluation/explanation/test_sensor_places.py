"""Maps of sensors: which have a place on the head, and where."""

import numpy as np
import pytest

from brainhive_cli.core.artifacts import Map, Point
from brainhive_cli.data.published.things_eeg import MONTAGE
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.evaluation.explanation.sensor_space import flattened, place_sensors
from brainhive_cli.reports.drawings import save_figure, svg_of

mne = pytest.importorskip("mne")

HELMET = np.random.default_rng(0).normal(size=(40, 3))
HELMET = 0.11 * np.abs(HELMET) / np.linalg.norm(HELMET, axis=1, keepdims=True) * (1, -1, 1)
MEG = [f"MLO{number}" for number in range(40)]
UNKNOWN = HELMET.copy()
UNKNOWN[5:] = np.nan


@pytest.mark.parametrize(
    ("sensors", "count"),
    (
        (Sensors(MONTAGE), len(MONTAGE)),  # by their names
        (Sensors(MEG, HELMET), 40),  # whose names no montage knows
        (Sensors(MEG, UNKNOWN), 5),
        (Sensors(MEG), 0),
        (Sensors(MEG, np.repeat(HELMET[:20], 2, axis=0)), 0),  # two in each place
    ),
)
def test_sensors_have_a_place_where_it_is_known(sensors, count):
    assert len(place_sensors(sensors)) == count


def test_positions_of_the_recording_are_taken_rather_than_standard_ones():
    names = MONTAGE
    positions = np.array([[(-1) ** n * 0.05, 0.09 - 0.003 * n, 0.05] for n in range(len(names))])
    found = [*place_sensors(Sensors(names, positions)).values()]
    np.testing.assert_array_equal(found, flattened(positions))


def test_standard_positions_are_those_of_mne_s_own_maps():
    info = mne.create_info(list(MONTAGE), 100.0, "eeg", verbose="ERROR").set_montage("standard_1005")
    places = np.array([channel["loc"][:3] for channel in info["chs"]])
    np.testing.assert_array_equal([*place_sensors(Sensors(MONTAGE)).values()], flattened(places))


def test_a_head_map_is_interpolated_where_all_values_are_known_and_dots_elsewhere():
    values = np.linspace(-1, 1, len(MONTAGE))
    flat = place_sensors(Sensors(MONTAGE)).values()
    points = [
        Point(*place, name, value=value) for place, name, value in zip(flat, MONTAGE, values, strict=True)
    ]
    gap = [Point(0, 0, "Cz"), *points[1:]]
    assert "<image" in svg_of(Map("Loss", points, is_diverging=True)).split("</svg>")[0]
    assert svg_of(Map("Loss", gap)).count("<use") >= len(points) - 1


def test_a_figure_is_saved_for_a_paper(tmp_path):
    points = [Point(0, 0.5, "Oz", value=1.0), Point(0.5, 0, "C4", value=-1.0)]
    for suffix, begin in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        save_figure(Map("Loss", points), tmp_path / f"map.{suffix}")
        assert (tmp_path / f"map.{suffix}").read_bytes().startswith(begin)
