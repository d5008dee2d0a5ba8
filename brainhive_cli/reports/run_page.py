"""The page of one or many runs, laid out from their measurements and artifacts; its
figures as files.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from brainhive_cli.core.artifacts import (
    Curve,
    CurveLine,
    Heatmap,
    Sheet,
    SheetTile,
    Topomap,
)
from brainhive_cli.core.files import atomic_write
from brainhive_cli.core.measurements import (
    Metric,
    beside_heading,
    extend_title,
    list_footnotes,
    merge_caveats,
    shown,
    with_arrow,
)
from brainhive_cli.core.runs import LARGEST_RECIPE
from brainhive_cli.core.tables import brief
from brainhive_cli.reports import drawings
from brainhive_cli.reports.drawings import (
    PNG_DPI,
    WIDTH_INCH,
    is_informative,
    save_figure,
)
from brainhive_cli.reports.page import (
    BY_HAND,
    CLIP_TYPES,
    FINDING,
    MAX_SHEET_ROWS,
    Page,
    PageSection,
    PictureRow,
    group_artifacts,
    open_picture,
)
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun, lay_out_tables
from brainhive_cli.reports.sentences import (
    describe_differences,
    describe_methods,
    list_citations,
    list_missing,
    list_warnings,
    name_page,
    state_finding,
)

MAX_PAIRS, MAX_BARS = 4, 10
"""Limits of the first screen: pairs of pictures, and bars of subjects."""
SUFFIXES = ("svg", "png", "pdf")
MAX_NAME = 60
"""Letters of a run's label, and of a title, in the name of a file."""
FRAME_COLOURS = {"": "#d9dde2", "right": "#009e73", "wrong": "#d55e00"}
"""Frames of the tiles of a sheet by their verdict; green and orange as those of other
figures.
"""
Save = Callable[[Path], None]


def page_of(
    groups: Sequence[RunGroup],
    title: str = "",
    commands: Sequence[str] = (),
    first: Sequence[PageSection] = (),
) -> Page:
    """Lay out the page.

    Args:
        groups: The runs; those of one group are compared.
        title: The heading; by default the question and the data set.
        commands: Lines that made them, to be copied.
        first: Sections ahead of those of the runs.
    """
    runs = [run for group in groups for run in group.runs]

    # runs of reconstructions come first on the first screen, since their pictures are
    # drawn from the signal
    pictured_first = sorted(runs, key=lambda run: not run.source)

    # the lead: the differences, or the finding of one run
    differences = [
        sentence for group in groups for sentence in describe_differences(group)
    ]
    finding_of_run = {run.label: state_finding(run.measured) for run in pictured_first}
    lead = differences or [*filter(None, finding_of_run.values())][:1]

    # the headline figures; of one group of several runs a bar for each
    headlines = next(
        (drawn for run in pictured_first if (drawn := headline_figures(run))), []
    )
    if len(groups) == 1 and len(runs) > 1:
        run_metrics = {run.label: run.metrics for run in runs if run.metrics}
        bars = _draw_bars(run_metrics, next(iter(runs[0].headlines), ""))
        headlines = [bars] if bars else headlines
    pictures, chosen = first_pictures(pictured_first)

    # texts to copy: commands, methods, citations, recipes and environments
    texts = [(BY_HAND, "\n".join(commands))] if commands else []
    texts += [("For the methods of a paper", describe_methods(groups))]
    texts += [("How to cite (BibTeX)", list_citations(groups))]
    recipes = []
    for run in runs:
        name = f"{run.command}: {run.label}"
        recipes.append(
            (f"Recipe of {name}", run.folder.read_text("recipe.yaml", LARGEST_RECIPE))
        )
        if run.environment:
            recipes.append(
                (
                    f"Environment of {name}",
                    run.environment.model_dump_json(indent=2, exclude_unset=True),
                )
            )
    last = [
        PageSection("Methods and citing", texts=texts),
        PageSection("Recipes and environments", texts=recipes),
    ]

    # a section for each group: the findings of its runs, then tables and artifacts
    sections = list(first)
    for group in groups:
        count = len(group.runs)
        artifacts = []
        for run in group.runs:
            is_on_top = run is pictured_first[0] and len(runs) == 1
            below = [
                each
                for each in run.artifacts
                if not (is_on_top and each.section == FINDING)
            ]
            artifacts.append(("" if count == 1 else run.label, below, run.folder.path))
        heading = group.title or (
            f"{group.runs[0].command}: {group.runs[0].label if count == 1 else count}"
        )
        findings = [(run.label, finding_of_run[run.label]) for run in group.runs]
        sentences = [
            finding if count == 1 else f"{label}: {finding}"
            for label, finding in findings
            if finding and finding not in lead
        ]
        tables = [("", lay_out_tables(group)), *group_artifacts(artifacts)]
        footnotes = list_footnotes(
            caveat for run in group.runs for caveat in run.measured.caveats
        )
        sections.append(PageSection(heading, tables, sentences, footnotes=footnotes))
    return Page(
        title or name_page(groups),
        lead,
        list_warnings(groups),
        sections + last,
        pictures,
        headlines,
        list_missing(groups),
        chosen,
    )


def first_pictures(runs: Sequence[ShownRun]) -> tuple[list[PictureRow], str]:
    """Choose the pictures at the top: of the first sheet that shows a stimulus next to
    another picture.

    Returns:
        The rows of pictures, and how they were chosen.
    """
    # pairs of stimulus and picture, each with a file
    for run in runs:
        for sheet in (
            artifact for artifact in run.artifacts if isinstance(artifact, Sheet)
        ):
            pairs = [row.tiles[:2] for row in sheet.rows if len(row.tiles) > 1]
            pairs = [pair for pair in pairs if all(tile.file for tile in pair)][
                :MAX_PAIRS
            ]
            if pairs:
                # `made`, the source, or the number of a repeat or of a rank
                second = sheet.columns[1]
                if second in ("made", run.source) or second.isdecimal():
                    second = (
                        "drawn from the signal" if run.source else "retrieved first"
                    )
                headings = (sheet.columns[0], second)
                tiles = zip(*pairs, strict=True)
                rows: list[PictureRow] = [
                    (heading, shown, run.folder.path)
                    for heading, shown in zip(headings, tiles, strict=True)
                ]
                return rows, sheet.note.partition(";")[0]
    return [], ""


def headline_figures(run: ShownRun) -> list[Curve | Heatmap | Topomap]:
    """Choose the figures of the finding, or draw the most important metric."""
    # figures of the finding, else one that shows a difference
    drawn = [
        each for each in run.artifacts if isinstance(each, Curve | Heatmap | Topomap)
    ]
    if figures := [each for each in drawn if each.section == FINDING]:
        return figures
    curve = headline_curve(run)
    return [curve] if curve and is_informative(curve) else []


def headline_curve(run: ShownRun) -> Curve | None:
    """Draw the most important metric, as bars of the sources, or of all cells and the
    subjects.
    """
    name = run.main_headline
    if run.source:
        scopes = run.measured.scopes
        titles = run.measured.facts.titles
        sources = run.measured.facts.sources
        return _draw_bars(
            {titles.get(source, source): scopes.get(source, {}) for source in sources},
            name,
        )

    # subjects next to all cells, unless there is one, they have several cells or are
    # too many
    subjects = [cell for cell in run.cells if cell.subject]
    shows_subjects = (
        1 < len({cell.subject for cell in subjects}) == len(subjects) <= MAX_BARS
    )
    cell_metrics = {"all": run.metrics} | {
        cell.subject: cell.metrics for cell in subjects if shows_subjects
    }
    bars = _draw_bars(cell_metrics if run.metrics else run.variants, name)

    # a single bar without an interval says less than a curve of the run
    if bars is None or len(bars.at) > 1 or any(bars.lines[0].low or ()):
        return bars
    curves = (
        curve
        for curve in run.artifacts
        if isinstance(curve, Curve) and curve.style == "lines"
    )
    return next(curves, bars)


def _draw_bars(metrics: Mapping[str, Mapping[str, Metric]], name: str) -> Curve | None:
    """Draw one metric as a bar per run, source, subject or variant; None if nothing has
    the metric.
    """
    # one bar for each part that has the metric
    part_values = {
        part: part_metrics[name]
        for part, part_metrics in metrics.items()
        if name in part_metrics
    }
    if not part_values:
        return None

    # values, intervals and chance
    listed = list(part_values.values())
    line = CurveLine.of(shown(name), listed)

    # the title tells the broken line and the kind of interval
    chance = (
        "" if line.chance is None else f"; broken line: chance, {brief(line.chance)}"
    )
    intervals = "" if listed[0].low is None else ", with 95 % intervals"
    intervals += (
        " of these subjects" if beside_heading(listed) == "people in general" else ""
    )
    return Curve(
        f"{with_arrow(name)}{intervals}{chance}",
        "",
        list(part_values),
        [line],
        "",
        "bars",
    )


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
    paths = []
    times_used = Counter[str]()
    for label, title, save in _list_figures(groups):
        # a name of its own, also where file systems do not distinguish cases
        name = "-".join(filter(None, (_slug(label), _slug(title)))) or "figure"
        times_used[name.lower()] += 1
        number = times_used[name.lower()]
        if number > 1:
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
                artifact, Curve | Heatmap | Topomap | Sheet
            ) or not is_informative(artifact):
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
    rows = [[drawings.DrawnTile(None, [heading]) for heading in sheet.columns]]
    rows += [
        [_draw_tile(tile, folder) for tile in row.tiles]
        for row in sheet.rows[:MAX_SHEET_ROWS]
    ]
    drawings.save_sheet(sheet.title, rows, path, WIDTH_INCH, PNG_DPI)


def _draw_tile(tile: SheetTile, folder: Path) -> drawings.DrawnTile:
    # clips without a still picture, and absent pictures, are white
    name = tile.poster or tile.file
    is_shown = name and Path(name).suffix not in CLIP_TYPES
    # a gap
    picture = (
        open_picture(folder / name)[1]
        if is_shown
        else Image.new("RGB", (1, 1), "white")
    )
    return drawings.DrawnTile(picture, tile.lines, FRAME_COLOURS[tile.verdict])
