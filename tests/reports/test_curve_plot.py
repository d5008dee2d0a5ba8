"""A curve: its points, its band and the line of chance are drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from brainhive_cli.core.measurements import Metric
from brainhive_cli.reports.curve_plot import draw_curve

AT = [1, 2, 4]
POINTS = [
    Metric("top1", value, 10, 10, 0.1, value - 0.05, value + 0.05, (), "cosine", "test", "bootstrap")
    for value in (0.3, 0.5, 0.6)
]


def pixels(path: Path, points: list[Metric], is_logarithmic: bool = False) -> np.ndarray:
    draw_curve(path / "curve.png", AT, {"top-1": points}, "repetitions", "title", is_logarithmic)
    with Image.open(path / "curve.png") as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_a_point_without_an_interval_has_no_band(tmp_path: Path):
    bare = [replace(point, low=None, high=None) for point in POINTS]

    assert not np.array_equal(pixels(tmp_path, bare), pixels(tmp_path, POINTS))


def test_a_curve_is_a_picture_of_its_points_and_of_chance(tmp_path: Path):
    drawn = pixels(tmp_path, POINTS)
    guessed = [replace(point, chance=0.2) for point in POINTS]

    assert drawn.shape == (540, 900, 3)
    blue = (np.abs(drawn - [31, 119, 180]).sum(2) < 30).sum()
    assert blue > 500  # the line, its markers and chance
    assert not np.array_equal(drawn, pixels(tmp_path, guessed))
    assert not np.array_equal(drawn, pixels(tmp_path, POINTS, is_logarithmic=True))


def test_a_long_title_is_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawn.append(figure))

    draw_curve(tmp_path / "curve.png", AT, {"top-1": POINTS}, "repetitions", "selected on test, " * 12)

    (figure,) = drawn
    box = figure.axes[0].title.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width
