"""Sheets: what was seen stands first, what is right is framed in its colour."""

import numpy as np
from PIL import Image, ImageFont

from brainhive_cli.reports.sheets import (
    GAP_PX,
    INK,
    LABEL_PX,
    RIGHT,
    TILE_PX,
    WRONG,
    contact_sheet,
    fitted,
    top_k_sheet,
    wrapped,
)

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250), (250, 0, 250)]


def tile(sheet: Image.Image, row: int, column: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The frame's colour and the picture's, of one tile."""
    x = GAP_PX + column * (TILE_PX + GAP_PX) + (GAP_PX if column else 0)
    y = GAP_PX + row * (TILE_PX + LABEL_PX + GAP_PX)
    return sheet.getpixel((x, y)), sheet.getpixel((x + TILE_PX // 2, y + TILE_PX // 2))


def plain(row: int) -> Image.Image:
    return Image.new("RGB", (8, 8), COLOURS[row])


def test_a_top_k_sheet_shows_the_seen_picture_then_the_best_with_the_right_one_framed():
    scores = np.array([[0.1, 0.9, 0.5, 0.3, 0.2, 0.0], [0.9, 0.1, 0.2, 0.3, 0.4, 0.5]], np.float32)

    sheet = top_k_sheet(plain, scores, np.array([2, 1]), k=3)

    assert tile(sheet, 0, 0) == (INK, COLOURS[2])
    assert [tile(sheet, 0, column) for column in (1, 2, 3)] == [
        (WRONG, COLOURS[1]),
        (RIGHT, COLOURS[2]),
        (WRONG, COLOURS[3]),
    ]
    assert [tile(sheet, 1, column)[1] for column in (1, 2, 3)] == [COLOURS[0], COLOURS[5], COLOURS[4]]
    assert RIGHT not in [tile(sheet, 1, column)[0] for column in (1, 2, 3)]  # it ranks last


def test_a_tie_ranks_against_the_model():
    def seen(scores: list[float]) -> Image.Image:
        sheet = top_k_sheet(plain, np.array([scores], np.float32), np.array([0]), k=1)
        return sheet.crop((GAP_PX, GAP_PX, GAP_PX + TILE_PX, GAP_PX + TILE_PX + LABEL_PX))

    tied, second, first = seen([0.5, 0.5]), seen([0.4, 0.5]), seen([0.6, 0.5])

    assert tied.tobytes() == second.tobytes() != first.tobytes()


def test_a_contact_sheet_shows_each_stimulus_beside_its_own_reconstructions():
    sheet = contact_sheet([plain(0), plain(1)], [[plain(2), plain(3)], [plain(4), plain(5)]], ["one", "two"])

    assert [tile(sheet, 0, column)[1] for column in range(3)] == [COLOURS[0], COLOURS[2], COLOURS[3]]
    assert [tile(sheet, 1, column)[1] for column in range(3)] == [COLOURS[1], COLOURS[4], COLOURS[5]]


def test_an_empty_sheet_is_a_picture_still():
    assert contact_sheet([], [], []).size[0] > 0


def test_a_label_is_shortened_to_its_tile_and_says_so():
    font = ImageFont.load_default(10)
    short = fitted("red_checked_cactus_in_the_sea", font, TILE_PX)
    assert short.endswith("…") and font.getlength(short) <= TILE_PX
    assert fitted("cactus", font, TILE_PX) == "cactus"


def test_a_title_stands_above_a_sheet_and_loses_no_word():
    scores, title = np.array([[0.9, 0.1]], np.float32), "sub-01 (" + "selected on test, " * 12 + "simulated)"
    plainly = top_k_sheet(plain, scores, np.array([0]), k=1)

    titled = top_k_sheet(plain, scores, np.array([0]), k=1, title=title)

    font, room = ImageFont.load_default(12), plainly.width - 2 * GAP_PX
    lines = wrapped(title, font, room)
    assert " ".join(lines) == title and max(map(font.getlength, lines)) <= room
    assert titled.height == plainly.height + len(lines) * LABEL_PX + GAP_PX
    assert np.array_equal(np.asarray(titled)[-plainly.height :], np.asarray(plainly))
