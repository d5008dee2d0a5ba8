"""Evoked responses as butterfly plots with topographies."""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.core.runs.artifacts import Evoked, Point, Topomap
from brainhive_cli.data.signals import WHITENED_UNIT, Sensors, Trials, look_up_positions
from brainhive_cli.reports.figures.drawings import render_svg, save_figure
from brainhive_cli.reports.figures.evoked_responses import (
    MIXTURES,
    UNWHITENED,
    find_power_peaks,
)
from brainhive_cli.reports.pages.signal_page import _draw_sensors

CHANNELS = "Fz C3 Cz C4 Pz O1 Oz O2".split()
TIMES_MS = np.arange(-100, 500, 10.0)
HEADBAND = "TP9 AF7 AF8 TP10".split()


def make_evoked(channels, has_positions=True):
    values = np.random.default_rng(0).normal(size=(len(channels), len(TIMES_MS)))
    positions = look_up_positions(channels).tolist() if has_positions else ()
    return Evoked(
        "Evoked response",
        TIMES_MS.tolist(),
        channels,
        values.tolist(),
        positions,
        "fT/cm",
        [100.0, 170.0, 300.0],
        {"stimulus": (0.0, 100.0)},
    )


def make_trials(unit, channels=CHANNELS, **fields):
    signal = np.random.default_rng(0).normal(size=(4, 2, len(channels), len(TIMES_MS)))
    fields = {"provenance": {"sessions": [{"recorded_unit": "fT"}]}} | fields
    return Trials.from_repetitions(
        signal.astype(np.float32),
        list("abcd"),
        Sensors(channels),
        TIMES_MS / 1000,
        100.0,
        unit,
        **fields,
    )


@pytest.mark.parametrize("channels", (CHANNELS, HEADBAND))
def test_topographies_stand_above_the_butterfly(channels, tmp_path):
    evoked = make_evoked(channels)
    svg = render_svg(evoked)
    for text in ("100 ms", "170 ms", "300 ms", "fT/cm", "GFP"):
        assert text in svg
    assert "#000000" not in svg.split("GFP")[1].split("</text>")[0]
    assert svg == render_svg(evoked)
    save_figure(evoked, tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").stat().st_size > 1000


def test_sensors_on_a_circle_are_drawn_unless_they_have_no_value():
    corners = [(0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5)]
    points = [Point(x, y, f"E{x:g}{y:g}", x - y) for x, y in corners]
    svg = render_svg(Topomap("margin", points + [Point(0.0, 0.0, "Cz")]))
    assert all(f">{point.name}<" in svg for point in points)
    assert ">Cz<" not in svg


@pytest.mark.parametrize(
    "evoked",
    (
        make_evoked(CHANNELS, has_positions=False),
        replace(make_evoked(CHANNELS), topography_ms=()),
    ),
)
def test_topographies_need_positions_and_times(evoked):
    svg = render_svg(evoked)
    assert "fT/cm" in svg
    assert "170 ms" not in svg


def test_each_channel_has_a_value_at_each_time():
    with pytest.raises(ValueError, match="8 channels"):
        replace(make_evoked(CHANNELS), values=[[1.0]] * 8)


def test_topographies_are_at_the_three_largest_peaks_after_onset():
    heights = {-50: 9.0, 60: 1.0, 150: 4.0, 250: 3.0, 400: 2.0}
    power = np.zeros(len(TIMES_MS))
    for time_ms, height in heights.items():
        power += height * np.exp(-(((TIMES_MS - time_ms) / 20) ** 2))
    assert TIMES_MS[find_power_peaks(power, TIMES_MS)].tolist() == [150, 250, 400]
    assert find_power_peaks(np.arange(60.0), TIMES_MS) == [59]


@pytest.mark.parametrize(
    ("trials", "unit", "has_heads"),
    (
        (make_trials("uV"), "µV", True),
        (
            make_trials(WHITENED_UNIT, whiteners=np.eye(8, dtype=np.float32)[None]),
            f"fT, {UNWHITENED}",
            True,
        ),
        (make_trials(WHITENED_UNIT), MIXTURES, False),
        (make_trials("µV", list("abcdefgh")), "µV", False),
    ),
)
def test_the_unit_is_of_the_recording_and_mixtures_have_no_heads(
    trials, unit, has_heads
):
    evoked_response = trials.signal.mean(0).astype(float)
    figures, numbers = _draw_sensors(evoked_response, evoked_response, trials)
    (evoked,) = [figure for figure in figures if isinstance(figure, Evoked)]
    assert evoked.value == unit == numbers["unit of the evoked response"]
    assert bool(evoked.positions) == has_heads
    assert len(evoked.channels) == len(trials.space.names)
