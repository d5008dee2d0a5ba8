"""From reconstructions on disk to the metrics, sheets and tables of a run, or of a
sweep.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainhive_cli.core import artifacts, console, runs
from brainhive_cli.core.artifacts import Artifact, Sheet, SheetRow, SheetTile
from brainhive_cli.core.command import Result
from brainhive_cli.core.device_memory import keep_freed_memory
from brainhive_cli.core.errors import BrainhiveError, Line, RecipeError
from brainhive_cli.core.facts import CellFacts, ReconstructionFacts
from brainhive_cli.core.files import make_portable, resolve_below
from brainhive_cli.core.jobs import Summary
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import (
    ALL,
    ONE_COLOUR,
    Measurements,
    Metric,
    extend_protocol,
    find_caveats,
    merge_caveats,
    metric_title,
    scope,
    with_arrow,
)
from brainhive_cli.core.recipe import Paths, Published
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.sweep import collect_variants
from brainhive_cli.core.tables import Table
from brainhive_cli.data.media import media_files
from brainhive_cli.data.media.stimuli import Clip
from brainhive_cli.evaluation.reconstruction.metric_parts import (
    choose_metrics,
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
from brainhive_cli.measurement.comparison import (
    adjust_together,
    compare_runs,
    compare_sources,
)
from brainhive_cli.measurement.metrics import Medium
from brainhive_cli.measurement.metrics.tasks import OBJECT, RECALL
from brainhive_cli.measurement.units import StimulusGrouping
from brainhive_cli.reports.tables import (
    SIGNIFICANCE_LEGEND,
    describe_adjustment,
    describe_metric,
    describe_sample,
    difference_table,
    get_significance_sign,
    make_metric_cell,
    metric_table,
    published_tables,
)

RANDOM, BEST_TO_WORST = "Examples", "From the best to the worst"
"""Titles of sheets."""
EXAMPLES_SEED = 0
"""Seed of the examples."""
SHEETS_SECTION = "Reconstructions"
"""The heading under which a page shows them."""
CLIP_SIDE_PX = 224
"""Side of the clips that people are shown."""
NO_ANNOTATION = Annotation()
COMPARISONS_SECTION = "Comparisons"
"""The heading under which a page shows differences."""
MAX_LISTED_FILES = 5
"""Files that a warning lists; the metrics file holds all."""
FLOOR, THIS_RUN = "shuffled", "this run"


@dataclass(frozen=True)
class SheetWriter:
    """The reconstructions of a run, and what is shown of them.

    Attributes:
        run: Where files for people are kept.
        scored: The reconstructions; the first source is the one that is shown in full.
        stimuli: What was seen.
        rows: Items on a sheet.
        protocol: How they were compared.
        medium: What they are.
        saved: Tiles of what is written, so that each is written once.
    """

    run: RunFolder
    scored: Sequence[GeneratedSet]
    stimuli: Stimuli
    rows: int
    protocol: str
    medium: str
    saved: dict[Any, SheetTile] = field(default_factory=dict)

    @console.progress("drawing sheets")
    def write_sheets(self, captions: Metric | None) -> list[Artifact]:
        """Write what is shown of pictures or clips, and list it.

        Examples are drawn at random, each source next to the others; from the best to
        the worst goes over all cells and subjects of the first source. All show one
        repeat.

        Args:
            captions: How often decoded captions, which stand below clips, name the
                object.
        """
        # the examples, by the first cell of each source that has media of its own
        first = self.scored[0]
        sources: dict[str, GeneratedSet] = {}
        for cell in self.scored:
            if cell.source != TRUTH and cell.media:
                sources.setdefault(cell.source, cell)
        ids = [*first.files]
        random_ids = [
            ids[row]
            for row in np.random.default_rng(EXAMPLES_SEED).permutation(len(ids))[
                : self.rows
            ]
        ]
        examples = []
        for image_id in random_ids:
            results = [
                self._result_tile(cell, image_id)
                if image_id in cell.files
                else SheetTile("")
                for cell in sources.values()
            ]
            examples.append(
                SheetRow(image_id, [self._stimulus_tile(image_id), *results])
            )

        # the best reconstruction of each item, in even steps over their ranks
        best: dict[str, GeneratedSet] = {}
        for cell, image_id in rank_items(
            [cell for cell in self.scored if cell.source == first.source]
        ):
            best.setdefault(image_id, cell)
        ranked = [*best.items()]
        steps = np.unique(
            np.linspace(0, len(ranked) - 1, min(self.rows, len(ranked)))
            .round()
            .astype(int)
        )
        rows = []
        for image_id, cell in (ranked[step] for step in steps):
            seen = self._stimulus_tile(image_id, cell.title)
            rows.append(SheetRow(image_id, [seen, self._result_tile(cell, image_id)]))

        # sheets of both
        note = f"{self.protocol}, {first.description}"
        if captions:
            note += f"; {describe_metric(captions)}, n {captions.n:,}"
        sampled = describe_sample(
            len(random_ids), len(ids), f"{self.medium}s", EXAMPLES_SEED
        )
        sample = f"{sampled}; {note}"
        titles = get_source_titles(self.medium)
        title = (
            RANDOM
            if len(sources) == 1
            else f"{RANDOM}, with ceiling, floor and baselines"
        )
        columns = ["seen", *(titles.get(source, source) for source in sources)]
        return [
            Sheet(title, columns, examples, section=SHEETS_SECTION, note=sample),
            Sheet(
                BEST_TO_WORST,
                ["seen", "made"],
                rows,
                section=SHEETS_SECTION,
                note=f"In even steps; {note}",
            ),
        ]

    def _stimulus_tile(self, image_id: str, cell: str = "") -> SheetTile:
        """Show a stimulus, with what it shows and the cell that it is next to."""
        annotation = self.stimuli.get_annotation(image_id)
        words = [
            self.stimuli.get_label(image_id).replace("_", " "),
            *filter(None, cell.split("/")),
        ]
        words += describe_annotation(annotation) if self.medium == "clip" else []
        return replace(
            self._save(
                "seen", "seen", image_id, self.stimuli.open(image_id), annotation
            ),
            lines=words,
        )

    def _result_tile(self, cell: GeneratedSet, image_id: str) -> SheetTile:
        """Show the first reconstruction of a stimulus, with what was decoded and its
        values.
        """
        (file, values), root = cell.get_first_file(image_id), self.run.path.resolve()
        decoded = cell.annotations.get(image_id, NO_ANNOTATION)
        # pages can show files of the run alone: pictures that lie in it, and copies of
        # others
        if self.medium == "picture" and file.resolve().is_relative_to(root):
            tile = SheetTile(file.resolve().relative_to(root).as_posix())
        else:
            tile = self._save("made", cell.name, image_id, cell.open(file), decoded)
        metrics: dict[str, Any] = {
            metric_title(name): value for name, value in values.items()
        }
        return replace(tile, lines=describe_annotation(decoded), metrics=metrics)

    def _save(
        self, kind: str, folder: str, image_id: str, media: Any, annotation: Annotation
    ) -> SheetTile:
        """Write a picture, or a clip with the outline of its key object and its first
        frame, once.
        """
        key = kind, folder, image_id
        if key in self.saved:
            return self.saved[key]
        if self.medium == "picture":
            picture = media_files.get_first_frame(media)
            self.saved[key] = SheetTile(
                artifacts.save_picture(self.run, f"{kind}/{len(self.saved)}", picture)
            )
            return self.saved[key]

        # a film where it can be encoded, else an animated picture; the rate of a clip
        # may be unknown
        clip = media_files.to_clip(media)
        frames = media_files.outline_masks(clip.frames, annotation.masks, CLIP_SIDE_PX)
        name = resolve_below(
            Path("artifacts/clips", folder), image_id, source="the stimulus id"
        ).as_posix()
        rate_hz = clip.rate_hz or media_files.RATE_HZ
        if media_files.has_pyav():
            file = f"{name}.mp4"
            write = partial(media_files.write_video, crf=media_files.SMALL_CRF)
        else:
            file = f"{name}.webp"
            write = partial(media_files.write_animation)
        self.run.replace(file, partial(write, frames, rate_hz=rate_hz))

        # its first frame, which a page shows until the clip plays
        still = Image.fromarray(frames[0])
        poster = f"{name}-still.webp"
        self.run.replace(poster, partial(still.save, format="WEBP", quality=80))
        self.saved[key] = SheetTile(
            file, poster=poster if file.endswith(".mp4") else ""
        )
        return self.saved[key]


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
    """Compare all reconstructions with their stimuli, and write the sheets.

    Args:
        folder: The run.
        recipe: Which metrics, by which protocol.
        generated: The reconstructions; the first source is the one that the run is
            about.
        stimuli: What was seen.
        split: Part of the data set.
        launch: The processes that share the work.
        missing: Sources that could not be made, and how to get them.
        facts: What is known of the reconstructions.
    """
    # the values of all files
    first = stimuli.open(next(iter(generated[0].files)))
    frames = len(first.frames) if isinstance(first, Clip) else None
    medium: Medium = "picture" if frames is None else "clip"
    scored, missing_metrics = _score_all_sets(
        recipe, generated, stimuli, frames, launch
    )
    require_values(scored[0].values, missing_metrics, medium)
    for reconstructions in generated:
        # scores of captions may lack a library, too
        missing_metrics |= reconstructions.task_scores.missing
    facts = facts.model_copy(update={"medium": medium})
    conclude = partial(
        _write_results,
        folder,
        recipe,
        generated,
        scored,
        stimuli,
        split,
        {**missing_metrics, **missing},
        facts,
    )
    return launch.run_on_main(conclude)


def _write_results(
    folder: RunFolder,
    recipe: Recipe,
    generated: Sequence[GeneratedSet],
    scored: list[GeneratedSet],
    stimuli: Stimuli,
    split: str,
    missing: Mapping[str, str],
    facts: ReconstructionFacts,
) -> Summary:
    """Write the values of all files and what was decoded in words; draw the sheets."""
    folder.replace("values.csv", lambda path: write_values(path, scored))
    decoded = {
        scope(reconstructions.source, reconstructions.title): {
            image_id: {
                "caption": annotation.caption,
                "concepts": list(annotation.concepts),
            }
            for image_id, annotation in reconstructions.annotations.items()
        }
        for reconstructions in generated
        if reconstructions.annotations
    }
    if decoded:
        folder.write_json("decoded.json", decoded)

    # reconstructions that show nothing
    blank = list[str]()
    for row, cell in enumerate(scored):
        if cell.source == scored[0].source and (
            files := find_originals_and_blanks(cell, stimuli)[1]
        ):
            blank += map(make_portable, map(str, files))
            described = extend_protocol(cell.description, [ONE_COLOUR])
            scored[row] = replace(cell, description=described)
    if blank:
        listed = ", ".join(blank[:MAX_LISTED_FILES])
        console.warn(f"{len(blank)} {facts.medium}s are of one colour: {listed}")
    facts = facts.model_copy(update={"one_colour": blank})

    # their means with intervals, and comparisons of the first source with the others
    caveats = merge_caveats(
        *(find_caveats(reconstructions.description) for reconstructions in scored)
    )
    facts = facts.model_copy(update={"caveats": caveats})
    measurements = _compute_measurements(
        scored, recipe.protocol, split, stimuli.grouping, facts
    )
    measurements |= Measurements(missing=missing)
    measurements = measurements.with_facts(comparisons=compare_sources(measurements))

    # what people are shown
    shown = []
    if recipe.sheet_rows:
        selection = SheetWriter(
            folder, scored, stimuli, recipe.sheet_rows, recipe.protocol, facts.medium
        )
        shown = selection.write_sheets(measurements.scopes[ALL].get(OBJECT))
    return Summary(measurements, [*shown, *make_comparison_tables(measurements)])


def require_values(
    values: Collection[str], missing: Mapping[str, str], medium: Medium
) -> None:
    """Refuse media without a value of any metric.

    Args:
        values: Names of the metrics that have one.
        missing: The way to get each other metric.
        medium: What the media are.
    """
    if not values:
        raise BrainhiveError(
            "none of the metrics can be computed",
            # without a missing library or network it is the number of items
            "; ".join(describe_missing_metrics(missing, medium))
            or "two-way identification needs at least two pictures",
        )


def find_runs_to_compare(paths: Paths, names: Sequence[str]) -> list[RunFolder]:
    """Find the runs to compare with.

    Raises:
        RecipeError: if one is of another command, or a sweep; the hint names its
            variants.
    """
    # a sweep has a result for each variant, so none that could be paired with another
    # run
    root = paths.under_home("runs")
    folders = [runs.find(root, "reconstruct", name) for name in names]
    for folder in folders:
        # the folder of a run may have been moved
        facts = folder.measurements().facts
        if facts.command != "reconstruct":
            raise RecipeError(
                f"against: {folder.path} is a run of {facts.command}",
                "name runs of reconstruct",
            )
        if facts.variants:
            hint = " or ".join(variant.run for variant in facts.variants.values())
            raise RecipeError(
                f"{folder.path.name} is a sweep: name the run of a variant", hint
            )
    return folders


def write_comparisons(folder: RunFolder, compared: Sequence[RunFolder]) -> None:
    """Compare a finished run with others, and write it into its metrics and artifacts.

    Raises:
        BrainhiveError: if a run cannot be paired with this one.
    """
    measurements = folder.measurements()
    measurements_of = {str(run.path): run.measurements() for run in compared}
    against, errors = compare_runs(measurements, THIS_RUN, measurements_of)
    if errors:
        raise errors[0]

    # p-values of all comparisons of the run are adjusted together
    comparisons, against = adjust_together(
        source=measurements.facts.comparisons, run=against
    )
    measurements = measurements.with_facts(comparisons=comparisons, against=against)
    # comparisons that an earlier call wrote are replaced
    unchanged = [
        artifact
        for artifact in artifacts.read(folder)
        if artifact.section != COMPARISONS_SECTION
    ]
    artifacts.write(folder, [*unchanged, *make_comparison_tables(measurements)])
    folder.finish(measurements)


def read_result(folder: RunFolder, published: Published | None) -> Result:
    """Read back a finished run, with what was published of it, and warn of what is
    missing.
    """
    measurements = folder.measurements()
    for line in describe_missing_metrics(
        measurements.missing, measurements.require_facts(ReconstructionFacts).medium
    ):
        console.warn(line)
    hint = Line("report", folder.path)
    return Result(
        folder.path, make_tables(measurements, published), measurements, hint=hint
    )


def combine_variants(results: Mapping[str, Result]) -> Measurements:
    """Put the scopes of all variants together, after their names; nothing is pooled.

    The first is compared with the others; the facts say why some cannot be.
    """
    # the first variant against each other one
    measured = {label: result.metrics for label, result in results.items()}
    (first, base), *following = measured.items()
    comparisons, errors = compare_runs(base, first, dict(following), noun="variant")

    # scopes of all; sources are those of each variant
    return collect_variants(results).with_facts(
        mode=base.facts.mode,
        medium=base.require_facts(ReconstructionFacts).medium,
        comparisons=comparisons,
        not_compared=[error.message for error in errors],
    )


def _score_all_sets(
    recipe: Recipe,
    generated: Sequence[GeneratedSet],
    stimuli: Stimuli,
    frames: int | None,
    launch: Launch,
) -> tuple[list[GeneratedSet], dict[str, str]]:
    """Score all reconstructions; also give the metrics that are missing, with the way
    to get them.
    """
    # items, and the metrics that can be computed here
    keep_freed_memory()
    ids = [*dict.fromkeys(chain(*(one.files for one in generated)))]
    names = choose_metrics("clip" if frames else "picture", recipe.metrics)
    parts, missing = launch.run_main_first(
        partial(load_metrics_and_encoders, names, recipe.metric_encoders, launch)
    )

    # score every set, and the stimuli themselves by the metrics that need no
    # reconstruction
    opens = [partial(stimuli.open, image_id) for image_id in ids]
    scorer = Scorer(
        parts, recipe.protocol, recipe.metric_batch_size, launch.device, opens, frames
    )
    rows = {image_id: row for row, image_id in enumerate(ids)}
    scored = [
        score_set(reconstructions, scorer, rows, launch)
        for reconstructions in generated
    ]
    if values := scorer.describe_stimuli():
        files = {image_id: [Path(image_id)] for image_id in ids}
        how = "the stimuli themselves"
        scored.append(
            GeneratedSet(TRUTH, TRUTH, (), files, description=how, values=values)
        )
    if len(ids) < 2 and any(part.is_identification for part in parts.values()):
        console.warn(
            "one picture cannot be distinguished from others: no two-way identification"
        )
    return scored, missing


@console.progress("computing statistics")
def _compute_measurements(
    scored: Sequence[GeneratedSet],
    protocol: str,
    split: str,
    alike: StimulusGrouping,
    facts: ReconstructionFacts,
) -> Measurements:
    """Collect the metrics of all, of each source, of each concept of a source, and of
    each cell.
    """
    groups = defaultdict[str, list[GeneratedSet]](list)
    for cell in scored:
        groups[cell.source].append(cell)

    # all of each source, and the recall of each concept; of the first also as the run's
    # own numbers
    first = next(iter(groups))
    scopes: dict[str, dict[str, Metric]] = {ALL: {}}
    recalls = {}
    for source, group in groups.items():
        described = f"{protocol}, {group[0].description}"
        scopes[source] = measure_sets(group, described, split, alike)
        recalls[source] = measure_sets(group, described, split, alike, per_concept=True)
    scopes[ALL] = scopes[first]
    for source, metric_of in recalls.items():
        scopes |= {
            scope(f"concept {name}", source): {RECALL: metric}
            for name, metric in metric_of.items()
        }

    # single cells, with the values of their items
    cells, items = {}, {}
    units = alike.make_items([list(cell.files) for cell in scored])
    for cell, unit_names in zip(scored, units.units, strict=True):
        name = scope(cell.source, cell.title)
        scopes[name] = measure_sets(
            [cell], f"{protocol}, {cell.description}", split, alike
        )
        cells[name] = CellFacts(
            source=cell.source, subject=cell.subject, title=cell.title
        )

        # a mean over repeats for each item and metric; None where an item has none
        columns: dict[str, list[Any]] = {"image_ids": list(cell.files)}
        for metric, values in cell.means.items():
            columns[metric] = [
                None if isnan(value) else value for value in values.tolist()
            ]
        items[name] = {**columns, "units": [str(unit) for unit in unit_names]}

    # what pages and tables need besides the numbers
    titles = get_source_titles(facts.medium)
    described_by = {
        "units": units.kind,
        "unit_count": units.n_units,
        "stimuli": len(units.names),
        "scope": units.scope,
        "inflation": units.inflation,
        "sources": list(groups),
        "titles": {source: titles.get(source, source) for source in groups},
        "concepts": list(recalls[first]),
        "cells": cells,
    }
    return Measurements(
        scopes, facts=facts.model_copy(update=described_by), items=items
    )


def make_tables(
    measured: Measurements, published: Published | None = None
) -> tuple[Table, ...]:
    """Lay out the tables of a run: by source, by cell of the first, differences,
    published values.
    """
    facts = measured.require_facts(ReconstructionFacts)
    scopes = measured.scopes
    # metrics by title, of sources and of cells
    sources = {facts.titles[source]: scopes[source] for source in facts.sources}
    split = next(iter(measured.overall.values())).split
    # cells of the source that the run is about; baselines have theirs in the metrics
    # file
    cells = {
        cell.title: scopes[name]
        for name, cell in facts.cells.items()
        if cell.source == facts.sources[0]
    }

    # which items the numbers hold for, and what could not be measured
    names = get_source_titles(facts.medium)
    missing = ", ".join(names.get(name, with_arrow(name)) for name in measured.missing)
    about = [
        f"for {facts.scope}" if facts.scope else "",
        f"missing: {missing}" if missing else "",
    ]
    title = f"Reconstruction of {split} {facts.medium}s"
    note = "; ".join(filter(None, about))

    # tables without rows are left out, as where a run has one cell
    laid_out = [
        metric_table(title, sources, "from", list(measured.overall), note=note),
        metric_table("By cell", cells if len(cells) > 1 else {}, "cell"),
        *make_comparison_tables(measured),
        *published_tables(published.as_dict() if published else None),
    ]
    return tuple(table for table in laid_out if table.rows)


def make_comparison_tables(measured: Measurements) -> list[Table]:
    """Lay out differences of the first source and the run from others, and the recall
    of each concept.
    """
    facts = measured.require_facts(ReconstructionFacts)
    titles = get_source_titles(facts.medium)
    compared = [
        difference_table(group, titles, COMPARISONS_SECTION)
        for group in (facts.comparisons, facts.against)
    ]

    # the recall of each concept, the most frequent first, next to that of shuffled
    # pairs
    recalls = {
        concept: {
            source: measured.scopes[name][RECALL]
            for source in (facts.sources[0], FLOOR)
            if RECALL
            in measured.scopes.get(name := scope(f"concept {concept}", source), {})
        }
        for concept in facts.concepts
    }

    # a row for each concept, with the chance of a guess next to the floor
    rows: list[list[Any]] = []
    for concept, recall in sorted(
        recalls.items(), key=lambda row: -row[1][facts.sources[0]].n
    ):
        first = recall[facts.sources[0]]
        rows.append(
            [
                concept,
                first.n,
                make_metric_cell(first),
                make_metric_cell(recall.get(FLOOR)),
                first.chance,
            ]
        )
    columns = (
        "concept",
        "n",
        titles[facts.sources[0]],
        titles[FLOOR],
        "chance of a guess",
    )
    title = "Recall of each concept among the likeliest, as many as a stimulus shows"
    recall_table = Table(title, columns, rows, section=COMPARISONS_SECTION)
    return [table for table in (*compared, recall_table) if table.rows]


def make_sweep_tables(
    measured: Measurements, published: Published | None
) -> tuple[Table, ...]:
    """Lay out all variants and sources; values that differ from the first variant's are
    marked.
    """
    facts = measured.facts
    titles = get_source_titles(measured.require_facts(ReconstructionFacts).medium)

    # a row for each variant and source, and the marks of those that were compared
    rows: dict[str, Mapping[str, Metric]] = {}
    marks: dict[tuple[str, str], str] = {}
    for label, variant in facts.variants.items():
        # the first source of a variant has its name; that one is compared
        label_of_source = {
            source: f"{label}, {titles[source]}" for source in variant.sources
        } | {variant.sources[0]: label}
        rows |= {
            name: measured.scopes[scope(label, source)]
            for source, name in label_of_source.items()
        }
        marks |= {
            (label, row.metric): get_significance_sign(row)
            for row in facts.comparisons
            if row.second == label
        }

    # what a mark means
    note = ""
    if facts.comparisons:
        note = (
            f"{SIGNIFICANCE_LEGEND}: differs from {next(iter(facts.variants))}; "
            f"{describe_adjustment(facts.comparisons)}"
        )
    table = metric_table("Variant by variant", rows, "variant", signs=marks, note=note)
    return (table, *published_tables(published.as_dict() if published else None))


def describe_missing_metrics(missing: Mapping[str, str], medium: str) -> list[str]:
    """Say which metrics and baselines are missing, and how to get them, once for those
    of one network.
    """
    # metrics of one network share the way to get it, and so one line
    names = defaultdict[str, list[str]](list)
    for name, way in missing.items():
        names[way].append(get_source_titles(medium).get(name, name))
    return [
        f"not measured: {', '.join(same_way)}: {way}" for way, same_way in names.items()
    ]
