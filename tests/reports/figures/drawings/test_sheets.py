"""Sheets: rows of pictures with text that does not overlap."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from brainhive_cli.reports.figures.drawings import (
    SHEET_DPI,
    SIDE_INCH,
    DrawnTile,
    save_sheet,
)
from brainhive_cli.reports.tables.tables import describe_sample

RED, BLUE = (
    np.full((count, 8, 8, 3), colour, np.uint8)
    for count, colour in ((6, (200, 0, 0)), (6, (0, 0, 200)))
)
CAPTIONS = [
    "scrambledpix_over_a_shoe",
    "A CASTLE OF MANY WINDOWS AT NIGHT",
    "PixCorr\N{NO-BREAK SPACE}0.50  a-long-name-of-an-encoder\N{NO-BREAK SPACE}1.00",
]


def draw_sheet(tmp_path, rows, title="", **options):
    save_sheet(title, rows, tmp_path / "sheet.png", **options)
    with Image.open(tmp_path / "sheet.png") as png:
        return np.asarray(png.convert("RGB")).astype(int)


def find_corners(sheet, colour):
    """Find the first and the last pixel [row, column] of a colour."""
    positions = np.argwhere(np.abs(sheet - colour).max(2) < 3)
    return positions.min(0), positions.max(0)


def test_each_item_has_a_row_of_its_own_pictures(tmp_path):
    rows = [
        [DrawnTile(RED[0], ["a"]), DrawnTile(BLUE[0])],
        [DrawnTile(BLUE[0] // 2), DrawnTile(RED[0] // 2)],
    ]

    sheet = draw_sheet(tmp_path, rows)

    (red, _), (blue, _) = (
        find_corners(sheet, RED[0, 0, 0]),
        find_corners(sheet, BLUE[0, 0, 0]),
    )
    (dark_blue, _), (dark_red, _) = (
        find_corners(sheet, BLUE[0, 0, 0] // 2),
        find_corners(sheet, RED[0, 0, 0] // 2),
    )
    assert red[0] == blue[0] < dark_blue[0] == dark_red[0]
    assert red[1] == dark_blue[1] < blue[1] == dark_red[1]
    first_corner, last_corner = find_corners(sheet, RED[0, 0, 0])
    assert (
        np.abs(last_corner - first_corner - SIDE_INCH * SHEET_DPI).max() < 4
    )  # a square


@pytest.mark.parametrize(("columns", "width_inch"), [(1, 0), (6, 3.5)])
def test_captions_stay_on_the_sheet_and_do_not_overlap(
    tmp_path, monkeypatch, columns, width_inch
):
    drawn_boxes, draw = {}, Text.draw

    def record(text, renderer):
        if text.get_text():
            drawn_boxes[text] = text.get_window_extent(renderer)
        draw(text, renderer)

    monkeypatch.setattr(Text, "draw", record)
    rows = [[DrawnTile(None, ["heading of a column"]) for _ in range(columns)]]
    rows += [[DrawnTile(RED[0], CAPTIONS) for _ in range(columns)] for _ in range(3)]
    title = (
        "12 of 200 pictures, drawn at random (seed 0); brainhive, of shuffled signals, "
        * 3
    )

    sheet = draw_sheet(tmp_path, rows, title, width_inch=width_inch)

    boxes = list(drawn_boxes.values())
    assert len(boxes) == 1 + 4 * columns
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    union = Bbox.union(boxes)
    assert union.x0 >= 0
    assert union.y0 >= 0
    assert union.x1 <= sheet.shape[1]
    assert union.y1 <= sheet.shape[0]


def test_a_sheet_says_how_many_random_pictures_it_shows():
    assert (
        describe_sample(6, 2_000, "test pictures", 0)
        == "6 of 2,000 test pictures, drawn at random (seed 0)"
    )
    assert describe_sample(6, 6, "clips", 0) == "All 6 clips, in random order"
