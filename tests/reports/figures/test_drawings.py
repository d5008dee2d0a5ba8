"""Figures: names do not overlap, and artifacts without differences are not drawn."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from brainhive_cli.core.runs.artifacts import (
    Curve,
    CurveLine,
    Heatmap,
    Point,
    Sheet,
    Topomap,
)
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.reports.figures import (
    draw_head,
    drawings,
    is_informative,
    place_sensors,
    render_svg,
    save_figure,
)

DPI = 100
LONG = "a name of a model that goes on and on, beyond every width of a figure"
RANDOM = np.random.default_rng(0)


@pytest.fixture
def measure_texts(tmp_path, monkeypatch):
    """Return a function that draws an artifact and measures its texts in pixels."""
    boxes = {}
    draw = Text.draw

    def record(text, renderer):
        if text.get_visible() and text.get_text().strip():
            boxes[text] = text.get_window_extent(renderer)
        draw(text, renderer)

    def measure(artifact):
        save_figure(artifact, tmp_path / "figure.png")
        with Image.open(tmp_path / "figure.png") as png:
            return [(text.get_text(), box) for text, box in boxes.items()], Bbox(
                [(0, 0), png.size]
            )

    monkeypatch.setattr(Text, "draw", record)
    monkeypatch.setattr(drawings, "PNG_DPI", DPI)
    return measure


def make_names(count, letters):
    return [
        f"N{index:02}{'scrambledpix_and_other_things'[: letters - 3]}"
        for index in range(count)
    ]


def make_matrix(rows, columns):
    values = RANDOM.normal(size=(len(rows), len(columns)))
    return Heatmap(
        "Similarity",
        values.tolist(),
        rows,
        columns,
        "signal of",
        "picture",
        "cosine similarity",
    )


def make_head(sensors):
    values = dict(zip(sensors, RANDOM.normal(size=len(sensors)).tolist(), strict=True))
    return draw_head("Loss", place_sensors(Sensors(sensors)), values, "margin")


def make_bars(count, series=1, low=-0.3):
    lines = [
        CurveLine(name, np.linspace(low, 0.00002, count).tolist())
        for name in make_names(series, 20)
    ]
    return Curve(
        LONG, "rank among 200 pictures", make_names(count, 29), lines, LONG, "bars"
    )


def make_lines(x_values, names, **options):
    curve_lines = [
        CurveLine(name, (1e-7 * RANDOM.random(len(x_values))).tolist(), chance=1e-8)
        for name in names
    ]
    return Curve(LONG, LONG, x_values, curve_lines, "top-1", **options)


def list_sensors(name):
    """List the sensors of a montage, without second names of the same position."""
    mne = pytest.importorskip("mne")
    second_names = {"T3", "T4", "T5", "T6", "A1", "A2", "M1", "M2"}
    return [
        name
        for name in mne.channels.make_standard_montage(name).ch_names
        if name not in second_names
    ]


MARKS = {
    "onset": 0.0,
    "50–150 ms: first above chance": 100.0,
    "offset": (450.0, 500.0),
    "late": 900.0,
}
FIGURES = {
    "20 × 20, 12 letters": make_matrix(make_names(20, 12), make_names(20, 12)),
    "channels × times": make_matrix(
        make_names(63, 3), [str(time) for time in range(-200, 1000, 5)]
    ),
    "many bars": make_bars(40, series=3),
    "over time": make_lines(
        list(range(0, 1000, 25)), ["brain", "shuffled labels"], marks=MARKS
    ),
    "long names": make_lines([1, 2], [LONG, LONG.upper()]),
}


@pytest.mark.nightly
@pytest.mark.parametrize("artifact", FIGURES.values(), ids=list(FIGURES))
def test_names_of_a_figure_never_touch_and_never_leave_it(measure_texts, artifact):
    texts, figure = measure_texts(artifact)

    assert not [
        (a, b)
        for (a, box), (b, other_box) in combinations(texts, 2)
        if box.overlaps(other_box)
    ]
    page = figure.padded(1)
    assert not [
        text for text, box in texts if Bbox.union([box, page]).bounds != page.bounds
    ]


@pytest.mark.nightly
def test_sensors_on_a_head_have_names_that_do_not_touch(measure_texts):
    sensors = list_sensors("standard_1005")
    texts, _ = measure_texts(make_head(sensors))

    assert len([text for text, _ in texts if text in sensors]) >= 60
    assert not [
        (a, b)
        for (a, box), (b, other_box) in combinations(texts, 2)
        if box.overlaps(other_box)
    ]


ONE = CurveLine("top-1", [0.5], [0.4], [0.6], chance=0.1)


def test_a_figure_is_drawn_where_its_values_differ():
    for artifact, is_drawn in (
        (Curve("", "", ["all"], [ONE], style="bars"), False),  # a single bar
        (
            Curve(
                "",
                "",
                ["all", "sub-01"],
                [CurveLine("top-1", [0.5, 0.4])],
                style="bars",
            ),
            True,
        ),
        # lines with a single point
        (Curve("", "", [1], [CurveLine("a", [0.5]), CurveLine("b", [0.4])]), False),
        # magnetic fields, in tesla
        (Curve("", "", [1, 2], [CurveLine("a", [1e-12, 2e-12])]), True),
        (Heatmap("", [[0.5, 0.5], [None, 0.5]]), False),
        (Topomap("", [Point(0, 0, value=1.0), Point(0, 1, value=1.0)]), False),
        (Topomap("", [Point(0, 0, value=1.0), Point(0, 1, value=2.0)]), True),
        (Sheet("", ["seen"], []), False),
    ):
        assert is_informative(artifact) == is_drawn
        assert (
            not isinstance(artifact, Curve)
            or ("<svg" in render_svg(artifact)) == is_drawn
        )


def test_a_page_chooses_the_colours_of_a_figure():
    lines = [
        CurveLine("brain", [0.1, 0.5], chance=0.2),
        CurveLine("shuffled labels", [0.2, 0.1]),
    ]
    svg = render_svg(Curve("", "epoch", [1, 2], lines))
    for variable in ("c0", "c7", "ink", "soft", "line"):
        assert f"var(--{variable})" in svg
    assert "#0072b2" not in svg and "#1c1f23" not in svg


def test_a_line_separates_the_cells_at_a_level():
    matrix = Heatmap(
        "", [[0.7, 0.9, 0.9], [0.1, 0.7, 0.8]], row_axis="people", level=0.8
    )
    with drawings.draw_artifact(matrix) as figure:
        collections = list(figure.axes[0].collections)
    lines = []
    for collection in collections:
        lines += [segment.tolist() for segment in collection.get_segments()]
    assert sorted(lines) == [
        [[0.5, -0.5], [0.5, 0.5]],
        [[0.5, 0.5], [1.5, 0.5]],
        [[1.5, 0.5], [1.5, 1.5]],
    ]
