"""Sheets: the stimulus first, framed; what belongs to it next to it, with its metrics below."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from brainhive_cli.reports.sheets import (
    FRAME_PX,
    GAP_PX,
    INK,
    LINE_PX,
    MARGIN_PX,
    PAPER,
    PICTURE_PX,
    TITLE_PX,
    Tile,
    draw_rows,
    fitted,
    wrapped,
)

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250), (250, 0, 250)]
METRICS = {"pixcorr": 0.5, "a-very-long-name-of-an-encoder": 1.0, "clip": 0.25}


def plain(index: int) -> Image.Image:
    return Image.new("RGB", (8, 8), COLOURS[index])


def corner(sheet: Image.Image, rows: int, row: int, column: int) -> tuple[int, int]:
    height = (sheet.height - 2 * MARGIN_PX - TITLE_PX) // rows
    x = MARGIN_PX + column * (PICTURE_PX + GAP_PX) + (GAP_PX if column else 0)
    return x, MARGIN_PX + TITLE_PX + row * height


def tile(sheet: Image.Image, rows: int, row: int, column: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The frame's colour and the picture's, of one tile."""
    x, y = corner(sheet, rows, row, column)
    return sheet.getpixel((x - FRAME_PX, y)), sheet.getpixel((x + PICTURE_PX // 2, y + PICTURE_PX // 2))


@pytest.fixture
def sheet() -> Image.Image:
    rows = [
        [Tile(plain(0), ["a concept"], frame=INK), Tile(plain(1), metrics=METRICS), Tile(plain(2))],
        [Tile(plain(3), ["another"], frame=INK), Tile(plain(0), metrics=METRICS)],
    ]
    return draw_rows("What was generated", rows)


def test_each_item_has_a_row_of_its_own_pictures_of_which_the_stimulus_is_framed(sheet):
    shown = [tile(sheet, 2, row, column) for row in (0, 1) for column in (0, 1, 2)]

    pictures = [COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[3], COLOURS[0], PAPER]
    assert shown == list(zip([INK, PAPER, PAPER] * 2, pictures, strict=True))


def test_metrics_stand_below_their_picture_and_run_into_no_other(sheet):
    pixels = np.asarray(sheet)
    left, top = corner(sheet, 2, 0, 1)
    below = pixels[top + PICTURE_PX : top + PICTURE_PX + 30]
    assert (below[:, left : left + PICTURE_PX // 2 - GAP_PX // 2] < 200).any()
    assert (below[:, left + PICTURE_PX // 2 : left + PICTURE_PX] < 200).any()
    assert (below[:, left + PICTURE_PX : left + PICTURE_PX + GAP_PX] == 255).all()


def test_a_label_is_shortened_to_its_tile_and_says_so():
    font = ImageFont.load_default(10)
    short = fitted("red_checked_cactus_in_the_sea_of_glass", font, PICTURE_PX)
    assert short.endswith("…") and font.getlength(short) <= PICTURE_PX
    assert fitted("cactus", font, PICTURE_PX) == "cactus"


def test_a_title_stands_above_a_sheet_and_loses_no_word():
    title, rows = "sub-01 (" + "selected on test, " * 12 + "simulated)", [[Tile(plain(0)), Tile(plain(1))]]
    plainly = draw_rows("", rows)

    titled = draw_rows(title, rows)

    font, room = ImageFont.load_default(13), 4 * (PICTURE_PX + GAP_PX)
    lines = wrapped(title, font, room)
    assert " ".join(lines) == title and max(map(font.getlength, lines)) <= room
    below = plainly.height - MARGIN_PX - TITLE_PX
    assert titled.height == plainly.height + (len(lines) - 1) * LINE_PX
    assert np.array_equal(np.asarray(titled)[-below:, : plainly.width], np.asarray(plainly)[-below:])


def test_letters_that_the_font_lacks_are_drawn_without_their_marks():
    titles = ("Bär, 1–2 repeats", "Bar, 1-2 repeats", "B?r, 1?2 repeats")
    marked, plain, unlike = (np.asarray(draw_rows(title, [])) for title in titles)

    assert np.array_equal(marked, plain) and not np.array_equal(plain, unlike)


def test_a_long_title_takes_lines_and_an_empty_sheet_is_a_picture_still():
    long, short = draw_rows("long " * 200, []), draw_rows("short", [])
    assert long.width < 1000 and long.height > short.height
