"""Sheets of pictures, and of frames of clips: stimuli with what was retrieved, or generated, for them."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from brainhive_cli.core.arrays import Bool, UInt8

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
    """Picture of a sheet, with its text and frame.

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
    # size of the sheet: every row has room for the longest text
    tiles = [tile for row in rows for tile in row]
    columns = max(map(len, rows), default=1)
    lines = max((len(tile.lines) + (len(tile.metrics) + 1) // 2 for tile in tiles), default=0)
    step_x, step_y = PICTURE_PX + GAP_PX, PICTURE_PX + lines * LINE_PX + 2 * GAP_PX
    bold = ImageFont.load_default(FONT_PX + 3)
    titles = wrapped(title, bold, max(columns, 4) * step_x)
    width = 2 * MARGIN_PX + GAP_PX + max(columns * step_x, *(int(bold.getlength(line)) for line in titles))
    head = MARGIN_PX + TITLE_PX + (len(titles) - 1) * LINE_PX

    # draw the title, then the rows below it
    sheet, pen = _new_sheet(width, head + MARGIN_PX + len(rows) * step_y, titles, bold)
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            left = MARGIN_PX + x * step_x + (GAP_PX if x else 0)
            _draw_tile(tile, sheet, pen, left, head + y * step_y)
    return sheet


def _new_sheet(
    width: int, height: int, titles: Sequence[str], font: Font
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Make a sheet with its title, and the pen that draws on it."""
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(titles):
        pen.text((MARGIN_PX, MARGIN_PX + number * LINE_PX), line, INK, font)
    return sheet, pen


def _draw_tile(tile: Tile, sheet: Image.Image, pen: ImageDraw.ImageDraw, left: int, top: int) -> None:
    # the picture, with its frame around it
    font, below = ImageFont.load_default(FONT_PX), top + PICTURE_PX + 3
    if tile.frame is not None:
        outside = PICTURE_PX + FRAME_PX - 1
        box = (left - FRAME_PX, top - FRAME_PX, left + outside, top + outside)
        pen.rectangle(box, outline=tile.frame, width=FRAME_PX)
    square = tile.picture.convert("RGB").resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BICUBIC)
    sheet.paste(square, (left, top))

    # its text, then its metrics, two in a line
    for number, line in enumerate(tile.lines):
        pen.text((left, below + number * LINE_PX), fitted(line, font, PICTURE_PX), INK, font)
    below += len(tile.lines) * LINE_PX
    for index, (name, value) in enumerate(tile.metrics.items()):
        is_alone = index % 2 == 0 and index == len(tile.metrics) - 1
        room = PICTURE_PX if is_alone else PICTURE_PX // 2 - GAP_PX // 2
        words = fitted(name, font, room - font.getlength(f" {value:z.2f}"))
        corner = (left + index % 2 * PICTURE_PX // 2, below + index // 2 * LINE_PX)
        pen.text(corner, f"{words} {value:z.2f}", SOFT, font)


def wrapped(text: str, font: Font, width_px: float) -> list[str]:
    """Break a title into lines that fit; a word that is longer than a line is shortened."""
    lines = [""]
    for word in _to_known_letters(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width_px:
            lines.append(fitted(word, font, width_px))
        else:
            lines[-1] = fitted(longer, font, width_px)
    return lines


def fitted(text: str, font: Font, width_px: float) -> str:
    """Shorten a line until it fits."""
    return shorten(_to_known_letters(text), lambda line: font.getlength(line) <= width_px)


def shorten(text: str, fits: Callable[[str], bool]) -> str:
    """Shorten a line at its end until it fits, as a function of it says."""
    if fits(text):
        return text
    while text and not fits(f"{text}…"):
        text = text[:-1]
    return f"{text}…"


def _to_known_letters(text: str) -> str:
    """Spell a text with letters that the font knows, which are few beyond ASCII."""
    plain = unicodedata.normalize("NFKD", text.replace("–", "-"))
    return "".join(letter for letter in plain if not unicodedata.combining(letter))


FRAMES = 6
"""Frames of a clip that are shown, evenly spaced: those of a clip of cc2017."""
SIDE_PX = 112
TEXT_PX = 240
OUTLINE = (255, 64, 64)


@dataclass(frozen=True, eq=False)
class Strip:
    """Clip of a sheet, as a strip of frames.

    Attributes:
        frames: [F, H, W, 3].
        title: Heading of its text.
        lines: Text to the right of the frames.
        masks: Outlined in its frames, bool [F, h, w]; None for none.
        metrics: By short name.
    """

    frames: UInt8
    title: str
    lines: Sequence[str] = ()
    masks: Bool | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


def outlined(frames: UInt8, masks: Bool | None, side_px: int) -> UInt8:
    """Bring frames [F, H, W, 3] to squares, and draw the outlines of masks [F, h, w] into them."""
    # [F, side_px, side_px, 3]
    size = (side_px, side_px)
    sized = np.stack([np.asarray(Image.fromarray(frame).resize(size)) for frame in frames])
    if masks is None or len(masks) != len(frames):
        return sized
    from scipy.ndimage import binary_erosion

    # the outline is the mask without its erosion by two pixels
    for frame, mask in zip(sized, masks, strict=True):
        resized = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        frame[resized & ~binary_erosion(resized, iterations=2, border_value=1)] = OUTLINE
    return sized


def draw_filmstrips(title: str, pairs: Sequence[Sequence[Strip]]) -> Image.Image:
    """Draw groups of strips below one another: a stimulus, and what was made from it."""
    # break the texts into lines, and find the size of the sheet: a strip is as high as its frames or its text
    bold, font = ImageFont.load_default(FONT_PX + 3), ImageFont.load_default(FONT_PX)
    count = max(min(FRAMES, len(strip.frames)) for pair in pairs for strip in pair)
    width = 2 * MARGIN_PX + count * SIDE_PX + GAP_PX + TEXT_PX
    heads = wrapped(title, bold, width - 2 * MARGIN_PX)
    rows = []
    for pair in pairs:
        for strip in pair:
            metrics = "  ".join(f"{name} {value:z.2f}" for name, value in strip.metrics.items())
            paragraphs = [text for text in (*strip.lines, metrics) if text]
            lines = [line for text in paragraphs for line in wrapped(text, font, TEXT_PX)]
            gap = 2 + 2 * GAP_PX if strip is pair[-1] else 2
            rows.append((strip, lines, max(SIDE_PX, (len(lines) + 1) * LINE_PX) + gap))

    # draw the title, then the strips, with a gap between pairs
    top = MARGIN_PX + len(heads) * LINE_PX + GAP_PX
    sheet, pen = _new_sheet(width, top + MARGIN_PX + sum(height for *_, height in rows), heads, bold)
    for strip, lines, height in rows:
        # the frames, evenly spaced in time, with their masks if each frame has one
        shown = np.linspace(0, len(strip.frames) - 1, min(FRAMES, len(strip.frames))).round().astype(int)
        masks = strip.masks
        if masks is not None and len(masks) == len(strip.frames):
            masks = masks[shown]
        for index, frame in enumerate(outlined(strip.frames[shown], masks, SIDE_PX)):
            sheet.paste(Image.fromarray(frame), (MARGIN_PX + index * SIDE_PX, top))

        # the text, right of the frames
        left = sheet.width - MARGIN_PX - TEXT_PX
        pen.text((left, top), strip.title, INK, bold)
        for number, line in enumerate(lines):
            pen.text((left, top + (number + 1) * LINE_PX + 3), line, SOFT, font)
        top += height
    return sheet
