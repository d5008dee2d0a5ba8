"""Page of runs, made of their measurements and artifacts."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from brainhive_cli.core.base import MissingExtra, console, format_tick
from brainhive_cli.core.files import atomic_write
from brainhive_cli.core.results import (
    extend_title,
    list_footnotes,
    metric_title,
    second_interval_heading,
    with_arrow,
)
from brainhive_cli.core.runs import (
    MAX_RECIPE_BYTES,
    Artifact,
    BrainMap,
    Curve,
    CurveLine,
    Evoked,
    Heatmap,
    Sheet,
    SheetTile,
    Topomap,
)
from brainhive_cli.reports.figures import (
    PNG_DPI,
    WIDTH_INCH,
    drawings,
    is_informative,
    save_figure,
)
from brainhive_cli.reports.pages.page import (
    BY_HAND,
    CLIP_TYPES,
    FINDING,
    MAX_SHEET_ROWS,
    Page,
    PageGroup,
    PageSection,
    PicturePair,
    PicturePairs,
    group_artifacts,
    open_picture,
)
from brainhive_cli.reports.sentences.sentences import (
    describe_differences,
    describe_methods,
    list_citations,
    list_missing,
    list_warnings,
    name_page,
    state_finding,
)
from brainhive_cli.reports.tables import (
    ResultRow,
    RunGroup,
    ShownRun,
    describe_sample,
    lay_out_tables,
    list_runs,
)
from brainhive_cli.reports.templates import render

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
        title: Title of the page. The default names the data set and the question.
        commands: Command lines that repeat the runs.
        first_sections: Sections before the sections of the runs.
    """
    # reconstructions lead the page, because their pictures come from the signal
    runs = list_runs(groups)
    leading_runs = sorted(runs, key=lambda shown_run: not shown_run.sources)

    # begin with the differences of runs, or with the finding of the first run
    # runs of two commands may have the same label, such as a model and its test
    findings = {
        shown_run.folder.path: state_finding(shown_run.measurements)
        for shown_run in leading_runs
    }
    lead: list[str] = []
    for group in groups:
        lead += describe_differences(group)
    if not lead:
        lead = list(filter(None, findings.values()))[:1]

    headlines, top_run = _choose_headline_figures(groups, leading_runs)
    sections = list(first_sections)
    for group in groups:
        sections.append(_lay_out_group(group, findings, lead, top_run))
    sections += _lay_out_texts(groups, commands)
    return Page(
        title=title or name_page(groups),
        lead=lead,
        warnings=list_warnings(groups),
        sections=sections,
        pictures=choose_pictures(leading_runs),
        headlines=headlines,
        examples=_choose_examples(leading_runs),
        missing=list_missing(groups),
    )


def _choose_examples(runs: Sequence[ShownRun]) -> tuple[Sheet, Path] | None:
    """Return the first sheet of a finding with the folder of its files, or None."""
    for shown_run in runs:
        for artifact in shown_run.artifacts:
            if isinstance(artifact, Sheet) and artifact.section == FINDING:
                return artifact, shown_run.folder.path
    return None


def _choose_headline_figures(
    groups: Sequence[RunGroup], leading_runs: Sequence[ShownRun]
) -> tuple[Sequence[Curve | Heatmap | Topomap | BrainMap], ShownRun | None]:
    """Choose the figures at the top of a page.

    - One group of several runs with a main metric: a bar for each run.
    - Otherwise: the headline figures of the first run in `leading_runs` that has any.

    Returns:
        The figures, and the run that they belong to, or None if they compare runs.
    """
    if len(groups) == 1 and len(groups[0].runs) > 1:
        main_metric = next(iter(groups[0].runs[0].headlines), "")
        bars = _make_bars(groups[0].rows, main_metric)
        if bars:
            return [bars], None
    for shown_run in leading_runs:
        figures = choose_run_headlines(shown_run)
        if figures:
            return figures, shown_run
    return [], None


def _lay_out_group(
    group: RunGroup,
    findings: Mapping[Path, str],
    lead: Sequence[str],
    top_run: ShownRun | None,
) -> PageSection:
    """Lay out the page section of a group of runs.

    Args:
        group: The runs.
        findings: Sentences with the main result of each run, by its folder.
        lead: Sentences at the top of the page, which the section does not repeat.
        top_run: Run whose figures are at the top of the page, so that its section omits
            the artifacts of the finding. None if these figures compare runs.
    """
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

    sentences = []
    caveats: list[str] = []
    for shown_run in group.runs:
        caveats += shown_run.measurements.caveats
        finding = findings[shown_run.folder.path]
        if finding and finding not in lead:
            sentences.append(finding if is_single else f"{shown_run.label}: {finding}")

    first_run = group.runs[0]
    subtitle = first_run.name if is_single else f"{len(group.runs)}"
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
    """Lay out two sections of texts to copy: methods with citations, and recipes."""
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


def choose_pictures(runs: Sequence[ShownRun]) -> PicturePairs | None:
    """Choose pairs of stimuli and decoded pictures for the top of a page.

    They are the first 10 rows of the first sheet with a row that begins with
    two picture files: the stimulus and a decoded picture. A sheet is not sorted by
    score if it has a sample, and the first rows of a random order are a sample, too.

    Args:
        runs: The runs of the page, in the order in which they are tried.

    Returns:
        The pairs, or None without such a sheet.
    """
    for shown_run in runs:
        for artifact in shown_run.artifacts:
            if not isinstance(artifact, Sheet):
                continue
            pairs = []
            for row in artifact.rows:
                if len(row.tiles) < 2 or not all(tile.file for tile in row.tiles[:2]):
                    continue
                seen, decoded = row.tiles[:2]
                pairs.append(PicturePair(seen, decoded, row.rank, row.n_candidates))
            if pairs:
                # Largest number of pairs of pictures at the top of a page.
                return _describe_pairs(shown_run, artifact, pairs[:10])
    return None


def _describe_pairs(
    shown_run: ShownRun, sheet: Sheet, pairs: Sequence[PicturePair]
) -> PicturePairs:
    """Write the heading and the note of pairs of pictures from a sheet."""
    # a heading such as `drawn` or a rank tells readers little
    heading = sheet.columns[1]
    sources = shown_run.measurements.facts.sources
    if heading in ("drawn", *sources[:1]) or heading.isdecimal():
        heading = "drawn from the signal" if sources else "retrieved first"

    # the note of a sheet without a sample begins with the choice of its rows
    sample = sheet.sample
    choice = sheet.note.partition(";")[0]
    if sample:
        choice = describe_sample(len(pairs), sample.n_tested, sample.noun, sample.seed)
        choice += ", not chosen by score"
        if sample.subject:
            choice += f"; signals of {sample.subject}"
    note = render(
        "pairs.txt",
        choice=choice,
        is_ranked=any(pair.rank is not None for pair in pairs),
        ranked_by=sheet.ranked_by,
        stimulus=shown_run.measurements.facts.paired_stimulus,
    )
    folder = shown_run.folder.path
    return PicturePairs(sheet.columns[0], heading, pairs, folder, note)


def choose_run_headlines(
    shown_run: ShownRun,
) -> list[Curve | Heatmap | Topomap | BrainMap]:
    """Choose the figures of a run for the top of a page.

    - Figures of the run's finding. Retrieval and reconstruction add bars of the main
      metric, if there are several.
    - Otherwise: the figure of the most important metric, if it shows anything.
    """
    figures: list[Curve | Heatmap | Topomap | BrainMap] = []
    for artifact in shown_run.artifacts:
        if artifact.section != FINDING:
            continue
        if isinstance(artifact, BrainMap):
            figures.append(artifact.locate(shown_run.folder.path))
        elif isinstance(artifact, Curve | Heatmap | Topomap):
            figures.append(artifact)

    # the figure of a finding replaces bars, except those of people or sources
    has_bars = shown_run.measurements.facts.has_bars
    curve = draw_headline(shown_run) if has_bars or not figures else None
    if curve and is_informative(curve) and (not figures or len(curve.at) > 1):
        figures.append(curve)
    return figures


def draw_headline(shown_run: ShownRun) -> Curve | None:
    """Draw the most important metric of a run as bars.

    - Run of reconstructions: a bar for each source of pictures.
    - Run with pooled metrics: a bar for all cells, and for each subject if there are 2
      to 10 subjects with one cell (trained model) each.
    - Other run: a bar for each run that a workflow compares.

    Returns:
        The bars, or None if no bar has the metric. In the last two cases, a line plot
        of the run (if it has one) replaces a single bar without an interval.
    """
    name = shown_run.main_headline
    if shown_run.sources:
        return _make_bars(shown_run.sources, name)
    rows = shown_run.compared
    if shown_run.metrics:
        rows = [ResultRow("all", shown_run.metrics)]
        cells = [cell for cell in shown_run.cells if cell.subject]
        has_one_cell_each = len({cell.subject for cell in cells}) == len(cells)
        # Largest number of subjects that have a bar at the top of a page.
        if has_one_cell_each and 1 < len(cells) <= 10:
            rows += [replace(cell, label=cell.subject) for cell in cells]
    bars = _make_bars(rows, name)
    if bars is None or len(bars.at) > 1:
        return bars
    (low,) = bars.lines[0].low or [None]
    if low is not None:
        return bars
    for artifact in shown_run.artifacts:
        if isinstance(artifact, Curve) and artifact.style == "lines":
            return artifact
    return bars


def _make_bars(rows: Sequence[ResultRow], name: str) -> Curve | None:
    """Draw a metric as a bar for each row, or return None if no row has the metric."""
    rows = [row for row in rows if name in row.metrics]
    if not rows:
        return None
    values = [row.metrics[name] for row in rows]
    line = CurveLine.from_metrics(metric_title(name), values)

    title = with_arrow(name)
    if values[0].low is not None:
        title += ", with 95 % intervals"
    if second_interval_heading(values) == "people in general":
        title += " for these subjects"
    if line.chance is not None:
        title += f"; broken line: chance, {format_tick(line.chance)}"
    return Curve(
        title,
        axis="",
        at=[row.label for row in rows],
        lines=[line],
        value="",
        style="bars",
    )


def save_figures(
    groups: Sequence[RunGroup],
    folder: Path,
    further_figures: Sequence[Curve] = (),
) -> list[Path]:
    """Save the figures and sheets of a page as SVG, PNG and PDF files.

    A sheet has its first `MAX_SHEET_ROWS` rows, and still pictures in place of clips.

    Args:
        groups: The runs of the page.
        folder: Folder of the files.
        further_figures: Figures of the page that belong to no run.

    Returns:
        The files, named `RUN-TITLE.SUFFIX`. Figures whose library is missing are left
        out, with a warning.
    """
    paths = []
    times_used = Counter[str]()
    figures = list(_list_figures(groups))
    for figure in further_figures:
        title = figure.title.partition(";")[0]
        figures.append(("methods", title, partial(save_figure, figure)))
    for label, title, save in figures:
        # number equal names; some file systems ignore case
        name = (
            "-".join(filter(None, (_make_slug(label), _make_slug(title)))) or "figure"
        )
        times_used[name.lower()] += 1
        number = times_used[name.lower()]
        if number > 1:
            name = f"{name}-{number}"
        try:
            for suffix in ("svg", "png", "pdf"):
                path = folder / f"{name}.{suffix}"
                with atomic_write(path, is_lasting=False) as temporary_path:
                    save(temporary_path)
                paths.append(path)
        except MissingExtra as error:
            console.warn(f"{name} is not drawn: {error.in_one_line}")
    return paths


def _list_figures(groups: Sequence[RunGroup]) -> Iterator[tuple[str, str, Save]]:
    """List the figures and sheets of a page.

    Yields:
        Label and title for the name of the file, and a function that saves to a path.
    """
    runs = list_runs(groups)
    is_single = len(runs) == 1

    # figures at the top of the page that are no artifact of a run
    run_artifacts: list[Artifact] = []
    caveats: list[str] = []
    for shown_run in runs:
        run_artifacts += shown_run.artifacts
        caveats += shown_run.measurements.caveats
    headline_label = _choose_file_label(runs[0]) if is_single else "compared"
    for figure in lay_out_page(groups).headlines:
        if figure not in run_artifacts and not isinstance(figure, BrainMap):
            headline = replace(figure, title=extend_title(figure.title, caveats))
            file_title = f"headline-{figure.title.partition(';')[0]}"
            yield headline_label, file_title, partial(save_figure, headline)

    # figures and sheets of each run
    for shown_run in runs:
        label = _choose_file_label(shown_run)
        for artifact in shown_run.artifacts:
            if isinstance(artifact, BrainMap):
                artifact = artifact.locate(shown_run.folder.path)
            if not isinstance(
                artifact, Curve | Heatmap | Topomap | Evoked | BrainMap | Sheet
            ):
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
    """Return the label of a run, or of its folder if the label abbreviates it."""
    folder_label = shown_run.folder.file_name
    if folder_label.startswith(shown_run.label):
        return folder_label
    return shown_run.label


def _make_slug(text: str) -> str:
    """Reduce a text to ASCII letters, digits and hyphens, for a file name."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", ascii_text)
    # Largest number of letters of a run's label, or of a title, in a file name.
    max_slug_letters = 60
    return slug[:max_slug_letters].strip("-")


def _save_sheet(sheet: Sheet, folder: Path, path: Path) -> None:
    """Save the first rows of a sheet, whose pictures are in `folder`, to `path`."""
    rows = [[drawings.DrawnTile(None, [heading]) for heading in sheet.columns]]
    for row in sheet.rows[:MAX_SHEET_ROWS]:
        draw_tile = partial(_draw_tile, folder=folder)
        rows.append(list(map(draw_tile, row.tiles)))
    drawings.save_sheet(sheet.title, rows, path, WIDTH_INCH, PNG_DPI)


def _draw_tile(tile: SheetTile, folder: Path) -> drawings.DrawnTile:
    """Draw a picture or the poster of a clip with its text, or else a white tile."""
    name = tile.poster or tile.file
    if name and Path(name).suffix not in CLIP_TYPES:
        _, picture = open_picture(folder / name)
    else:
        picture = Image.new("RGB", (1, 1), "white")
    # Colour of the frame of a sheet tile by its verdict. Other figures use the same
    # green and orange.
    frame_colours = {"": "#d9dde2", "right": "#009e73", "wrong": "#d55e00"}
    return drawings.DrawnTile(picture, tile.lines, frame_colours[tile.verdict])
