"""Figures of runs as files for talks and papers: SVG, PNG and PDF, as wide as a column."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from brainhive_cli.core.artifacts import Curve, Heatmap, Map, Sheet, Tile
from brainhive_cli.core.files import atomic_write
from brainhive_cli.core.measurements import extend_title, merge_caveats
from brainhive_cli.reports.drawings import (
    FONT_PT,
    SMALL,
    SOFT,
    WIDTH_INCH,
    has_values,
    new_figure,
    save_figure,
    write_figure,
)
from brainhive_cli.reports.page import CLIPS, ROWS_SHOWN, open_picture
from brainhive_cli.reports.run_page import page_of
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun
from brainhive_cli.reports.sheets import shorten

SUFFIXES = ("svg", "png", "pdf")
MAX_NAME = 60
"""Letters of a run's label, and of a title, in the name of a file."""
SMALL_SHARE, SMALLEST_SHARE, NARROW_INCH = 0.83, 0.69, 0.75
"""Size of the letters below a tile as a share of that of others; the smaller one below narrower tiles."""
GAP_PT = 4
"""Gap between the texts of tiles."""
FRAME_COLOURS = {"": "#d9dde2", "right": "#009e73", "wrong": "#d55e00"}
"""Frames of the tiles of a sheet by their verdict; green and orange as those of other figures."""
Save = Callable[[Path], None]


def save_figures(groups: Sequence[RunGroup], folder: Path) -> list[Path]:
    """Save every figure of a page, with its caveats in its title; a file has its name when it is complete.

    These are the headline figures, then curves, matrices and maps of each run, and the first rows of its
    sheets; of clips their still pictures.

    Args:
        groups: The runs, as they are shown on a page.
        folder: Where the files go.

    Returns:
        The files, `RUN-TITLE.SUFFIX`.
    """
    paths, taken = [], set[str]()
    for label, title, save in _list_figures(groups):
        # a name of its own, also where file systems do not distinguish cases
        name = base = "-".join(filter(None, (_slug(label), _slug(title)))) or "figure"
        number = 1
        while name.lower() in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add(name.lower())

        for suffix in SUFFIXES:
            paths.append(folder / f"{name}.{suffix}")
            with atomic_write(paths[-1], is_lasting=False) as part:
                save(part)
    return paths


def _list_figures(groups: Sequence[RunGroup]) -> Iterator[tuple[str, str, Save]]:
    """List the figures: the label of the run, the title that names the file, and what saves it."""
    runs = [run for group in groups for run in group.runs]
    is_one = len(runs) == 1

    # the headline figures, unless a run lists them
    listed = [artifact for run in runs for artifact in run.artifacts]
    caveats = merge_caveats(*(run.measured.caveats for run in runs))
    for figure in page_of(groups).headlines:
        if figure not in listed:
            label = _label_of(runs[0]) if is_one else "compared"
            headline = replace(figure, title=extend_title(figure.title, caveats))
            yield label, f"headline-{figure.title.partition(';')[0]}", partial(save_figure, headline)

    # the figures and sheets of each run
    for run in runs:
        label = _label_of(run)
        for artifact in run.artifacts:
            if not isinstance(artifact, Curve | Heatmap | Map | Sheet):
                continue
            title = artifact.title if is_one else f"{artifact.title}: {run.label}"
            titled = replace(artifact, title=extend_title(title, run.measured.caveats))
            if isinstance(titled, Sheet):
                if titled.rows:
                    yield label, artifact.title, partial(_save_sheet, titled, run.folder.path)
            elif has_values(titled):
                yield label, artifact.title, partial(save_figure, titled)


def _label_of(run: ShownRun) -> str:
    """Label a run's files: by its folder, where the label is a beginning that other runs share."""
    folder = run.folder.label
    return folder if not run.variant and folder.startswith(run.label) else run.label


def _slug(text: str) -> str:
    """Make a file name of a text: letters and digits, and hyphens for all else."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "-", plain)[:MAX_NAME].strip("-")


def _save_sheet(sheet: Sheet, folder: Path, path: Path) -> None:
    """Draw the first rows of a sheet, a square for each tile, with the headings of columns above."""
    rows = sheet.rows[:ROWS_SHOWN]
    columns = max(len(row.tiles) for row in rows)
    lines = max((len(tile.lines) for row in rows for tile in row.tiles), default=0)

    # tiles fill the width, with lines of text below
    line_inch, side_inch = FONT_PT * 1.15 / 72, WIDTH_INCH / columns
    font_pt = FONT_PT * (SMALLEST_SHARE if side_inch < NARROW_INCH else SMALL_SHARE)
    fit = partial(_fit, width_pt=side_inch * 72 - GAP_PT, font_pt=font_pt)
    words = {"color": SOFT, "fontsize": font_pt}
    height_inch = len(rows) * (side_inch + lines * line_inch) + line_inch
    with new_figure(height_inch) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for row, axes_of_row in zip(rows, grid, strict=True):
            for column, axes in enumerate(axes_of_row):
                axes.set(xticks=[], yticks=[])
                if column >= len(row.tiles) or not row.tiles[column].file:
                    axes.axis("off")
                    continue
                _draw_tile(axes, row.tiles[column], folder)
                axes.set_xlabel("\n".join(map(fit, row.tiles[column].lines)), **words)
                if row is rows[0]:
                    axes.set_title(fit(sheet.columns[column]), loc="center", **words)
        write_figure(figure, sheet.title, path)


def _draw_tile(axes: Any, tile: Tile, folder: Path) -> None:
    # the picture, or the still one of a clip
    name = tile.poster or tile.file
    if Path(name).suffix in CLIPS:
        axes.text(0.5, 0.5, "clip", ha="center", va="center", **SMALL)
    else:
        axes.imshow(open_picture(folder / name)[1])

    # its frame
    axes.spines[:].set(visible=True, color=FRAME_COLOURS[tile.verdict], linewidth=2 if tile.verdict else 0.6)


def _fit(text: str, width_pt: float, font_pt: float) -> str:
    """Shorten a line until it is no wider than its tile."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=font_pt)

    width_of = text_to_path.get_text_width_height_descent
    return shorten(text, lambda line: bool(width_of(line, font, False)[0] <= width_pt))
