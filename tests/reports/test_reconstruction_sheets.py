"""Sheets of reconstructions: the stimulus first, framed; what was drawn beside it; metrics under each."""

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.reports.reconstruction_sheets import (
    GAP_PX,
    MARGIN_PX,
    PAPER,
    PICTURE_PX,
    SEEN,
    TITLE_PX,
    Row,
    reconstruction_sheet,
)

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]
METRICS = {"pixcorr": 0.5, "two_way_a-very-long-name-of-an-encoder": 1.0, "clip": 0.25}


def plain(index: int) -> Image.Image:
    return Image.new("RGB", (8, 8), COLOURS[index])


def corner(row_height: int, row: int, column: int) -> tuple[int, int]:
    x = MARGIN_PX + column * (PICTURE_PX + GAP_PX) + (GAP_PX if column else 0)
    return x, MARGIN_PX + TITLE_PX + row * row_height


@pytest.fixture
def sheet() -> Image.Image:
    rows = [
        Row(["a concept"], plain(0), [(plain(1), METRICS), (plain(2), METRICS)]),
        Row(["another"], plain(3), [(plain(0), METRICS)]),
    ]
    return reconstruction_sheet("What was drawn", rows)


def test_each_item_has_a_row_of_its_own_pictures(sheet):
    height = (sheet.height - 2 * MARGIN_PX - TITLE_PX) // 2
    middles = {
        (row, column): sheet.getpixel(tuple(c + PICTURE_PX // 2 for c in corner(height, row, column)))
        for row in (0, 1)
        for column in (0, 1, 2)
    }
    wanted = [COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[3], COLOURS[0], PAPER]
    assert list(middles.values()) == wanted


def test_only_the_stimulus_is_framed(sheet):
    (x, y), (other, _) = corner(0, 0, 0), corner(0, 0, 1)
    assert sheet.getpixel((x - 3, y + 10)) == SEEN
    assert sheet.getpixel((other - 3, y + 10)) == PAPER


def test_metrics_stand_under_their_picture_and_run_into_no_other(sheet):
    pixels = np.asarray(sheet)
    left, top = corner(0, 0, 1)
    below = pixels[top + PICTURE_PX : top + PICTURE_PX + 30]
    assert (below[:, left : left + PICTURE_PX // 2 - GAP_PX // 2] < 200).any()
    assert (below[:, left + PICTURE_PX // 2 : left + PICTURE_PX] < 200).any()
    assert (below[:, left + PICTURE_PX : left + PICTURE_PX + GAP_PX] == 255).all()


def test_letters_that_the_font_lacks_are_drawn_without_their_marks():
    titles = ("Bär, 1–2 repeats", "Bar, 1-2 repeats", "B?r, 1?2 repeats")
    marked, plain, unlike = (np.asarray(reconstruction_sheet(title, [])) for title in titles)

    assert np.array_equal(marked, plain) and not np.array_equal(plain, unlike)


def test_a_long_title_takes_lines_and_an_empty_sheet_is_a_picture_still():
    long, short = reconstruction_sheet("long " * 200, []), reconstruction_sheet("short", [])
    assert long.width < 1000 and long.height > short.height
