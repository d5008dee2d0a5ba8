"""Page of one or many runs, made of their measurements and artifacts."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from brainhive_cli.core.artifacts import (
    Artifact,
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
    extend_title,
    list_footnotes,
    metric_title,
    second_interval_heading,
    with_arrow,
)
from brainhive_cli.core.runs import MAX_RECIPE_BYTES
from brainhive_cli.core.tables import format_tick
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
    PageGroup,
    PageSection,
    PictureRow,
    group_artifacts,
    open_picture,
)
from brainhive_cli.reports.runs_shown import (
    RunGroup,
    ShownRun,
    lay_out_tables,
    list_runs,
)
from brainhive_cli.reports.sentences import (
    describe_differences,
    describe_methods,
    list_citations,
    list_missing,
    list_warnings,
    name_page,
    state_finding,
)

MAX_PAIRS = 4
"""Largest number of pairs of pictures at the top of a page."""
MAX_BARS = 10
"""Largest number of subjects that have a bar at the top of a page."""
SUFFIXES = ("svg", "png", "pdf")
MAX_SLUG_LETTERS = 60
"""Longest part of a file name that stands for the label of a run, or for a title."""
FRAME_COLOURS = {"": "#d9dde2", "right": "#009e73", "wrong": "#d55e00"}
"""Colour of the frame of a sheet tile by its verdict. Other figures use the same green
and orange.
"""
Save = Callable[[Path], None]
"""Function that saves a figure to a file."""


def lay_out_page(
    groups: Sequence[RunGroup],
    title: str = "",
    commands: Sequence[str] = (),
    first_sections: Sequence[PageSection] = (),
) -> Page:
    """Lay out the page of some runs.

    Args:
        groups: The runs. Runs of a group are compared.
        title: Title of the page. The default names the data set and the question of
            the runs.
        commands: Command lines that repeat the runs.
        first_sections: Sections that stand before the sections of the runs.
    """
    # a run of reconstructions leads the page, because its pictures come from the signal
    runs = list_runs(groups)
    leading_runs = sorted(runs, key=lambda shown_run: not shown_run.source)

    # begin with the differences of runs, or with the finding of the first run
    findings = {
        shown_run.label: state_finding(shown_run.measurements)
        for shown_run in leading_runs
    }
    lead: list[str] = []
    for group in groups:
        lead += describe_differences(group)
    if not lead:
        lead = list(filter(None, findings.values()))[:1]

    # lay out a section for each group; figures at the top are not repeated below
    pictures, selection = choose_pictures(leading_runs)
    sections = list(first_sections)
    for group in groups:
        top_run = leading_runs[0] if len(runs) == 1 else None
        sections.append(_lay_out_group(group, findings, lead, top_run))
    sections += _lay_out_texts(groups, commands)
    return Page(
        title=title or name_page(groups),
        lead=lead,
        warnings=list_warnings(groups),
        sections=sections,
        pictures=pictures,
        headlines=_choose_headline_figures(groups, leading_runs),
        missing=list_missing(groups),
        selection=selection,
    )


def _choose_headline_figures(
    groups: Sequence[RunGroup], leading_runs: Sequence[ShownRun]
) -> Sequence[Curve | Heatmap | Topomap]:
    """Choose the figures at the top of a page.

    If all runs of the page are compared in a single group, a bar for each run shows the
    most important metric. On any other page, or without such a metric, the figures come
    from the first run that has figures of its main result.

    Args:
        groups: The runs of the page.
        leading_runs: All runs of `groups`, in the order in which they are tried.

    Returns:
        The figures. Empty if no run has figures of its main result.
    """
    if len(groups) == 1 and len(groups[0].runs) > 1:
        main_metric = next(iter(groups[0].runs[0].headlines), "")
        bars = _make_bars(groups[0].metrics, main_metric)
        if bars:
            return [bars]
    for shown_run in leading_runs:
        figures = choose_run_headlines(shown_run)
        if figures:
            return figures
    return []


def _lay_out_group(
    group: RunGroup,
    findings: Mapping[str, str],
    lead: Sequence[str],
    top_run: ShownRun | None,
) -> PageSection:
    """Lay out the page section of a group of runs.

    The section has the findings (sentences with the main result of each run), the
    tables, and the artifacts (figures, tables and media that the runs wrote).

    Args:
        group: The runs.
        findings: Finding of each run by the label of the run.
        lead: Sentences at the top of the page. They are not repeated in the section.
        top_run: The run of a page with a single run. Figures of its finding stand at
            the top of the page. None if the page has several runs.
    """
    # collect the artifacts, without the figures that stand at the top of the page
    is_single = len(group.runs) == 1
    artifacts: list[tuple[str, Sequence[Artifact], Path]] = []
    for shown_run in group.runs:
        run_artifacts = shown_run.artifacts
        if shown_run is top_run:
            run_artifacts = [
                artifact for artifact in run_artifacts if artifact.section != FINDING
            ]
        label = "" if is_single else shown_run.label
        artifacts.append((label, run_artifacts, shown_run.folder.path))

    # collect the findings, without the finding at the top
    sentences = []
    caveats: list[str] = []
    for shown_run in group.runs:
        caveats += shown_run.measurements.caveats
        finding = findings[shown_run.label]
        if finding and finding not in lead:
            sentences.append(finding if is_single else f"{shown_run.label}: {finding}")

    first_run = group.runs[0]
    subtitle = first_run.label if is_single else len(group.runs)
    tables: list[PageGroup] = [("", lay_out_tables(group))]
    return PageSection(
        title=group.title or f"{first_run.command}: {subtitle}",
        groups=tables + group_artifacts(artifacts),
        lead=sentences,
        footnotes=list_footnotes(caveats),
    )


def _lay_out_texts(
    groups: Sequence[RunGroup], commands: Sequence[str]
) -> list[PageSection]:
    """Lay out the texts that readers of a page may copy.

    These texts are the command lines, a methods paragraph, citations, and the recipe
    (the settings) and the environment (software versions and device) of each run.

    Args:
        groups: The runs of the page.
        commands: Command lines that repeat the runs. If empty, the text of the command
            lines is left out.

    Returns:
        A section on methods and citing, and a section on recipes and environments.
    """
    texts = [(BY_HAND, "\n".join(commands))] if commands else []
    texts.append(("For the methods of a paper", describe_methods(groups)))
    texts.append(("How to cite (BibTeX)", list_citations(groups)))
    recipes = []
    for shown_run in list_runs(groups):
        name = f"{shown_run.command}: {shown_run.label}"
        recipe = shown_run.folder.read_text("recipe.yaml", MAX_RECIPE_BYTES)
        recipes.append((f"Recipe of {name}", recipe))
        if shown_run.environment:
            environment = shown_run.environment.model_dump_json(
                indent=2, exclude_unset=True
            )
            recipes.append((f"Environment of {name}", environment))
    return [
        PageSection("Methods and citing", texts=texts),
        PageSection("Recipes and environments", texts=recipes),
    ]


def choose_pictures(runs: Sequence[ShownRun]) -> tuple[list[PictureRow], str]:
    """Choose stimuli, and the pictures decoded from them, for the top of a page.

    The pictures come from a sheet. A row of a sheet begins with a stimulus, followed by
    the pictures that were drawn or retrieved for this stimulus. The first sheet with
    picture files for both is taken.

    Args:
        runs: The runs of the page, in the order in which they are tried.

    Returns:
        A list with a row of stimuli and a row of decoded pictures, and a sentence that
        says how the stimuli of the sheet were chosen. The list and the sentence are
        empty without such a sheet.
    """
    for shown_run in runs:
        for artifact in shown_run.artifacts:
            if not isinstance(artifact, Sheet):
                continue

            # take pairs of a stimulus and a picture that both have a file
            pairs = []
            for row in artifact.rows:
                stimulus_and_picture = row.tiles[:2]
                has_files = all(tile.file for tile in stimulus_and_picture)
                if len(row.tiles) > 1 and has_files:
                    pairs.append(stimulus_and_picture)
            pairs = pairs[:MAX_PAIRS]
            if not pairs:
                continue

            # The heading of the second column may be `made`, the source of the pictures
            # or a rank. Replace it by words that readers understand.
            heading = artifact.columns[1]
            if heading in ("made", shown_run.source) or heading.isdecimal():
                heading = (
                    "drawn from the signal" if shown_run.source else "retrieved first"
                )
            stimuli, pictures = zip(*pairs, strict=True)
            folder = shown_run.folder.path
            rows: list[PictureRow] = [
                (artifact.columns[0], stimuli, folder),
                (heading, pictures, folder),
            ]
            # the first part of the note says how the stimuli were chosen
            return rows, artifact.note.partition(";")[0]
    return [], ""


def choose_run_headlines(shown_run: ShownRun) -> list[Curve | Heatmap | Topomap]:
    """Choose the headline figures of a run.

    These are the figures of its finding. A run without them has a figure of its most
    important metric.
    """
    figures = [
        artifact
        for artifact in shown_run.artifacts
        if isinstance(artifact, Curve | Heatmap | Topomap)
        and artifact.section == FINDING
    ]
    if figures:
        return figures
    curve = draw_headline(shown_run)
    return [curve] if curve and is_informative(curve) else []


def draw_headline(shown_run: ShownRun) -> Curve | None:
    """Draw the most important metric of a run as bars, for the top of a page.

    A bar is a source of pictures, all subjects together, a subject or a variant. If
    there is a single bar without an interval, the first line plot that the run wrote is
    returned instead of the bar.

    Returns:
        The figure. None if the run has no metric.
    """
    # a bar for each source of pictures
    name = shown_run.main_headline
    facts = shown_run.measurements.facts
    if shown_run.source:
        source_metrics = {}
        for source in facts.sources:
            source_title = facts.titles.get(source, source)
            source_metrics[source_title] = shown_run.measurements.scopes.get(source, {})
        return _make_bars(source_metrics, name)

    # a bar for all cells (trained models) together, and a bar for each subject if every
    # subject has a single cell
    bar_metrics = shown_run.variants
    if shown_run.metrics:
        bar_metrics = {"all": shown_run.metrics}
        subject_metrics = {}
        n_cells = 0
        for cell in shown_run.cells:
            if cell.subject:
                subject_metrics[cell.subject] = cell.metrics
                n_cells += 1
        if 1 < len(subject_metrics) == n_cells <= MAX_BARS:
            bar_metrics |= subject_metrics
    bars = _make_bars(bar_metrics, name)
    if bars is None or len(bars.at) > 1 or any(bars.lines[0].low or ()):
        return bars

    # a single bar without an interval tells less than a curve
    for artifact in shown_run.artifacts:
        if isinstance(artifact, Curve) and artifact.style == "lines":
            return artifact
    return bars


def _make_bars(metrics: Mapping[str, Mapping[str, Metric]], name: str) -> Curve | None:
    """Draw a metric as bars, with intervals and chance level.

    Args:
        metrics: Metrics by the name of the bar.
        name: Name of the metric.

    Returns:
        The figure. None if no bar has the metric.
    """
    bar_metrics = {
        label: label_metrics[name]
        for label, label_metrics in metrics.items()
        if name in label_metrics
    }
    if not bar_metrics:
        return None
    values = list(bar_metrics.values())
    line = CurveLine.from_metrics(metric_title(name), values)

    # explain intervals and chance level in the title
    title = with_arrow(name)
    if values[0].low is not None:
        title += ", with 95 % intervals"
    if second_interval_heading(values) == "people in general":
        title += " for these subjects"
    if line.chance is not None:
        title += f"; broken line: chance, {format_tick(line.chance)}"
    return Curve(
        title, axis="", at=list(bar_metrics), lines=[line], value="", style="bars"
    )


def save_figures(groups: Sequence[RunGroup], folder: Path) -> list[Path]:
    """Save every figure of a page as an SVG, a PNG and a PDF file.

    The figures are the figures at the top of the page, the curves, matrices and maps of
    each run, and the first rows of each sheet of pictures. A clip on a sheet is saved
    as a still picture. The title of a figure contains the caveats of its run (phrases
    that limit a result). A file appears under its name when it is complete.

    Args:
        groups: The runs of the page.
        folder: Folder of the files.

    Returns:
        The files, named `RUN-TITLE.SUFFIX`.
    """
    paths = []
    times_used = Counter[str]()
    for label, title, save in _list_figures(groups):
        # number equal names; names that differ only in upper and lower case count as
        # equal, because some file systems do not distinguish them
        name = (
            "-".join(filter(None, (_make_slug(label), _make_slug(title)))) or "figure"
        )
        times_used[name.lower()] += 1
        number = times_used[name.lower()]
        if number > 1:
            name = f"{name}-{number}"
        for suffix in SUFFIXES:
            path = folder / f"{name}.{suffix}"
            paths.append(path)
            with atomic_write(path, is_lasting=False) as temporary_path:
                save(temporary_path)
    return paths


def _list_figures(groups: Sequence[RunGroup]) -> Iterator[tuple[str, str, Save]]:
    """List the figures of a page, for `save_figures`.

    Yields:
        Label of the run and title of the figure, which form the name of the file, and a
        function that saves the figure to a given path.
    """
    runs = list_runs(groups)
    is_single = len(runs) == 1

    # figures at the top of the page, without figures that a run wrote itself, because
    # the loop below lists these
    run_artifacts: list[Artifact] = []
    caveats: list[str] = []
    for shown_run in runs:
        run_artifacts += shown_run.artifacts
        caveats += shown_run.measurements.caveats
    label = _choose_file_label(runs[0]) if is_single else "compared"
    for figure in lay_out_page(groups).headlines:
        if figure not in run_artifacts:
            headline = replace(figure, title=extend_title(figure.title, caveats))
            file_title = f"headline-{figure.title.partition(';')[0]}"
            yield label, file_title, partial(save_figure, headline)

    # figures and sheets of each run
    for shown_run in runs:
        label = _choose_file_label(shown_run)
        for artifact in shown_run.artifacts:
            if not isinstance(artifact, Curve | Heatmap | Topomap | Sheet):
                continue
            if not is_informative(artifact):
                continue
            title = (
                artifact.title if is_single else f"{artifact.title}: {shown_run.label}"
            )
            title = extend_title(title, shown_run.measurements.caveats)
            save: Save
            if isinstance(artifact, Sheet):
                sheet = replace(artifact, title=title)
                save = partial(_save_sheet, sheet, shown_run.folder.path)
            else:
                save = partial(save_figure, replace(artifact, title=title))
            yield label, artifact.title, save


def _choose_file_label(shown_run: ShownRun) -> str:
    """Choose the label of a run in file names.

    If the label of the run abbreviates the name of its folder, other runs may have the
    same label. The name of the folder is taken then.
    """
    folder_label = shown_run.folder.label
    if not shown_run.variant and folder_label.startswith(shown_run.label):
        return folder_label
    return shown_run.label


def _make_slug(text: str) -> str:
    """Turn a text into a part of a file name: ASCII letters, digits and hyphens."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", ascii_text)
    return slug[:MAX_SLUG_LETTERS].strip("-")


def _save_sheet(sheet: Sheet, folder: Path, path: Path) -> None:
    """Save the first rows of a sheet below the headings of its columns.

    Args:
        sheet: The sheet.
        folder: Folder of its pictures.
        path: File to write.
    """
    rows = [[drawings.DrawnTile(None, [heading]) for heading in sheet.columns]]
    for row in sheet.rows[:MAX_SHEET_ROWS]:
        draw_tile = partial(_draw_tile, folder=folder)
        rows.append(list(map(draw_tile, row.tiles)))
    drawings.save_sheet(sheet.title, rows, path, WIDTH_INCH, PNG_DPI)


def _draw_tile(tile: SheetTile, folder: Path) -> drawings.DrawnTile:
    """Draw a tile: a picture or the still picture (poster) of a clip, with its text.

    Without a picture the tile is white.

    Args:
        tile: Tile of a sheet.
        folder: Folder of its files.
    """
    name = tile.poster or tile.file
    if name and Path(name).suffix not in CLIP_TYPES:
        _, picture = open_picture(folder / name)
    else:
        picture = Image.new("RGB", (1, 1), "white")
    return drawings.DrawnTile(picture, tile.lines, FRAME_COLOURS[tile.verdict])
