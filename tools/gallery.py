"""Draws the pictures of docs/gallery.md, and writes their figures into it: `python -m
tools.gallery HOME`.

The command lines of the gallery must have run in HOME. The pictures are sheets and
figures of their newest runs, of items that were drawn at random.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from brainhive_cli.core.base.arrays import UInt8
from brainhive_cli.core.results.measurements import ALL, metric_title
from brainhive_cli.core.runs import artifacts
from brainhive_cli.core.runs.artifacts import BrainMap, Sheet
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.media import media_files
from brainhive_cli.reports.figures import drawings
from brainhive_cli.reports.figures.drawings import GRID

PAGE = Path(__file__).resolve().parents[1] / "docs/gallery.md"
PALETTE_COLOURS = 128
"""Colours of a picture, which halve its file."""
MAX_WIDTH_PX = 1400
"""Largest width of a picture: twice its width on the page."""
SHEET_ROWS = 3
FILMSTRIP_WINDOWS = 8
CLIP_FRAMES = 6
"""Frames of a clip in the gallery, as many as a clip of cc2017 has."""
TEXT_SIDES = 2
"""Width of the text beside a clip, in tiles."""
BRAIN_LABEL = "drawn from the signal"
FRAMES = {"right": "#009e73", "wrong": GRID, "": GRID}
LABELS = {
    "seen": "seen",
    "brain": BRAIN_LABEL,
    "images, ceiling": "ceiling",
    "nearest training picture": "nearest in training",
}
SOURCES = tuple(LABELS)


class Picture(NamedTuple):
    """Picture of the gallery.

    Attributes:
        runs: Pattern of its run, below `runs/`.
        content: Columns of a sheet, or the beginning of a figure's title.
        metrics: Names of the metrics below it.
        scope: Scope of the metrics.
        is_filmstrip: If True, rows of the sheet become columns, as windows of a
            session.
    """

    runs: str
    content: tuple[str, ...] | str
    metrics: tuple[str, ...]
    scope: str = ALL
    is_filmstrip: bool = False


PICTURES = {
    "haxby": Picture(
        "eval-retrieval/haxby2001-intra-*", "Confusion matrix", ("accuracy", "auc")
    ),
    "haxby_slice": Picture(
        "eval-retrieval/haxby2001-intra-*", "Where the categories differ", ("accuracy",)
    ),
    "eeg": Picture(
        "reconstruct/demo-intra-*", SOURCES, ("two_way_demo-clip", "pixcorr")
    ),
    "retrieval": Picture(
        "eval-retrieval/demo-intra-*",
        ("seen", "1", "2", "3", "4", "5"),
        ("top1", "top5"),
    ),
    "when": Picture("explain/demo-intra-*", "Windows", ("top1",), "windows · 250 ms"),
    "live": Picture(
        "live/demo-intra-*", ("seen", "1", BRAIN_LABEL), ("top1",), is_filmstrip=True
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
    """Draw the first rows of the first sheet of a run that has the columns."""
    for artifact in artifacts.read(run):
        if isinstance(artifact, Sheet) and set(columns) <= set(artifact.columns):
            sheet = artifact
            break
    else:
        raise LookupError(f"{run.path} has no sheet with {', '.join(columns)}")
    labels = dict(LABELS)
    if is_filmstrip:
        labels["1"] = "ranked first"

    # a row of tiles for each item, or for each clip
    tiles: list[list[drawings.DrawnTile]] = []
    for row in sheet.rows[: FILMSTRIP_WINDOWS if is_filmstrip else SHEET_ROWS]:
        row_tiles = []
        for name in columns if row.tiles else ():
            tile = row.tiles[sheet.columns.index(name)]
            label = labels.get(name, name)
            media = media_files.read(run.path / tile.file)
            if isinstance(media, Image.Image):
                drawn_tile = drawings.DrawnTile(media, [label], FRAMES[tile.verdict])
                row_tiles.append(drawn_tile)
            else:
                tiles.append(lay_out_clip(media.frames, [label] + list(tile.lines)))
        if row_tiles:
            tiles.append(row_tiles)
    if is_filmstrip:
        tiles = [list(row) for row in zip(*tiles, strict=True)]
    drawings.save_sheet("Simulated", tiles, path)


def lay_out_clip(frames: UInt8, lines: Sequence[str]) -> list[drawings.DrawnTile]:
    """Lay out a clip [F, H, W, 3] as a row of evenly spaced frames and a text."""
    side_px = int(drawings.SIDE_INCH * drawings.SHEET_DPI)
    squares = media_files.outline_masks(frames, None, side_px)
    positions = np.linspace(0, len(frames) - 1, min(CLIP_FRAMES, len(frames)))
    tiles = list(map(drawings.DrawnTile, squares[positions.round().astype(int)]))
    tiles.append(drawings.DrawnTile(None, lines, sides=TEXT_SIDES))
    return tiles


def draw(home: Path) -> None:
    """Draw all pictures whose runs exist, and write their metrics below them."""
    text = PAGE.read_text(encoding="utf-8")
    for file, picture in PICTURES.items():
        folders = list(home.glob(f"runs/{picture.runs}"))
        if not folders:
            continue
        run = RunFolder(max(folders, key=lambda folder: folder.stat().st_mtime))
        path = PAGE.parent / f"gallery/{file}.png"
        if isinstance(picture.content, str):
            for artifact in artifacts.read(run):
                if artifact.title.startswith(picture.content):
                    if isinstance(artifact, BrainMap):
                        artifact = artifact.locate(run.path)
                    drawings.save_figure(artifact, path)
                    break
            else:
                raise LookupError(f"{run.path} has no figure {picture.content}")
        else:
            draw_sheet(run, picture.content, picture.is_filmstrip, path)
        image = Image.open(path).convert("RGB")
        image.thumbnail((MAX_WIDTH_PX, image.height))
        image = image.quantize(PALETTE_COLOURS)
        image.save(path, optimize=True)
        texts = []
        for name in picture.metrics:
            metric = run.measurements().scopes[picture.scope][name]
            chance = "" if metric.chance is None else f", chance {metric.chance:.3g}"
            interval = metric.interval_text()
            texts.append(
                f"{metric_title(metric.name)} {metric.value:.3f} ({interval}){chance}, "
                f"n {metric.n}"
            )
        text = re.sub(
            rf"(\(gallery/{file}\.png\)\n\n)\*.*?\*\n",
            rf"\1*{'; '.join(texts)}*\n",
            text,
        )
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
