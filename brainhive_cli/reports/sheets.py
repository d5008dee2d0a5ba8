"""Sheets of pictures in rows: stimuli with what was retrieved, or generated, for them."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw, ImageFont

PICTURE_PX = 128
GAP_PX = 8
LINE_PX = 13
MARGIN_PX = 16
TITLE_PX = 26
FRAME_PX = 3
FONT_PX = 10
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]
INK, SOFT, PAPER = (30, 30, 30), (90, 90, 90), (255, 255, 255)


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet.

    Attributes:
        picture: Shown as a square.
        lines: Text below it.
        metrics: Its metrics by short name, two in a line below the text.
        frame: Colour of its frame; None for none.
    """

    picture: Image.Image
    lines: Sequence[str] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    frame: Colour | None = None


def draw_rows(title: str, rows: Sequence[Sequence[Tile]]) -> Image.Image:
    """Draw tiles in rows below a title; the first column, of the stimuli, stands apart."""
    tiles = [tile for row in rows for tile in row]
    columns = max(map(len, rows), default=1)
    lines = max((len(tile.lines) + (len(tile.metrics) + 1) // 2 for tile in tiles), default=0)
    step_x, step_y = PICTURE_PX + GAP_PX, PICTURE_PX + lines * LINE_PX + 2 * GAP_PX
    bold = ImageFont.load_default(FONT_PX + 3)
    titles = wrapped(title, bold, max(columns, 4) * step_x)
    width = 2 * MARGIN_PX + GAP_PX + max(columns * step_x, *(int(bold.getlength(line)) for line in titles))
    head = MARGIN_PX + TITLE_PX + (len(titles) - 1) * LINE_PX
    sheet = Image.new("RGB", (width, head + MARGIN_PX + len(rows) * step_y), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(titles):
        pen.text((MARGIN_PX, MARGIN_PX + number * LINE_PX), line, INK, bold)
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            left = MARGIN_PX + x * step_x + (GAP_PX if x else 0)
            _draw(tile, sheet, pen, left, head + y * step_y)
    return sheet


def _draw(tile: Tile, sheet: Image.Image, pen: ImageDraw.ImageDraw, left: int, top: int) -> None:
    font, below = ImageFont.load_default(FONT_PX), top + PICTURE_PX + 3
    if tile.frame is not None:
        outside = PICTURE_PX + FRAME_PX - 1
        box = (left - FRAME_PX, top - FRAME_PX, left + outside, top + outside)
        pen.rectangle(box, outline=tile.frame, width=FRAME_PX)
    square = tile.picture.convert("RGB").resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BICUBIC)
    sheet.paste(square, (left, top))
    for number, line in enumerate(tile.lines):
        pen.text((left, below + number * LINE_PX), fitted(line, font, PICTURE_PX), INK, font)
    below += len(tile.lines) * LINE_PX
    for place, (name, value) in enumerate(tile.metrics.items()):
        is_alone = place % 2 == 0 and place == len(tile.metrics) - 1
        room = PICTURE_PX if is_alone else PICTURE_PX // 2 - GAP_PX // 2
        words = fitted(name, font, room - font.getlength(f" {value:z.2f}"))
        corner = (left + place % 2 * PICTURE_PX // 2, below + place // 2 * LINE_PX)
        pen.text(corner, f"{words} {value:z.2f}", SOFT, font)


def wrapped(text: str, font: Font, width_px: float) -> list[str]:
    """Break a title into lines that fit; a word that is longer than a line is shortened."""
    lines = [""]
    for word in _known(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width_px:
            lines.append(fitted(word, font, width_px))
        else:
            lines[-1] = fitted(longer, font, width_px)
    return lines


def fitted(text: str, font: Font, width_px: float) -> str:
    """Shorten a line until it fits."""
    text = _known(text)
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "…") > width_px:
        text = text[:-1]
    return text + "…"


def _known(text: str) -> str:
    """Spell a text with letters that the font knows, which are few beyond ASCII."""
    plain = unicodedata.normalize("NFKD", text.replace("–", "-"))
    return "".join(letter for letter in plain if not unicodedata.combining(letter))
