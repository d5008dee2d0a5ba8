"""Sheets of pictures, and of frames of clips: stimuli with what was retrieved, or
generated, for them.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainhive_cli.core.arrays import Bool, UInt8
from brainhive_cli.reports.drawings import GRID, new_figure, write_figure

SIDE_INCH, FONT_PT, SHEET_DPI = 0.985, 5.5, 130
"""Side of a tile, size of its letters, and pixels an inch of a sheet: tiles of 128
pixels.
"""
LETTER_SHARE, LINE_SHARE, GAP_SHARE = 0.68, 1.2, 0.06
"""Width of a wide letter and height of its line, as shares of the size of the font; gap
between tiles, as a share of their side.
"""
FRAMES, TEXT_SIDES = 6, 2
"""Frames of a clip that are shown, evenly spaced: those of a clip of cc2017; width of
their text.
"""
OUTLINE = (255, 64, 64)


@dataclass(frozen=True)
class Tile:
    """Part of a row of a sheet: a picture with text below it, or text alone.

    Attributes:
        picture: Of Pillow, or [H, W, 3], shown as a square; None for none.
        lines: Text below it, each of them broken where it is wider than its tile.
        frame: Colour of its frame.
        sides: Width of the tile, in sides of a picture.
    """

    picture: Any
    lines: Sequence[str] = ()
    frame: str = GRID
    sides: int = 1


def save_sheet(
    title: str,
    rows: Sequence[Sequence[Tile]],
    path: Path,
    width_inch: float = 0,
    dpi: int = SHEET_DPI,
) -> None:
    """Save tiles in rows below a title, by the path's suffix: png, pdf, svg.

    Args:
        title: Above all rows.
        rows: From top to bottom; one without tiles is a gap.
        path: The file.
        width_inch: Width of the sheet, which tiles fill; 0 for tiles of 128 pixels.
        dpi: Pixels an inch.
    """
    from matplotlib.patches import Rectangle

    # the width of the sheet in sides of a tile, and the letters that fit into one
    width = GAP_SHARE + max(
        (sum(tile.sides + GAP_SHARE for tile in row) for row in rows), default=1
    )
    side_inch = width_inch / width or SIDE_INCH
    letters, line = (
        side_inch * 72 / (LETTER_SHARE * FONT_PT),
        LINE_SHARE * FONT_PT / 72 / side_inch,
    )

    with new_figure() as figure:
        # data are sides of a tile, from the upper left corner
        figure.set_layout_engine("none")
        axes, top = figure.add_axes((0, 0, 1, 1)), GAP_SHARE
        for row in ([Tile(None, [title], sides=int(width))], *rows):
            left, bottom = GAP_SHARE, top
            # a tile: picture with its frame, and text below
            for tile in row:
                below = top
                if tile.picture is not None:
                    below += 1
                    axes.imshow(tile.picture, extent=(left, left + 1, below, top))
                    axes.add_patch(
                        Rectangle((left, top), 1, 1, fill=False, edgecolor=tile.frame)
                    )
                text = "\n".join(
                    textwrap.fill(words, int(tile.sides * letters))
                    for words in tile.lines
                )
                axes.text(
                    left,
                    below + line / 4,
                    text,
                    fontsize=FONT_PT,
                    va="top",
                    linespacing=LINE_SHARE,
                )
                bottom = max(bottom, below + line * len(text.splitlines()))
                left += tile.sides + GAP_SHARE
            top = bottom + GAP_SHARE

        # a row has room for its pictures, and for the longest text below them
        axes.axis("off")
        axes.set(xlim=(0, width), ylim=(top, 0), aspect="auto")
        figure.set_size_inches(width_inch or width * side_inch, top * side_inch)
        write_figure(figure, path, dpi)


def outlined(frames: UInt8, masks: Bool | None, side_px: int) -> UInt8:
    """Bring frames [F, H, W, 3] to squares, and draw the outlines of masks [F, h, w]
    into them.
    """
    # [F, side_px, side_px, 3]
    size = (side_px, side_px)
    sized = np.stack(
        [np.asarray(Image.fromarray(frame).resize(size)) for frame in frames]
    )
    if masks is None or len(masks) != len(frames):
        return sized
    from scipy.ndimage import binary_erosion

    # the outline is the mask without its erosion by two pixels
    for frame, mask in zip(sized, masks, strict=True):
        resized = np.asarray(
            Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
        )
        frame[resized & ~binary_erosion(resized, iterations=2, border_value=1)] = (
            OUTLINE
        )
    return sized


def lay_out_clip(
    frames: UInt8, lines: Sequence[str], masks: Bool | None = None
) -> list[Tile]:
    """Lay out a clip [F, H, W, 3] as a row: frames, evenly spaced in time, with their
    masks, and text.
    """
    # squares of the size of a tile, of frames at equal distances
    sized = outlined(frames, masks, int(SIDE_INCH * SHEET_DPI))
    shown = (
        np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)
    )
    return [*map(Tile, sized[shown]), Tile(None, lines, sides=TEXT_SIDES)]


def describe_sample(count: int, total: int, noun: str, seed: int) -> str:
    """Say how many stimuli of how many a sheet shows, and that nobody chose them."""
    # drawn or all: a reader must know that no good ones were chosen
    if count == total:
        return f"All {total:,} {noun}, in random order"
    return f"{count} of {total:,} {noun}, drawn at random (seed {seed})"
