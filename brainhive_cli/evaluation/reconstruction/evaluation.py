"""From reconstructions on disk to the metrics, artifacts and tables of a run, or of a sweep."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any

from brainhive_cli.core import artifacts, console, runs
from brainhive_cli.core.device_memory import keep_freed_memory
from brainhive_cli.core.errors import BrainhiveError, RecipeError, Unfinished
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.lines import Line
from brainhive_cli.core.measurements import (
    ALL,
    LEVEL,
    Measurements,
    Metric,
    beside_heading,
    extend_tables,
    find_caveats,
    interval_text,
    is_difference,
    merge_caveats,
    scope,
)
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.results import Result
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.core.sweep import collect_variants
from brainhive_cli.core.tables import Table, adjustment_text, p_text
from brainhive_cli.data.datasets import Clip
from brainhive_cli.evaluation.reconstruction.metric_parts import choose_metrics, is_here, load
from brainhive_cli.evaluation.reconstruction.recipe import Recipe, Scoring
from brainhive_cli.evaluation.reconstruction.scoring import (
    TRUTH,
    GeneratedSet,
    Scored,
    Scorer,
    Stimuli,
    measure_sets,
    name_sources,
    write_values,
)
from brainhive_cli.evaluation.reconstruction.selections import CONTACT_SHEET, Selection
from brainhive_cli.measurement.comparison import adjust_together, compare_runs, compare_sources
from brainhive_cli.measurement.metric_names import with_arrow
from brainhive_cli.measurement.metrics.tasks import OBJECT, RECALL
from brainhive_cli.measurement.units import Alike
from brainhive_cli.reports.tables import published_tables

COMPARISONS = "Comparisons"
"""The heading under which a page shows differences."""
FLOOR = "shuffled"
MARK = "*"
"""After a value that differs from the first variant's, item by item."""


def open_run(
    label: str,
    recipe: Recipe,
    launch: Launch,
    again: bool,
    digests: Mapping[str, str],
    is_source_here: Callable[[str], bool] = lambda source: False,
) -> RunFolder:
    """Open a run of `reconstruct`; a finished one is reopened if something that was missing is here now.

    Args:
        is_source_here: Whether a source that was missing can be made now.

    The others are those of `RunFolder.open`.
    """
    # a finished run that lacks nothing, or nothing that is here now
    folder = RunFolder.open("reconstruct", label, recipe, launch, again, digests)
    missing = folder.measurements().missing if folder.is_finished else ()
    if not any(is_here(name, recipe.metric_encoders) or is_source_here(name) for name in missing):
        return folder

    # without its mark it is not finished
    if launch.only_reads:
        raise Unfinished(f"run {folder.name} lacks what is here now")
    launch.barrier()
    if launch.is_main:
        (folder.path / FINISHED).unlink()
    launch.barrier()
    return RunFolder.open("reconstruct", label, recipe, launch, digests=digests)


def measure_run(
    folder: RunFolder,
    scoring: Scoring,
    generated: Sequence[GeneratedSet],
    stimuli: Stimuli,
    split: str,
    launch: Launch,
    missing: Mapping[str, str],
    notes: Mapping[str, Any],
) -> None:
    """Compare all reconstructions with their stimuli, write the sheets and finish the run.

    Args:
        folder: The run.
        scoring: Which metrics, by which protocol.
        generated: The reconstructions; the first source is the one that the run is about.
        stimuli: What was seen.
        split: Part of the data set.
        launch: The processes that share the work.
        missing: Sources that could not be made, and how to get them.
        notes: More notes of the measurements.
    """
    # the values of all files; the main process writes them, and what was decoded in words
    first = stimuli.open(next(iter(generated[0].files)))
    frames = len(first.frames) if isinstance(first, Clip) else None
    medium = "picture" if frames is None else "clip"
    scored, missing_metrics = _score(scoring, generated, stimuli, frames, launch)
    if not scored[0].values:
        raise BrainhiveError(
            "none of the metrics can be computed",
            "; ".join(missing_lines(missing_metrics, medium))
            or "two-way identification needs at least two pictures",
        )
    if not launch.is_main:
        return
    folder.replace("values.csv", lambda path: write_values(path, scored))
    decoded = {
        reconstructions.scope: {
            image_id: {"caption": annotation.caption, "concepts": list(annotation.concepts)}
            for image_id, annotation in reconstructions.annotations.items()
        }
        for reconstructions in generated
        if reconstructions.annotations
    }
    if decoded:
        folder.write_json("decoded.json", decoded)

    # their means with intervals, and comparisons of the first source with the others
    caveats = merge_caveats(*(find_caveats(reconstructions.described) for reconstructions in generated))
    notes = {"caveats": caveats, "medium": medium, **notes}
    measurements = _measurements(scored, scoring.protocol, split, stimuli.alike, notes)
    for reconstructions in generated:
        missing_metrics |= reconstructions.tasks.missing
    measurements |= Measurements(
        missing={**missing_metrics, **missing}, notes={"comparisons": compare_sources(measurements)}
    )

    # what people are shown
    shown = []
    if scoring.sheet_rows:
        captions = measurements.scopes[ALL].get(OBJECT)
        selection = Selection(folder, scored, stimuli, scoring.sheet_rows, scoring.protocol, captions)
        shown = selection.show_clips() if medium == "clip" else selection.show_pictures()
    artifacts.write(folder, [*shown, *comparison_tables(measurements)])
    folder.finish(measurements)


def find_runs_to_compare(paths: Paths, names: Sequence[str]) -> list[RunFolder]:
    """Find the runs to compare with.

    Raises:
        RecipeError: if one is a sweep; the hint names its variants.
    """
    root = paths.under_home("runs")
    folders = [runs.find(root, "reconstruct", name) for name in names]
    for folder in folders:
        if swept := folder.measurements().notes.get("variants"):
            hint = " or ".join(variant["run"] for variant in swept.values())
            raise RecipeError(f"{folder.path.name} is a sweep: name the run of a variant", hint)
    return folders


def compare_with(folder: RunFolder, compared: Sequence[RunFolder]) -> None:
    """Compare a finished run with others, and write it into its metrics and artifacts.

    Raises:
        BrainhiveError: if a run cannot be paired with this one.
    """
    with folder.reading() as measurements:
        measurements_of = {str(run.path): run.measurements() for run in compared}
        against, errors = compare_runs(measurements, str(folder.path), measurements_of)
    if errors:
        raise errors[0]

    # p-values of all comparisons of the run are adjusted together
    comparisons, against = adjust_together(source=measurements.notes["comparisons"], run=against)
    measurements |= Measurements(notes={"comparisons": comparisons, "against": against})
    unchanged = [artifact for artifact in artifacts.read(folder) if artifact.section != COMPARISONS]
    artifacts.write(folder, [*unchanged, *comparison_tables(measurements)])
    folder.finish(measurements)


def read_result(folder: RunFolder, published: Mapping[str, Any] | None = None) -> Result:
    """Read back a finished run, with what was published of it, and warn of what is missing."""
    sheet = folder.path / CONTACT_SHEET
    files = {"contact sheet": sheet} if sheet.is_file() else {}
    with folder.reading() as measurements:
        for line in missing_lines(measurements.missing, measurements.notes["medium"]):
            console.warn(line)
        hint = Line("report", folder.path)
        return Result(folder.path, tables(measurements, published), measurements, files, hint)


def measure_variants(results: Mapping[str, Result]) -> Measurements:
    """Put the scopes of all variants together, after their names; nothing is pooled.

    The first is compared with the others; notes say why some cannot be.
    """
    # the first variant against each other one
    measured = {label: result.metrics for label, result in results.items()}
    (first, base), *following = measured.items()
    comparisons, errors = compare_runs(base, first, dict(following), noun="variant")

    # scopes of all, with notes of what each was made from
    collected = collect_variants(results)
    variants = {
        label: {**variant, "sources": measured[label].notes["sources"]}
        for label, variant in collected.notes["variants"].items()
    }
    notes = {
        "mode": base.notes["mode"],
        "medium": base.notes["medium"],
        "variants": variants,
        "comparisons": comparisons,
        "not_compared": [error.message for error in errors],
    }
    return collected | Measurements(notes=notes)


def _score(
    scoring: Scoring, generated: Sequence[GeneratedSet], stimuli: Stimuli, frames: int | None, launch: Launch
) -> tuple[list[Scored], dict[str, str]]:
    """Score all reconstructions; also give the metrics that are missing, with the way to get them."""
    # items, and the metrics that can be computed here
    keep_freed_memory()
    ids = list(dict.fromkeys(image_id for reconstructions in generated for image_id in reconstructions.files))
    names = choose_metrics("clip" if frames else "picture", scoring.metrics)
    if not launch.is_main:
        launch.barrier()  # what the main process downloads, the others find
    parts, missing = load(names, scoring.metric_encoders, launch)
    if launch.is_main:
        launch.barrier()

    # score every set, and the stimuli themselves by the metrics that need no reconstruction
    opens = [partial(stimuli.open, image_id) for image_id in ids]
    scorer = Scorer(parts, scoring.protocol, scoring.metric_batch_size, launch.device, opens, frames)
    rows = {image_id: row for row, image_id in enumerate(ids)}
    scored = [Scored.of(reconstructions, scorer, rows, launch) for reconstructions in generated]
    if values := scorer.describe():
        files = {image_id: [Path(image_id)] for image_id in ids}
        scored.append(
            Scored(GeneratedSet(TRUTH, TRUTH, (), files, described="the stimuli themselves"), values)
        )
    if len(ids) < 2 and any(part.is_identification for part in parts.values()) and launch.is_main:
        console.warn("one picture cannot be distinguished from others: no two-way identification")
    return scored, missing


@console.progress("computing statistics")
def _measurements(
    scored: Sequence[Scored], protocol: str, split: str, alike: Alike, notes: Mapping[str, Any]
) -> Measurements:
    """Collect the metrics of all, of each source, of each concept of a source, and of each cell."""
    groups: dict[str, list[Scored]] = {}
    for cell in scored:
        groups.setdefault(cell.generated.source, []).append(cell)

    # all of each source, and the recall of each concept; of the first also as the run's own numbers
    first = next(iter(groups))
    scopes: dict[str, dict[str, Metric]] = {ALL: {}}
    recalls = {}
    for source, group in groups.items():
        described = f"{protocol}, {group[0].generated.described}"
        scopes[source] = measure_sets(group, described, split, alike)
        recalls[source] = measure_sets(group, described, split, alike, per_concept=True)
    scopes[ALL] = scopes[first]
    for source, metric_of in recalls.items():
        scopes |= {scope(f"concept {name}", source): {RECALL: metric} for name, metric in metric_of.items()}

    # single cells, with the values of their items
    cells, items = {}, {}
    units = alike.items([list(cell.generated.files) for cell in scored])
    for cell, unit_names in zip(scored, units.units, strict=True):
        generated = cell.generated
        described = f"{protocol}, {generated.described}"
        scopes[generated.scope] = measure_sets([cell], described, split, alike)
        cells[generated.scope] = {
            "source": generated.source,
            "subject": generated.subject,
            "title": generated.title,
        }

        # a mean over repeats for each item and metric; None where an item has none
        columns: dict[str, list[Any]] = {"image_ids": list(generated.files)}
        for name, values in cell.means.items():
            columns[name] = [None if isnan(value) else value for value in values.tolist()]
        items[generated.scope] = {**columns, "units": [str(unit) for unit in unit_names]}

    # what pages and tables need besides the numbers
    titles = name_sources(notes["medium"])
    notes = {
        **notes,
        "units": units.kind,
        "unit_count": units.count,
        "scope": units.scope,
        "inflation": units.inflation,
        "sources": list(groups),
        "titles": {source: titles.get(source, source) for source in groups},
        "concepts": list(recalls[first]),
        "cells": cells,
    }
    return Measurements(scopes, notes=notes, items=items)


def tables(measured: Measurements, published: Mapping[str, Any] | None = None) -> tuple[Table, ...]:
    """Write the tables of a finished run; by cell where there are several; and what was published."""
    # metrics of the cells of the first source
    source = measured.notes["sources"][0]
    cells = {
        cell["title"]: measured.scopes[scope]
        for scope, cell in measured.notes["cells"].items()
        if cell["source"] == source
    }

    # a row for each source, then for each cell
    written = [_table_by_source(measured)]
    if len(cells) > 1:
        names = list(next(iter(cells.values())))
        rows = [
            (title, *(f"{metrics[name].value:.3f}" for name in names), metrics[names[0]].n)
            for title, metrics in cells.items()
        ]
        columns = ("cell", *map(with_arrow, names), "n")
        written.append(Table("By cell; intervals are in metrics.json", columns, rows))
    written += comparison_tables(measured)
    return (*written, *published_tables(published))


def comparison_tables(measured: Measurements) -> list[Table]:
    """Write the tables of differences, of the first source and the run from others, and that of concepts."""
    written = []
    titles = name_sources(measured.notes["medium"])
    if comparisons := measured.notes.get("comparisons", []):
        written.append(_differences_table(titles[measured.notes["sources"][0]], comparisons, titles))
    if against := measured.notes.get("against", []):
        caveats = merge_caveats(*(comparison["caveats"] for comparison in against))
        written += extend_tables([_differences_table("this run", against, titles)], caveats)

    # the recall of each concept, the most frequent first, next to that of shuffled pairs
    if concepts := measured.notes.get("concepts"):
        source, rows = measured.notes["sources"][0], []
        for concept in concepts:
            recall = measured.scopes[scope(f"concept {concept}", source)][RECALL]
            floor = measured.scopes.get(scope(f"concept {concept}", FLOOR), {}).get(RECALL)
            shuffled = "–" if floor is None else floor.value
            rows.append((concept, recall.n, recall.value, recall.interval_text(), shuffled, recall.chance))
        rows.sort(key=lambda row: -row[1])
        columns = ("concept", "n", titles[source], "95 % CI", titles[FLOOR], "chance of a guess")
        written.append(
            Table("Recall of each concept among the likeliest, as many as a stimulus shows", columns, rows)
        )
    return [replace(table, section=COMPARISONS) for table in written]


def sweep_tables(measured: Measurements, published: Mapping[str, Any]) -> tuple[Table, ...]:
    """Write one table of all variants and sources; values that differ from the first variant's are marked."""
    # metrics by variant and source, and those that differ from the first variant
    variants = measured.notes["variants"]
    comparisons = measured.notes["comparisons"]
    metrics_of = {
        (label, source): measured.scopes[scope(label, source)]
        for label, variant in variants.items()
        for source in variant["sources"]
    }
    names = list(dict.fromkeys(name for metrics in metrics_of.values() for name in metrics))
    differing = {
        (comparison["with"], name)
        for comparison in comparisons
        for name, m in comparison["metrics"].items()
        if is_difference(m["p_adjusted"])
    }

    # a row for each variant and source
    titles, rows = name_sources(measured.notes["medium"]), []
    for (label, source), metrics in metrics_of.items():
        is_first = source == variants[label]["sources"][0]
        values = []
        for name in names:
            mark = MARK if is_first and (label, name) in differing else ""
            values.append(f"{metrics[name].value:.3f}{mark}" if name in metrics else "–")
        rows.append((label, titles[source], *values, next(iter(metrics.values())).n))

    # the title says how it was tested
    protocol = next(iter(next(iter(metrics_of.values())).values())).protocol.partition(",")[0]
    title = f"Reconstruction, variant by variant, {protocol}; intervals are in metrics.json"
    if comparisons:
        tests, notes = _tests_and_notes(comparisons)
        marked = f"{MARK} differs from {next(iter(variants))}, p ≤ {LEVEL} ({tests})"
        title = "; ".join([title, marked, *notes])
    table = Table(title, ("variant", "from", *map(with_arrow, names), "n"), rows)
    return extend_tables([table, *published_tables(published)], measured.caveats)


def missing_lines(missing: Mapping[str, str], medium: str) -> list[str]:
    """Say which metrics and baselines are missing, and how to get them, once for those of one network."""
    names: dict[str, list[str]] = {}
    for name, way in missing.items():
        names.setdefault(way, []).append(name_sources(medium).get(name, name))
    return [
        f"not measured: {', '.join(same_way)}: {way}; then the same command measures them"
        for way, same_way in names.items()
    ]


def _table_by_source(measured: Measurements) -> Table:
    """Put every source's value of a metric below one another."""
    # a row for each metric and source, then metrics that are missing
    rows = []
    sources, medium = measured.notes["sources"], measured.notes["medium"]
    titles = name_sources(medium)
    metrics = [metric for source in sources for metric in measured.scopes[source].values()]
    heading = beside_heading(metrics)
    for name in measured.overall:
        for source in sources:
            if name not in measured.scopes[source]:
                continue
            m = measured.scopes[source][name]
            chance, pool = ("–" if value is None else value for value in (m.chance, m.pool))
            second = (m.beside_text(),) if heading else ()
            shown = (m.value, m.interval_text(), *second, m.n, pool, chance)
            rows.append((with_arrow(name), titles[source], *shown))
    for name in measured.missing:
        row = ("all", titles[name]) if name in titles else (with_arrow(name), "–")
        rows.append((*row, "missing", *["–"] * (5 if heading else 4)))

    # the title says what all numbers of a run have in common
    seeds = sorted({seed for metric in metrics for seed in metric.seeds})
    trained = f", {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}" if seeds else ""
    split = "" if metrics[0].split == "scored" else f" of {metrics[0].split} {medium}s"
    second = (heading,) if heading else ()
    columns = ("metric", "from", "value", "95 % CI", *second, "n", "pool", "chance")
    about = f"; for {measured.notes['scope']}" if measured.notes.get("scope") else ""
    return Table(f"Reconstruction{split}: {metrics[0].protocol}{trained}{about}", columns, rows)


def _differences_table(
    name: str, comparisons: Sequence[Mapping[str, Any]], titles: Mapping[str, str]
) -> Table:
    """Show by how much the reconstructions called `name` score more than others, metric by metric."""
    # a row for each comparison and metric
    rows = []
    for comparison in comparisons:
        other = titles.get(comparison["with"], f"…{comparison['with'][-9:]}")
        for metric, m in comparison["metrics"].items():
            is_more = (m["difference"] > 0) != m["lower_is_better"]
            is_shown = is_difference(m["p_adjusted"])
            better = (name if is_more else other) if is_shown else "–"
            interval, p = interval_text(m["low"], m["high"]), p_text(m["p_adjusted"])
            rows.append((with_arrow(metric), other, f"{m['difference']:+.3f}", interval, m["n"], p, better))

    # the title says how it was tested
    tests, notes = _tests_and_notes(comparisons)
    title = "; ".join([f"{name} less others, paired; p: {tests}", *notes])
    columns = ("metric", "less", "difference", "95 % CI", "n", "p", f"better (p ≤ {LEVEL})")
    return Table(title[0].upper() + title[1:], columns, rows)


def _tests_and_notes(comparisons: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """Name the tests of comparisons with their adjustment, and list what limits them."""
    tests = {m["test"] for comparison in comparisons for m in comparison["metrics"].values()}
    notes = dict.fromkeys(note for comparison in comparisons for note in comparison["notes"])
    return f"{', '.join(sorted(tests))}; {adjustment_text(comparisons[0]['adjusted_over'])}", list(notes)
