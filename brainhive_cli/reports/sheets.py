"""Sheets of pictures: stimuli with what was retrieved, or generated, for them."""

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TILE_PX = 96
GAP_PX = 6
LABEL_PX = 16
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
INK, PAPER, RIGHT, WRONG = (40, 40, 40), (255, 255, 255), (34, 139, 84), (205, 205, 205)


def top_k_sheet(
    open_picture: Callable[[int], Image.Image],
    scores: NDArray[np.float32],
    target: NDArray[np.int64],
    k: int = 5,
    title: str = "",
) -> Image.Image:
    """Draw each query's true picture, then the k retrieved with score; the true one is framed.

    Args:
        open_picture: Row of the gallery to picture.
        scores: [N, M] similarity of each query with each gallery picture.
        target: [N] row of the true picture.
        k: How many are shown.
        title: What stands above, in as many lines as it takes.
    """
    rows = []
    for query, true in zip(scores, target, strict=True):
        best = np.argsort(-query, kind="stable")[:k]
        rank = int((query >= query[true]).sum())  # ties rank against the model
        tiles = [_tile(open_picture(int(true)), f"seen, rank {rank}", INK)]
        for row in best:
            tiles.append(_tile(open_picture(int(row)), f"{query[row]:.2f}", RIGHT if row == true else WRONG))
        rows.append(tiles)
    return _below(title, _grid(rows)) if title else _grid(rows)


def contact_sheet(
    seen: Sequence[Image.Image], generated: Sequence[Sequence[Image.Image]], labels: Sequence[str]
) -> Image.Image:
    """Draw each stimulus with its reconstructions.

    Args:
        seen: N stimuli.
        generated: N sequences of reconstructions.
        labels: N lines under the stimuli.
    """
    rows = []
    for picture, repeats, label in zip(seen, generated, labels, strict=True):
        tiles = [_tile(picture, label, INK)]
        rows.append(tiles + [_tile(repeat, f"generated {n}", WRONG) for n, repeat in enumerate(repeats, 1)])
    return _grid(rows)


def _tile(picture: Image.Image, label: str, frame: tuple[int, int, int]) -> Image.Image:
    tile = Image.new("RGB", (TILE_PX, TILE_PX + LABEL_PX), PAPER)
    tile.paste(frame, (0, 0, TILE_PX, TILE_PX))
    inner = TILE_PX - 4
    tile.paste(picture.convert("RGB").resize((inner, inner), Image.Resampling.BICUBIC), (2, 2))
    font = ImageFont.load_default(10)
    ImageDraw.Draw(tile).text((2, TILE_PX + 2), fitted(label, font, TILE_PX - 2), INK, font)
    return tile


def _grid(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Lay tiles in rows; the first column stands a little apart."""
    step_x, step_y = TILE_PX + GAP_PX, TILE_PX + LABEL_PX + GAP_PX
    widest = max((len(row) for row in rows), default=1)
    sheet = Image.new("RGB", (widest * step_x + 3 * GAP_PX, max(1, len(rows)) * step_y + GAP_PX), PAPER)
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            sheet.paste(tile, (GAP_PX + x * step_x + (GAP_PX if x else 0), GAP_PX + y * step_y))
    return sheet


def _below(title: str, grid: Image.Image) -> Image.Image:
    """Put a title above a grid; none of its words is left out."""
    font = ImageFont.load_default(12)
    lines = wrapped(title, font, grid.width - 2 * GAP_PX)
    height = len(lines) * LABEL_PX + GAP_PX
    sheet = Image.new("RGB", (grid.width, height + grid.height), PAPER)
    sheet.paste(grid, (0, height))
    for place, line in enumerate(lines):
        ImageDraw.Draw(sheet).text((GAP_PX, GAP_PX + place * LABEL_PX), line, INK, font)
    return sheet


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
