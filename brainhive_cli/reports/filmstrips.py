"""A sheet of clips: frames of each stimulus above those of what was made from it, with words next to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from brainhive_cli.reports.sheets import FONT_PX, GAP_PX, INK, LINE_PX, MARGIN_PX, PAPER, SOFT, wrapped

FRAMES = 6
"""Frames of a clip that are shown, evenly spaced: those of a clip of cc2017."""
SIDE_PX = 112
TEXT_PX = 240
OUTLINE = (255, 64, 64)
Frames = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Strip:
    """One clip of the sheet.

    Attributes:
        frames: [F, H, W, 3].
        title: What it is.
        lines: What is known of it.
        masks: Outlined in its frames, bool [F, h, w]; None for none.
        metrics: By short name.
    """

    frames: Frames
    title: str
    lines: Sequence[str] = ()
    masks: NDArray[np.bool_] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


def outlined(frames: Frames, masks: NDArray[np.bool_] | None, side_px: int) -> Frames:
    """Bring frames [F, H, W, 3] to squares, and draw the outlines of masks [F, h, w] into them."""
    size = (side_px, side_px)
    sized = np.stack([np.asarray(Image.fromarray(each).resize(size)) for each in frames])
    if masks is None or len(masks) != len(frames):
        return sized
    from scipy.ndimage import binary_erosion

    for frame, mask in zip(sized, masks, strict=True):
        whole = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        frame[whole & ~binary_erosion(whole, iterations=2, border_value=1)] = OUTLINE
    return sized


def draw_filmstrips(title: str, pairs: Sequence[Sequence[Strip]]) -> Image.Image:
    """Draw groups of strips below one another: a stimulus, and what was made from it."""
    bold, font = ImageFont.load_default(FONT_PX + 3), ImageFont.load_default(FONT_PX)
    count = max(min(FRAMES, len(strip.frames)) for pair in pairs for strip in pair)
    width = 2 * MARGIN_PX + count * SIDE_PX + GAP_PX + TEXT_PX
    heads = wrapped(title, bold, width - 2 * MARGIN_PX)
    texts = [[_lines(strip, font) for strip in pair] for pair in pairs]
    heights = [[max(SIDE_PX, (len(lines) + 1) * LINE_PX) for lines in group] for group in texts]
    total = sum(sum(group) + len(group) * 2 + 2 * GAP_PX for group in heights)
    sheet = Image.new("RGB", (width, 2 * MARGIN_PX + len(heads) * LINE_PX + GAP_PX + total), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(heads):
        pen.text((MARGIN_PX, MARGIN_PX + number * LINE_PX), line, INK, bold)
    top = MARGIN_PX + len(heads) * LINE_PX + GAP_PX
    for pair, words, sizes in zip(pairs, texts, heights, strict=True):
        for strip, lines, height in zip(pair, words, sizes, strict=True):
            _draw(sheet, pen, strip, lines, top, (bold, font))
            top += height + 2
        top += 2 * GAP_PX
    return sheet


def _draw(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, strip: Strip, lines: Sequence[str], top: int, fonts: Any
) -> None:
    shown = np.linspace(0, len(strip.frames) - 1, min(FRAMES, len(strip.frames))).round().astype(int)
    masks = (
        strip.masks if strip.masks is None or len(strip.masks) != len(strip.frames) else strip.masks[shown]
    )
    for place, frame in enumerate(outlined(strip.frames[shown], masks, SIDE_PX)):
        sheet.paste(Image.fromarray(frame), (MARGIN_PX + place * SIDE_PX, top))
    left = sheet.width - MARGIN_PX - TEXT_PX
    pen.text((left, top), strip.title, INK, fonts[0])
    for number, line in enumerate(lines):
        pen.text((left, top + (number + 1) * LINE_PX + 3), line, SOFT, fonts[1])


def _lines(strip: Strip, font: Any) -> list[str]:
    """Break what is known of a clip, and its metrics, into lines that fit."""
    metrics = "  ".join(f"{name} {value:z.2f}" for name, value in strip.metrics.items())
    return [line for text in (*strip.lines, metrics) if text for line in wrapped(text, font, TEXT_PX)]
