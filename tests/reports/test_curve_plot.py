"""A curve: its points, its band and the line of chance are drawn."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from brainhive_cli.reports.curve_plot import draw_curve

POINTS = [
    {"at": at, "top1": {"value": value, "low": value - 0.05, "high": value + 0.05, "chance": 0.1}}
    for at, value in ((1, 0.3), (2, 0.5), (4, 0.6))
]


def pixels(path: Path, points: list[dict], doubling: bool = False) -> np.ndarray:
    draw_curve(path / "curve.png", points, {"top1": "top-1"}, "repetitions", "title", doubling)
    with Image.open(path / "curve.png") as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_a_point_without_an_interval_has_no_band(tmp_path: Path):
    bare = [{"at": p["at"], "top1": {**p["top1"], "low": None, "high": None}} for p in POINTS]

    assert not np.array_equal(pixels(tmp_path, bare), pixels(tmp_path, POINTS))


def test_a_curve_is_a_picture_of_its_points_and_of_chance(tmp_path: Path):
    drawn = pixels(tmp_path, POINTS)
    guessed = [{"at": p["at"], "top1": {**p["top1"], "chance": 0.2}} for p in POINTS]

    assert drawn.shape == (540, 900, 3)
    blue = (np.abs(drawn - [31, 119, 180]).sum(2) < 30).sum()
    assert blue > 500  # the line, its markers and chance
    assert not np.array_equal(drawn, pixels(tmp_path, guessed))
    assert not np.array_equal(drawn, pixels(tmp_path, POINTS, doubling=True))


def test_a_long_title_is_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawn.append(figure))

    draw_curve(tmp_path / "curve.png", POINTS, {"top1": "top-1"}, "repetitions", "selected on test, " * 12)

    (figure,) = drawn
    box = figure.axes[0].title.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width
