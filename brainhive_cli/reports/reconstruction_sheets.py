"""Sheets of reconstructions: each stimulus with its reconstructions and their metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from brainhive_cli.reports.sheets import fitted, wrapped

PICTURE_PX = 128
GAP_PX = 8
LINE_PX = 13
MARGIN_PX = 16
TITLE_PX = 26
FONT_PX = 10
INK, SOFT, PAPER, SEEN = (30, 30, 30), (90, 90, 90), (255, 255, 255), (30, 30, 30)
SHORT = {
    "pixcorr": "PixCorr",
    "ssim": "SSIM",
    "alexnet2": "Alex2",
    "alexnet5": "Alex5",
    "inception": "Incep",
    "clip": "CLIP",
    "effnet": "Eff",
    "swav": "SwAV",
}
"""Short names of metrics."""


def short(metric: str) -> str:
    """Shorten the name of a metric."""
    return SHORT.get(metric, metric.removeprefix("two_way_"))


@dataclass(frozen=True)
class Row:
    """One item.

    Attributes:
        lines: Text under the stimulus.
        seen: The stimulus.
        generated: Its reconstructions, each with its metrics by name.
    """

    lines: Sequence[str]
    seen: Image.Image
    generated: Sequence[tuple[Image.Image, Mapping[str, float]]]


def reconstruction_sheet(title: str, rows: Sequence[Row]) -> Image.Image:
    """Draw items in rows: the stimulus, framed, then its reconstructions.

    Args:
        title: What is shown, and how it was made.
        rows: The items, in order.
    """
    columns = 1 + max((len(row.generated) for row in rows), default=0)
    lines = max(
        (max(len(row.lines), *(_count(metrics) for _, metrics in row.generated)) for row in rows), default=0
    )
    step_x, step_y = PICTURE_PX + GAP_PX, PICTURE_PX + lines * LINE_PX + 2 * GAP_PX
    font, bold = ImageFont.load_default(FONT_PX), ImageFont.load_default(FONT_PX + 3)
    titles = wrapped(title, bold, max(columns * step_x, 4 * step_x))
    width = 2 * MARGIN_PX + GAP_PX + max(columns * step_x, *(int(bold.getlength(line)) for line in titles))
    head = MARGIN_PX + TITLE_PX + (len(titles) - 1) * LINE_PX
    sheet = Image.new("RGB", (width, head + MARGIN_PX + len(rows) * step_y), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(titles):
        pen.text((MARGIN_PX, MARGIN_PX + number * LINE_PX), line, INK, bold)
    for place_y, row in enumerate(rows):
        top = head + place_y * step_y
        pen.rectangle(
            (MARGIN_PX - 3, top - 3, MARGIN_PX + PICTURE_PX + 2, top + PICTURE_PX + 2), outline=SEEN
        )
        _show(sheet, pen, (MARGIN_PX, top), row.seen, row.lines, INK, font)
        for column, (picture, metrics) in enumerate(row.generated, 1):
            left = MARGIN_PX + GAP_PX + column * step_x
            _show(sheet, pen, (left, top), picture, (), SOFT, font)
            for place, (name, value) in enumerate(metrics.items()):
                is_alone = place % 2 == 0 and place == len(metrics) - 1
                room = PICTURE_PX if is_alone else PICTURE_PX // 2 - GAP_PX // 2
                x, y = left + place % 2 * PICTURE_PX // 2, top + PICTURE_PX + 3 + place // 2 * LINE_PX
                number_px = font.getlength(f" {value:z.2f}")
                pen.text((x, y), f"{fitted(short(name), font, room - number_px)} {value:z.2f}", SOFT, font)
    return sheet


def _show(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    picture: Image.Image,
    lines: Sequence[str],
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    square = picture.convert("RGB").resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BICUBIC)
    sheet.paste(square, corner)
    for number, line in enumerate(lines):
        place = (corner[0], corner[1] + PICTURE_PX + 3 + number * LINE_PX)
        pen.text(place, fitted(line, font, PICTURE_PX), colour, font)


def _count(metrics: Mapping[str, float]) -> int:
    return (len(metrics) + 1) // 2
