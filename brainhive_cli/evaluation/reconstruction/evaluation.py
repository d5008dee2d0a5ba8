"""Metrics, sheets and tables of reconstructions."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainhive_cli.core.base import (
    BrainhiveError,
    Line,
    RecipeError,
    Table,
    console,
    keep_freed_memory,
)
from brainhive_cli.core.files import make_portable, resolve_below
from brainhive_cli.core.recipes import Paths, Published
from brainhive_cli.core.results import (
    ALL,
    MODEL_HEADING,
    ONE_COLOUR,
    CellFacts,
    Measurements,
    Metric,
    Scopes,
    choose_headlines,
    list_footnotes,
    merge_caveats,
    metric_title,
    scope,
    with_arrow,
)
from brainhive_cli.core.runs import (
    Artifact,
    Launch,
    Result,
    RunFolder,
    Sample,
    Sheet,
    SheetRow,
    SheetTile,
    Summary,
    artifacts,
    run_folder as runs,
)
from brainhive_cli.data.media import Clip, media_files
from brainhive_cli.evaluation.reconstruction.facts import ReconstructionFacts
from brainhive_cli.evaluation.reconstruction.metric_parts import (
    choose_metrics,
    is_two_way,
    load_metrics_and_encoders,
)
from brainhive_cli.evaluation.reconstruction.recipe import Recipe
from brainhive_cli.evaluation.reconstruction.scoring import (
    TRUTH,
    Annotation,
    GeneratedSet,
    Scorer,
    Stimuli,
    describe_annotation,
    find_originals_and_blanks,
    get_source_titles,
    measure_sets,
    rank_items,
    score_set,
    write_values,
)
from brainhive_cli.measurement import (
    StimulusGrouping,
    adjust_together,
    compare_runs,
    compare_sources,
)
from brainhive_cli.measurement.metrics import Medium
from brainhive_cli.measurement.metrics.tasks import OBJECT, RECALL
from brainhive_cli.reports.figures import make_rank_bars
from brainhive_cli.reports.pages.page import FINDING
from brainhive_cli.reports.tables import (
    describe_metric,
    describe_sample,
    difference_table,
    make_metric_cell,
    make_rows,
    published_tables,
    tabulate_rows,
)

EXAMPLES_TITLE, RANKED_TITLE = "Examples", "From the best to the worst"
SHEETS_SECTION = "Reconstructions"
"""Heading of the sheets on a page."""
COMPARISONS_SECTION = "Comparisons"
"""Heading of the tables of differences on a page."""
FLOOR, THIS_RUN = "shuffled", "this run"


def measure_run(
    folder: RunFolder,
    recipe: Recipe,
    generated: Sequence[GeneratedSet],
    stimuli: Stimuli,
    split: str,
    launch: Launch,
    missing: Mapping[str, str],
    facts: ReconstructionFacts,
) -> Summary:
    """Score all reconstructions, and compute the metrics of a run.

    The processes share the scoring, and the main process does the rest.

    Args:
        folder: Folder of the run.
        recipe: Recipe with the metrics and the protocol.
        generated: Reconstructions. The first source is the main source of the run.
        stimuli: Stimuli by image id.
        split: Split of the stimuli.
        launch: Processes. Each of them calls this function.
        missing: Advice for each source that could not be made.
        facts: Models, settings and warnings, which are stored with the metrics.

    Raises:
        BrainhiveError: if no metric can be computed.
    """
    stimulus = stimuli.open(next(iter(generated[0].files)))
    n_frames = len(stimulus.frames) if isinstance(stimulus, Clip) else None
    medium: Medium = "picture" if n_frames is None else "clip"
    scored, all_missing = _score_all_sets(recipe, generated, stimuli, n_frames, launch)
    require_values(scored[0].values, all_missing, medium)
    for generated_set in generated:
        # scores of captions need libraries, too
        all_missing |= generated_set.task_scores.missing
    all_missing |= missing
    facts = facts.model_copy(update={"medium": medium})
    write_results = partial(
        _write_results,
        folder,
        recipe,
        scored,
        stimuli,
        split,
        all_missing,
        facts,
    )
    return launch.run_on_main(write_results)


def _score_all_sets(
    recipe: Recipe,
    generated: Sequence[GeneratedSet],
    stimuli: Stimuli,
    n_frames: int | None,
    launch: Launch,
) -> tuple[list[GeneratedSet], dict[str, str]]:
    """Score all reconstructions.

    Returns:
        The scored sets, with a set of the stimuli themselves if a metric needs no
        reconstruction, and an advice for each metric that could not be computed.
    """
    keep_freed_memory()
    rows: dict[str, int] = {}
    for generated_set in generated:
        for image_id in generated_set.files:
            rows.setdefault(image_id, len(rows))

    # metrics that can be computed here
    names = choose_metrics("clip" if n_frames else "picture", recipe.metrics)
    load = partial(load_metrics_and_encoders, names, recipe.metric_encoders, launch)
    metrics, missing = launch.run_main_first(load)

    # score every set
    scorer = Scorer(
        metrics,
        recipe.protocol,
        recipe.metric_batch_size,
        launch.device,
        [partial(stimuli.open, image_id) for image_id in rows],
        n_frames,
    )
    scored = [score_set(media, scorer, rows, launch) for media in generated]

    # describe the stimuli themselves by metrics that need no reconstruction
    stimulus_values = scorer.describe_stimuli()
    if stimulus_values:
        truth_set = GeneratedSet(
            TRUTH,
            TRUTH,
            seeds=(),
            files={image_id: [Path(image_id)] for image_id in rows},
            description="the stimuli themselves",
            values=stimulus_values,
        )
        scored.append(truth_set)
    has_identification = any(metric.is_identification for metric in metrics.values())
    if len(rows) < 2 and has_identification:
        console.warn(
            "one picture cannot be distinguished from others: no two-way identification"
        )
    return scored, missing


def _write_results(
    folder: RunFolder,
    recipe: Recipe,
    scored: list[GeneratedSet],
    stimuli: Stimuli,
    split: str,
    missing: Mapping[str, str],
    facts: ReconstructionFacts,
) -> Summary:
    """Write the values and decoded captions of a run, and compute its metrics."""
    # values of all files, decoded captions and concepts
    folder.replace("values.csv", lambda path: write_values(path, scored))
    decoded = {}
    for media in scored:
        captions = {}
        for image_id, annotation in media.annotations.items():
            captions[image_id] = {
                "caption": annotation.caption,
                "concepts": list(annotation.concepts),
            }
        if captions:
            decoded[scope(media.source, media.title)] = captions
    if decoded:
        folder.write_json("decoded.json", decoded)

    # reconstructions that show only one colour
    blank_files: list[str] = []
    for row, cell_set in enumerate(scored):
        if cell_set.source != scored[0].source:
            continue
        _, blanks = find_originals_and_blanks(cell_set, stimuli)
        if blanks:
            blank_files += make_portable(list(map(str, blanks)))
            caveats = [*cell_set.caveats, ONE_COLOUR]
            scored[row] = replace(cell_set, caveats=caveats)
    if blank_files:
        # Largest number of files in a warning. The metrics file lists all files.
        examples = ", ".join(blank_files[:5])
        console.warn(
            f"{len(blank_files)} {facts.medium}s are of one colour: {examples}"
        )

    # metrics with intervals, and comparisons of the first source with the others
    caveats = merge_caveats(*(media.caveats for media in scored))
    facts = facts.model_copy(update={"one_colour": blank_files, "caveats": caveats})
    measurements = _compute_measurements(
        scored, recipe.protocol, split, stimuli.grouping, facts
    )
    measurements |= Measurements(missing=missing)
    measurements = measurements.with_facts(comparisons=compare_sources(measurements))

    # sheets and tables for people
    files: list[Artifact] = []
    if recipe.sheet_rows:
        writer = SheetWriter(
            folder, scored, stimuli, recipe.sheet_rows, recipe.protocol, facts.medium
        )
        files += writer.write_sheets(measurements.scopes[ALL].get(OBJECT))
        files += draw_ranks(scored, facts)
    files += make_comparison_tables(measurements)
    return Summary(measurements, files)


@console.progress("computing statistics")
def _compute_measurements(
    scored: Sequence[GeneratedSet],
    protocol: str,
    split: str,
    grouping: StimulusGrouping,
    facts: ReconstructionFacts,
) -> Measurements:
    """Compute the metrics of each source, of each of its concepts, and of each cell."""
    sets_of_source = defaultdict[str, list[GeneratedSet]](list)
    for cell_set in scored:
        sets_of_source[cell_set.source].append(cell_set)

    # sources, and the recall of each concept
    scopes: Scopes = {ALL: {}}
    recalls = {}
    for source, source_sets in sets_of_source.items():
        description = f"{protocol}, {source_sets[0].protocol}"
        scopes[source] = measure_sets(source_sets, description, split, grouping)
        recalls[source] = measure_sets(
            source_sets, description, split, grouping, per_concept=True
        )
    # the first source gives the results of the run
    first_source = next(iter(sets_of_source))
    scopes[ALL] = scopes[first_source]
    for source, recall_of_concept in recalls.items():
        for concept, recall in recall_of_concept.items():
            scopes[scope(f"concept {concept}", source)] = {RECALL: recall}

    # cells, with the values of their items
    cells = {}
    items = {}
    units = grouping.make_items([list(cell_set.files) for cell_set in scored])
    for cell_set, unit_names in zip(scored, units.units, strict=True):
        name = scope(cell_set.source, cell_set.title)
        description = f"{protocol}, {cell_set.protocol}"
        scopes[name] = measure_sets([cell_set], description, split, grouping)
        cells[name] = CellFacts(
            source=cell_set.source, subject=cell_set.subject, title=cell_set.title
        )
        # means over repeats, with None instead of NaN
        columns: dict[str, list[Any]] = {"image_ids": list(cell_set.files)}
        for metric, values in cell_set.means.items():
            column = values.astype(object)
            column[np.isnan(values)] = None
            columns[metric] = column.tolist()
        columns["units"] = list(map(str, unit_names))
        items[name] = columns

    titles = get_source_titles(facts.medium)
    statistics_facts = {
        "units": units.kind,
        "unit_count": units.n_units,
        "stimuli": len(units.names),
        "scope": units.scope,
        "inflation": units.inflation,
        "sources": list(sets_of_source),
        "titles": {source: titles.get(source, source) for source in sets_of_source},
        "concepts": list(recalls[first_source]),
        "cells": cells,
    }
    facts = facts.model_copy(update=statistics_facts)
    return Measurements(scopes, facts=facts, items=items)


def choose_rank_metric(names: list[str]) -> str:
    """Choose the metric whose value gives the rank of a reconstruction's stimulus.

    Args:
        names: Names of the measured metrics.

    Returns:
        The first headline that is two-way identification, or else the first such
        metric. "" without such a metric.
    """
    for name in choose_headlines(names) + names:
        if is_two_way(name):
            return name
    return ""


def compute_rank(two_way: float, n_candidates: int) -> int:
    """Compute the rank of the seen stimulus for a reconstruction, from 1.

    Args:
        two_way: Share of the other stimuli that resemble the reconstruction less. Ties
            are misses, so they rank before the seen stimulus.
        n_candidates: Number of stimuli, with the seen one.
    """
    return n_candidates - round(two_way * (n_candidates - 1))


def draw_ranks(
    scored: Sequence[GeneratedSet], facts: ReconstructionFacts
) -> list[Artifact]:
    """Draw the ranks of the seen stimuli for all media of the first source.

    Returns:
        The figure. Nothing without a metric that gives ranks, or if people were tested
        on different numbers of stimuli.
    """
    first_sets = [media for media in scored if media.source == scored[0].source]
    metric = choose_rank_metric(list(scored[0].values))
    counts = {len(cell_set.files) for cell_set in first_sets}
    if not metric or len(counts) > 1:
        return []
    (n_candidates,) = counts
    ranks = []
    for cell_set in first_sets:
        for share in cell_set.values[metric].tolist():
            ranks.append(compute_rank(share, n_candidates))
    title = f"Ranks of the seen {facts.medium}, against chance: {metric_title(metric)}"
    value = f"share of {len(ranks):,} reconstructions"
    bars = make_rank_bars(title, ranks, n_candidates, value)
    note = list_footnotes(facts.caveats)
    return [replace(bars, section=FINDING, note=note)]


@dataclass(frozen=True)
class SheetWriter:
    """Writer of sheets, on which people see reconstructions next to stimuli.

    Attributes:
        run: Folder of the run.
        scored: Scored reconstructions.
        stimuli: Stimuli by image id.
        n_rows: Number of items on a sheet.
        protocol: Protocol of the comparison.
        medium: Medium of the stimuli.
        tiles: Tiles of files that are already written.
    """

    run: RunFolder
    scored: Sequence[GeneratedSet]
    stimuli: Stimuli
    n_rows: int
    protocol: str
    medium: str
    tiles: dict[tuple[str, str, str], SheetTile] = field(default_factory=dict)

    @console.progress("drawing sheets")
    def write_sheets(self, captions: Metric | None) -> list[Artifact]:
        """Write two sheets, which show stimuli next to reconstructions.

        The first shows random examples of a cell (trained model) of each source. The
        second shows all cells of the first source from the best item to the worst. Both
        show an item's first reconstruction.

        Args:
            captions: Share of decoded captions that name the object, for the notes.
        """
        first_set = self.scored[0]
        note = f"{self.protocol}, {first_set.protocol}"
        if captions:
            note += f"; {describe_metric(captions)}, {captions.n:,} tested"
        return [self._make_examples(note), self._make_ranking(note)]

    def _make_examples(self, note: str) -> Sheet:
        """Make a sheet of random items, with a column for each source."""
        # the first cell of each source that has media of its own
        set_of_source: dict[str, GeneratedSet] = {}
        for cell_set in self.scored:
            if cell_set.source != TRUTH and cell_set.media:
                set_of_source.setdefault(cell_set.source, cell_set)

        image_ids = list(self.scored[0].files)
        # Seed of the random choice of examples.
        examples_seed = 0
        order = np.random.default_rng(examples_seed).permutation(len(image_ids))
        random_ids = [image_ids[row] for row in order[: self.n_rows]]
        first_set = self.scored[0]
        rank_metric = choose_rank_metric(list(first_set.values))
        rows = []
        for image_id in random_ids:
            result_tiles = []
            for cell_set in set_of_source.values():
                if image_id in cell_set.files:
                    result_tiles.append(self._make_result_tile(cell_set, image_id))
                else:
                    result_tiles.append(SheetTile(""))
            stimulus_tile = self._make_stimulus_tile(image_id)
            row = SheetRow(image_id, [stimulus_tile] + result_tiles)
            if rank_metric:
                _, values = first_set.get_first_file(image_id)
                n_candidates = len(first_set.files)
                rank = compute_rank(values[rank_metric], n_candidates)
                row = replace(row, rank=rank, n_candidates=n_candidates)
            rows.append(row)

        title = EXAMPLES_TITLE
        if len(set_of_source) > 1:
            title += ", with ceiling, floor and baselines"
        titles = get_source_titles(self.medium)
        columns = ["seen"] + [titles.get(source, source) for source in set_of_source]
        noun = f"{self.medium}s"
        description = describe_sample(
            len(random_ids), len(image_ids), noun, examples_seed
        )
        subject = ""
        if first_set.subject is not None:
            subject = f"sub-{first_set.subject:02d}"
        return Sheet(
            title,
            columns,
            rows,
            Sample(len(image_ids), noun, examples_seed, subject),
            metric_title(rank_metric) if rank_metric else "",
            section=SHEETS_SECTION,
            note=f"{description}; {note}",
        )

    def _make_ranking(self, note: str) -> Sheet:
        """Make a sheet of items in even steps from the best to the worst."""
        # the best reconstruction of each item
        first_source = self.scored[0].source
        cell_sets = [media for media in self.scored if media.source == first_source]
        best_set_of: dict[str, GeneratedSet] = {}
        for cell_set, image_id in rank_items(cell_sets):
            best_set_of.setdefault(image_id, cell_set)
        ranked = list(best_set_of.items())

        n_steps = min(self.n_rows, len(ranked))
        steps = np.linspace(0, len(ranked) - 1, n_steps).round().astype(int)
        rows = []
        for step in np.unique(steps):
            image_id, cell_set = ranked[step]
            stimulus_tile = self._make_stimulus_tile(image_id, cell_set.title)
            result_tile = self._make_result_tile(cell_set, image_id)
            rows.append(SheetRow(image_id, [stimulus_tile, result_tile]))
        return Sheet(
            RANKED_TITLE,
            ["seen", "drawn"],
            rows,
            section=SHEETS_SECTION,
            note=f"In even steps; {note}",
        )

    def _make_stimulus_tile(self, image_id: str, cell_title: str = "") -> SheetTile:
        """Make the tile of a stimulus, with its label and annotation."""
        annotation = self.stimuli.get_annotation(image_id)
        lines = [self.stimuli.get_label(image_id).replace("_", " ")]
        lines += filter(None, cell_title.split("/"))
        if self.medium == "clip":
            lines += describe_annotation(annotation)
        stimulus = self.stimuli.open(image_id)
        tile = self._write_tile("seen", "seen", image_id, stimulus, annotation)
        return replace(tile, lines=lines)

    def _make_result_tile(self, cell_set: GeneratedSet, image_id: str) -> SheetTile:
        """Make the tile of the first reconstruction of an item, with its values."""
        file, values = cell_set.get_first_file(image_id)
        annotation = cell_set.annotations.get(image_id, Annotation())
        # a page can show only files in the folder of the run, so others are copied
        path = file.resolve()
        root = self.run.path.resolve()
        if self.medium == "picture" and path.is_relative_to(root):
            tile = SheetTile(path.relative_to(root).as_posix())
        else:
            media = cell_set.open(file)
            tile = self._write_tile("made", cell_set.name, image_id, media, annotation)
        metrics: dict[str, float | None] = {
            metric_title(name): value for name, value in values.items()
        }
        return replace(tile, lines=describe_annotation(annotation), metrics=metrics)

    def _write_tile(
        self, kind: str, folder: str, image_id: str, media: Any, annotation: Annotation
    ) -> SheetTile:
        """Write a picture or clip for a tile, unless an earlier call has written it."""
        key = (kind, folder, image_id)
        if key not in self.tiles:
            if self.medium == "picture":
                picture = media_files.get_first_frame(media)
                name = f"{kind}/{len(self.tiles)}"
                file = artifacts.save_picture(self.run, name, picture)
                self.tiles[key] = SheetTile(file)
            else:
                self.tiles[key] = self._write_clip(folder, image_id, media, annotation)
        return self.tiles[key]

    def _write_clip(
        self, folder: str, image_id: str, media: Any, annotation: Annotation
    ) -> SheetTile:
        """Write a clip with outlined masks as a video, or without PyAV as WebP."""
        clip = media_files.to_clip(media)
        # Side of the clips on a page.
        clip_side_px = 224
        frames = media_files.outline_masks(clip.frames, annotation.masks, clip_side_px)
        rate_hz = clip.rate_hz or media_files.RATE_HZ
        path = resolve_below(
            Path("artifacts/clips", folder), image_id, source="the stimulus id"
        )
        name = path.as_posix()
        has_video = media_files.has_pyav()
        if has_video:
            file = f"{name}.mp4"
            write = partial(media_files.write_video, crf=media_files.SMALL_CRF)
        else:
            file = f"{name}.webp"
            write = partial(media_files.write_animation)
        self.run.replace(file, partial(write, frames, rate_hz=rate_hz))

        # a page shows the first frame until the clip plays
        first_frame = Image.fromarray(frames[0])
        poster = f"{name}-still.webp"
        save = partial(first_frame.save, format="WEBP", quality=80)
        self.run.replace(poster, save)
        return SheetTile(file, poster=poster if has_video else "")


def require_values(
    values: Collection[str], missing: Mapping[str, str], medium: Medium
) -> None:
    """Raise an error if no metric has a value.

    Args:
        values: Names of the metrics that have a value.
        missing: Advice for each other metric.
        medium: Medium of the stimuli.
    """
    if not values:
        advice = "; ".join(describe_missing_metrics(missing, medium))
        raise BrainhiveError(
            "none of the metrics can be computed",
            # if nothing is missing, there are too few items
            advice or "two-way identification needs at least two pictures",
        )


def find_runs_to_compare(paths: Paths, names: Sequence[str]) -> list[RunFolder]:
    """Find the finished runs to compare this run with, by name, label or path.

    Raises:
        RecipeError: if a run is a run of another command.
    """
    root = paths.under_home("runs")
    folders = []
    for name in runs.rejoin_labels(root, "reconstruct", names):
        folders.append(runs.find(root, "reconstruct", name))
    for folder in folders:
        # the folder may have been moved, so its path does not name the command
        facts = folder.measurements().facts
        if facts.command != "reconstruct":
            raise RecipeError(
                f"against: {folder.path} is a run of {facts.command}",
                "name runs of reconstruct",
            )
    return folders


def write_comparisons(folder: RunFolder, other_runs: Sequence[RunFolder]) -> None:
    """Compare a finished run with other runs, and store the differences in its folder.

    Raises:
        BrainhiveError: if the items of a run cannot be paired with the items of this
            run.
    """
    measurements = folder.measurements()
    pairs = {
        (THIS_RUN, str(run.path)): (measurements, run.measurements())
        for run in other_runs
    }
    against, errors = compare_runs(pairs)
    for error in errors.values():
        raise error

    # p-values of all comparisons of the run are adjusted together
    comparisons, against = adjust_together(
        source=measurements.facts.comparisons, run=against
    )
    measurements = measurements.with_facts(comparisons=comparisons, against=against)
    # replace the tables of an earlier call
    new_artifacts: list[Artifact] = [
        artifact
        for artifact in artifacts.read(folder)
        if artifact.section != COMPARISONS_SECTION
    ]
    new_artifacts += make_comparison_tables(measurements)
    artifacts.write(folder, new_artifacts)
    folder.finish(measurements)


def read_result(folder: RunFolder, published: Published | None) -> Result:
    """Read the result of a finished run, and warn of missing metrics.

    Args:
        folder: Folder of the run.
        published: Published numbers for the tables, or None.
    """
    measurements = folder.measurements()
    medium = measurements.require_facts(ReconstructionFacts).medium
    for line in describe_missing_metrics(measurements.missing, medium):
        console.warn(line)
    tables = make_tables(measurements, published)
    hint = Line("report", folder.path)
    return Result(folder.path, tables, measurements, hint=hint)


def make_tables(
    measurements: Measurements, published: Published | None = None
) -> tuple[Table, ...]:
    """Make the tables of a run, without empty tables.

    They show metrics by source and by cell, differences, and published numbers.
    """
    facts = measurements.require_facts(ReconstructionFacts)
    scopes = measurements.scopes
    metrics_of_source = {
        facts.titles[source]: scopes[source] for source in facts.sources
    }
    # cells of the first source
    metrics_of_cell = {
        cell.title: scopes[name]
        for name, cell in facts.cells.items()
        if cell.source == facts.sources[0]
    }

    # items for which the numbers hold, and missing metrics
    notes = []
    if facts.scope:
        notes.append(f"for {facts.scope}")
    if measurements.missing:
        titles = get_source_titles(facts.medium)
        missing = [titles.get(name, with_arrow(name)) for name in measurements.missing]
        notes.append(f"missing: {', '.join(missing)}")

    split = next(iter(measurements.overall.values())).split
    title = f"Reconstruction of {split} {facts.medium}s"
    metric_names = list(measurements.overall)
    note = "; ".join(notes)
    sources = make_rows(metrics_of_source)
    tables = [tabulate_rows(title, sources, "from", metric_names, note=note)]
    if len(metrics_of_cell) > 1:
        cells = make_rows(metrics_of_cell)
        tables.append(tabulate_rows("By model", cells, MODEL_HEADING))
    tables += make_comparison_tables(measurements)
    tables += published_tables(published.as_dict() if published else None)
    return tuple(table for table in tables if table.rows)


def make_comparison_tables(measurements: Measurements) -> list[Table]:
    """Make tables of differences and of the recall of concepts, without empty tables.

    The differences are between sources, and between runs. Concepts are sorted from the
    most to the least frequent.
    """
    facts = measurements.require_facts(ReconstructionFacts)
    titles = get_source_titles(facts.medium)
    differences = difference_table(facts.comparisons, titles, COMPARISONS_SECTION)
    if facts.sources[0] == "brain":
        title = "Reconstructions from the brain against each control"
        differences = replace(differences, title=title)
    tables = [
        differences,
        difference_table(facts.against, titles, COMPARISONS_SECTION),
    ]

    # recall of each concept, next to the recall from other items' signals
    first_source = facts.sources[0]
    recalls = []
    for concept in facts.concepts:
        concept_scope = f"concept {concept}"
        recall = measurements.scopes[scope(concept_scope, first_source)][RECALL]
        floor = measurements.scopes.get(scope(concept_scope, FLOOR), {}).get(RECALL)
        recalls.append((concept, recall, floor))
    recalls.sort(key=lambda row: -row[1].n)
    rows: list[list[Any]] = []
    for concept, recall, floor in recalls:
        cells = [make_metric_cell(recall), make_metric_cell(floor)]
        rows.append([concept, recall.n] + cells + [recall.chance])

    columns = (
        "concept",
        "tested",
        titles[first_source],
        titles[FLOOR],
        "chance of a guess",
    )
    title = "Recall of each concept among the likeliest, as many as a stimulus shows"
    tables.append(Table(title, columns, rows, section=COMPARISONS_SECTION))
    return [table for table in tables if table.rows]


def describe_missing_metrics(missing: Mapping[str, str], medium: str) -> list[str]:
    """Describe missing metrics and baselines, a line for all with the same advice.

    Args:
        missing: Advice by the name of the metric or source.
        medium: Medium of the stimuli.
    """
    titles = get_source_titles(medium)
    names_of = defaultdict[str, list[str]](list)
    for name, advice in missing.items():
        names_of[advice].append(titles.get(name, name))
    return [
        f"not measured: {', '.join(names)}: {advice}"
        for advice, names in names_of.items()
    ]
