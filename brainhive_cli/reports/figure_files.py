"""Figures of runs as files for talks and papers: SVG, PNG and PDF, as wide as a
column.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from brainhive_cli.core.artifacts import Curve, Heatmap, Map, Sheet, Tile
from brainhive_cli.core.files import atomic_write
from brainhive_cli.core.measurements import extend_title, merge_caveats
from brainhive_cli.reports import sheets
from brainhive_cli.reports.drawings import (
    PNG_DPI,
    WIDTH_INCH,
    save_figure,
    shows_something,
)
from brainhive_cli.reports.page import CLIPS, ROWS_SHOWN, open_picture
from brainhive_cli.reports.run_page import page_of
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun

SUFFIXES = ("svg", "png", "pdf")
MAX_NAME = 60
"""Letters of a run's label, and of a title, in the name of a file."""
FRAME_COLOURS = {"": "#d9dde2", "right": "#009e73", "wrong": "#d55e00"}
"""Frames of the tiles of a sheet by their verdict; green and orange as those of other
figures.
"""
Save = Callable[[Path], None]


def save_figures(groups: Sequence[RunGroup], folder: Path) -> list[Path]:
    """Save every figure of a page, with its caveats in its title; a file has its name
    when it is complete.

    These are the headline figures, then curves, matrices and maps of each run, and the
    first rows of its sheets; of clips their still pictures.

    Args:
        groups: The runs, as they are shown on a page.
        folder: Where the files go.

    Returns:
        The files, `RUN-TITLE.SUFFIX`.
    """
    paths, times_used = [], Counter[str]()
    for label, title, save in _list_figures(groups):
        # a name of its own, also where file systems do not distinguish cases
        name = "-".join(filter(None, (_slug(label), _slug(title)))) or "figure"
        times_used[name.lower()] += 1
        if (number := times_used[name.lower()]) > 1:
            name = f"{name}-{number}"
        for suffix in SUFFIXES:
            paths.append(folder / f"{name}.{suffix}")
            with atomic_write(paths[-1], is_lasting=False) as part:
                save(part)
    return paths


def _list_figures(groups: Sequence[RunGroup]) -> Iterator[tuple[str, str, Save]]:
    """List the figures: the label of the run, the title that names the file, and what
    saves it.
    """
    runs = [run for group in groups for run in group.runs]
    is_one = len(runs) == 1

    # the headline figures, unless a run lists them
    listed = [artifact for run in runs for artifact in run.artifacts]
    caveats = merge_caveats(*(run.measured.caveats for run in runs))
    for figure in page_of(groups).headlines:
        if figure not in listed:
            label = _label_of(runs[0]) if is_one else "compared"
            headline = replace(figure, title=extend_title(figure.title, caveats))
            yield (
                label,
                f"headline-{figure.title.partition(';')[0]}",
                partial(save_figure, headline),
            )

    # the figures and sheets of each run
    for run in runs:
        label = _label_of(run)
        for artifact in run.artifacts:
            if not isinstance(
                artifact, Curve | Heatmap | Map | Sheet
            ) or not shows_something(artifact):
                continue
            title = artifact.title if is_one else f"{artifact.title}: {run.label}"
            titled = replace(artifact, title=extend_title(title, run.measured.caveats))
            if isinstance(titled, Sheet):
                yield (
                    label,
                    artifact.title,
                    partial(_save_sheet, titled, run.folder.path),
                )
            else:
                yield label, artifact.title, partial(save_figure, titled)


def _label_of(run: ShownRun) -> str:
    """Label a run's files: by its folder, where the label is a beginning that other
    runs share.
    """
    folder = run.folder.label
    return folder if not run.variant and folder.startswith(run.label) else run.label


def _slug(text: str) -> str:
    """Make a file name of a text: letters and digits, and hyphens for all else."""
    # letters without their accents; all else becomes a hyphen
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "-", plain)[:MAX_NAME].strip("-")


def _save_sheet(sheet: Sheet, folder: Path, path: Path) -> None:
    """Save the first rows of a sheet, with the headings of columns above; clips as
    their still pictures.
    """
    # a row of headings, then rows of tiles
    rows = [[sheets.Tile(None, [heading]) for heading in sheet.columns]]
    for row in sheet.rows[:ROWS_SHOWN]:
        rows.append([_draw_tile(tile, folder) for tile in row.tiles])
    sheets.save_sheet(sheet.title, rows, path, WIDTH_INCH, PNG_DPI)


def _draw_tile(tile: Tile, folder: Path) -> sheets.Tile:
    # clips without a still picture, and absent pictures, are white
    name = tile.poster or tile.file
    is_shown = name and Path(name).suffix not in CLIPS
    # a gap
    picture = (
        open_picture(folder / name)[1]
        if is_shown
        else Image.new("RGB", (1, 1), "white")
    )
    return sheets.Tile(picture, tile.lines, FRAME_COLOURS[tile.verdict])
