"""Draws the pictures of docs/gallery.md, and writes their figures into it: `python -m
tools.gallery HOME`.

HOME is where the lines of the gallery were run. What is drawn are the artifacts of
their newest runs, by the package's own sheets and figures: items that were drawn at
random.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from brainhive_cli.core import artifacts
from brainhive_cli.core.arrays import UInt8
from brainhive_cli.core.artifacts import Sheet
from brainhive_cli.core.measurements import ALL, metric_title
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.media import media_files
from brainhive_cli.reports import drawings
from brainhive_cli.reports.drawings import GRID

PAGE = Path(__file__).resolve().parents[1] / "docs/gallery.md"
COLOURS, ROWS, WINDOWS = 128, 3, 8
"""Of a picture's palette, which makes its file half as large; of a sheet; and of a
filmstrip of a session.
"""
CLIP_FRAMES, TEXT_SIDES = 6, 2
"""Frames of a clip that are shown: those of a clip of cc2017; width of their text."""
DRAWN = "drawn from the signal"
FRAMES = {"right": "#009e73", "wrong": GRID, "": GRID}
LABELS = {
    "seen": "seen",
    "brain": DRAWN,
    "images, ceiling": "ceiling",
    "nearest training picture": "nearest in training",
}
SOURCES = tuple(LABELS)


class Picture(NamedTuple):
    """One picture of the gallery.

    Attributes:
        runs: Pattern of the run that has it, below `runs/`.
        shows: Columns of a sheet, or how the title of a figure begins.
        metrics: Those that are written below it.
        scope: Whose.
        is_filmstrip: Whether rows of the sheet lie next to each other, as windows of a
            session.
    """

    runs: str
    shows: tuple[str, ...] | str
    metrics: tuple[str, ...]
    scope: str = ALL
    is_filmstrip: bool = False


PICTURES = {
    "haxby": Picture("eval-retrieval/haxby2001-intra-*", "Confusion matrix", ("top1",)),
    "haxby_slice": Picture(
        "eval-retrieval/haxby2001-intra-*", "Where the categories differ", ("top1",)
    ),
    "eeg": Picture(
        "reconstruct/demo-intra-*", SOURCES, ("two_way_demo-clip", "pixcorr")
    ),
    "retrieval": Picture(
        "eval-retrieval/demo-intra-*", ("seen", *"12345"), ("top1", "top5")
    ),
    "when": Picture("explain/demo-intra-*", "Windows", ("top1",), "windows · 250 ms"),
    "live": Picture(
        "live/demo-intra-*", ("seen", "1", DRAWN), ("top1",), is_filmstrip=True
    ),
    "fmri": Picture(
        "reconstruct/demo-joint-*", SOURCES, ("two_way_demo-clip", "pixcorr")
    ),
    "films": Picture(
        "reconstruct/demo-films-*",
        SOURCES[:2],
        ("two_way_demo-clip", "motion_direction"),
    ),
}


def draw_sheet(
    run: RunFolder, columns: tuple[str, ...], is_filmstrip: bool, path: Path
) -> None:
    """Draw the first rows of the sheet of a run that has these columns: tiles, or the
    frames of clips.
    """
    chosen = (some for some in artifacts.read(run) if isinstance(some, Sheet))
    sheet = next(some for some in chosen if {*columns} <= {*some.columns})
    labels = LABELS | ({"1": "ranked first"} if is_filmstrip else {})
    rows = [
        [
            (labels.get(name, name), row.tiles[sheet.columns.index(name)])
            for name in columns
            if row.tiles
        ]
        for row in sheet.rows[: WINDOWS if is_filmstrip else ROWS]
    ]
    opened = [
        [(name, tile, media_files.read(run.path / tile.file)) for name, tile in row]
        for row in rows
    ]
    if not isinstance(opened[0][0][2], Image.Image):
        tiles = [
            lay_out_clip(clip.frames, [name, *tile.lines])
            for row in opened
            for name, tile, clip in row
        ]
    else:
        tiles = [
            [
                drawings.DrawnTile(picture, [name], FRAMES[tile.verdict])
                for name, tile, picture in row
            ]
            for row in opened
        ]
    if is_filmstrip:
        tiles = [list(row) for row in zip(*tiles, strict=True)]
    drawings.save_sheet("Simulated", tiles, path)


def lay_out_clip(frames: UInt8, lines: Sequence[str]) -> list[drawings.DrawnTile]:
    """Lay out a clip [F, H, W, 3] as a row: frames, evenly spaced in time, and text."""
    # squares of the size of a tile, of frames at equal distances
    sized = media_files.outline_masks(
        frames, None, int(drawings.SIDE_INCH * drawings.SHEET_DPI)
    )
    chosen = np.linspace(0, len(frames) - 1, min(CLIP_FRAMES, len(frames)))
    return [
        *map(drawings.DrawnTile, sized[chosen.round().astype(int)]),
        drawings.DrawnTile(None, lines, sides=TEXT_SIDES),
    ]


def draw(home: Path) -> None:
    """Draw all pictures, and write their figures behind them."""
    text = PAGE.read_text(encoding="utf-8")
    for file, picture in PICTURES.items():
        if not [*home.glob(f"runs/{picture.runs}")]:
            continue  # its line was not run
        run = RunFolder(
            max(
                home.glob(f"runs/{picture.runs}"), key=lambda path: path.stat().st_mtime
            )
        )
        path = PAGE.parent / f"gallery/{file}.png"
        if isinstance(picture.shows, str):
            figures = [
                some
                for some in artifacts.read(run)
                if some.title.startswith(picture.shows)
            ]
            drawings.save_figure(figures[0], path)
        else:
            draw_sheet(run, picture.shows, picture.is_filmstrip, path)
        Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)
        words = []
        for name in picture.metrics:
            metric = run.measurements().scopes[picture.scope][name]
            chance = "" if metric.chance is None else f", chance {metric.chance:.3g}"
            interval = metric.interval_text()
            words.append(
                f"{metric_title(metric.name)} {metric.value:.3f} ({interval}){chance}, "
                f"n {metric.n}"
            )
        text = re.sub(
            rf"(\(gallery/{file}\.png\)\n\n)\*.*?\*\n",
            rf"\1*{'; '.join(words)}*\n",
            text,
        )
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
