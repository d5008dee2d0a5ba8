"""From reconstructions on disk to the metrics and artifacts of a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from brainhive_cli.core import artifacts, console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import ALL, Measurements, Metric, find_caveats, merge_caveats, scope
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.results import Result
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.data.command_lines import command
from brainhive_cli.data.datasets import Clip
from brainhive_cli.evaluation.reconstruction.annotations import as_documents
from brainhive_cli.evaluation.reconstruction.metric_parts import is_here, load, names_for
from brainhive_cli.evaluation.reconstruction.recipe import PublishedScores, Scoring
from brainhive_cli.evaluation.reconstruction.scoring import (
    GeneratedSet,
    Scored,
    Scorer,
    Stimuli,
    metrics_of,
    write_values,
)
from brainhive_cli.evaluation.reconstruction.selections import CONTACT_SHEET, Selection
from brainhive_cli.evaluation.reconstruction.tables import (
    COMPARISONS,
    comparison_tables,
    missing_lines,
    tables,
    titles_of,
)
from brainhive_cli.measurement.comparison import compare_runs, compare_sources
from brainhive_cli.measurement.metrics.tasks import RECALL
from brainhive_cli.measurement.units import Alike
from brainhive_cli.models.encoders import EncoderConfig

"""The section of tables that are written again when a run is compared with others."""


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
    first = stimuli.open(next(iter(generated[0].files)))
    frames = len(first.frames) if isinstance(first, Clip) else None
    scored, missing_metrics = _score(scoring, generated, stimuli, frames, launch)
    if not scored[0].values:
        raise BrainhiveError(
            "none of the metrics can be computed",
            "; ".join(missing_lines(missing_metrics)) or "two-way identification needs at least two pictures",
        )
    if not launch.is_main:
        return
    folder.replace("values.csv", lambda path: write_values(path, scored))
    if decoded := {some.scope: as_documents(some.annotations) for some in generated if some.annotations}:
        folder.write_json("decoded.json", decoded)
    caveats = merge_caveats(*(find_caveats(some.described) for some in generated))
    notes = {"caveats": caveats, "medium": "clip" if frames else "picture", **notes}
    measurements = _measurements(scored, scoring.protocol, split, stimuli.alike, notes)
    for some in generated:
        missing_metrics |= some.tasks.missing
    measurements = replace(measurements, missing={**missing_metrics, **missing})
    compared = {"comparisons": compare_sources(measurements)}
    measurements = replace(measurements, notes={**measurements.notes, **compared})
    shown: list[artifacts.Artifact] = []
    if scoring.sheet_rows:
        selection = Selection(folder, scored, stimuli, scoring.sheet_rows, scoring.protocol)
        shown = selection.show_clips() if frames else selection.show_pictures()
    artifacts.write(folder, [*shown, *comparison_tables(measurements)])
    folder.finish(measurements)


def open_run(
    label: str,
    recipe: BaseRecipe,
    encoders: Sequence[EncoderConfig],
    launch: Launch,
    again: bool,
    is_source_here: Callable[[str], bool] = lambda source: False,
) -> RunFolder:
    """Open a run of `reconstruct`; a finished one is reopened if something that was missing is here now.

    Args:
        encoders: Those of two-way identification.
        is_source_here: Whether a source that was missing can be made now.

    The others are those of `RunFolder.open`.
    """
    folder = RunFolder.open("reconstruct", label, recipe, launch, again)
    if not folder.is_finished:
        return folder
    missing = folder.measurements().missing
    if not any(is_here(name, encoders) or is_source_here(name) for name in missing):
        return folder
    launch.barrier()
    if launch.is_main:
        (folder.path / FINISHED).unlink()
    launch.barrier()
    return RunFolder.open("reconstruct", label, recipe, launch)


def compare_with(folder: RunFolder, runs: Sequence[RunFolder]) -> None:
    """Compare a finished run with others, and write it into its metrics and artifacts.

    Raises:
        BrainhiveError: if a run cannot be paired with this one.
    """
    with folder.reading() as measurements:
        by_path = {str(run.path): run.measurements() for run in runs}
        against = compare_runs(measurements, str(folder.path), by_path)
    measurements = replace(measurements, notes={**measurements.notes, "against": against})
    unchanged = [artifact for artifact in artifacts.read(folder) if artifact.section != COMPARISONS]
    artifacts.write(folder, [*unchanged, *comparison_tables(measurements)])
    folder.finish(measurements)


def result_of(folder: RunFolder, published: PublishedScores | None = None) -> Result:
    """Read back a finished run, with what was published of it, and warn of what is missing."""
    sheet = folder.path / CONTACT_SHEET
    files = {"contact sheet": sheet} if sheet.is_file() else {}
    with folder.reading() as measurements:
        for line in missing_lines(measurements.missing, measurements.notes.get("medium", "picture")):
            console.warn(line)
        hint = command("report", None, [], str(folder.path))
        return Result(folder.path, tables(measurements, published), measurements, files, hint)


def _score(
    scoring: Scoring,
    generated: Sequence[GeneratedSet],
    stimuli: Stimuli,
    frames: int | None,
    launch: Launch,
) -> tuple[list[Scored], dict[str, str]]:
    """Score all reconstructions; also give the metrics that are missing, with the way to get them."""
    ids = list(dict.fromkeys(image_id for some in generated for image_id in some.files))
    names = names_for("clip" if frames else "picture", scoring.metrics)
    if not launch.is_main:
        launch.barrier()  # what the main process downloads, the others find
    parts, missing = load(names, scoring.metric_encoders, launch)
    if launch.is_main:
        launch.barrier()
    opens = [partial(stimuli.open, image_id) for image_id in ids]
    scorer = Scorer(parts, scoring.protocol, scoring.metric_batch_size, launch.device, opens, frames)
    rows = {image_id: row for row, image_id in enumerate(ids)}
    scored = [Scored.of(some, scorer, rows, launch) for some in generated]
    if of_stimuli := Scored.of_stimuli(scorer, ids):
        scored.append(of_stimuli)
    if len(ids) < 2 and any(part.is_identification for part in parts.values()) and launch.is_main:
        console.warn("one picture cannot be distinguished from others: no two-way identification")
    return scored, missing


def _measurements(
    scored: Sequence[Scored], protocol: str, split: str, alike: Alike, notes: Mapping[str, Any]
) -> Measurements:
    def metrics(some: Sequence[Scored], by_concept: bool = False) -> dict[str, Metric]:
        described = f"{protocol}, {some[0].generated.described}"
        return metrics_of(some, described, split, alike, by_concept)

    by_source: dict[str, list[Scored]] = {}
    for some in scored:
        by_source.setdefault(some.generated.source, []).append(some)
    first = next(iter(by_source))
    scopes = {source: metrics(some) for source, some in by_source.items()}
    scopes = {ALL: scopes[first], **scopes}
    recalls = {source: metrics(some, by_concept=True) for source, some in by_source.items()}
    for source, metric_of in recalls.items():
        scopes |= {scope(f"concept {name}", source): {RECALL: metric} for name, metric in metric_of.items()}
    titles = titles_of(notes["medium"])
    cells, items = {}, {}
    units = alike.items([list(some.generated.files) for some in scored])
    for some, unit_names in zip(scored, units.units, strict=True):
        of = some.generated
        scopes[of.scope] = metrics([some])
        cells[of.scope] = {"source": of.source, "subject": of.subject, "title": of.title}
        items[of.scope] = {**some.items, "units": [str(unit) for unit in unit_names]}
    return Measurements(
        scopes,
        notes={
            **notes,
            "units": units.kind,
            "unit_count": units.count,
            "sources": list(by_source),
            "titles": {source: titles.get(source, source) for source in by_source},
            "concepts": list(recalls[first]),
            "cells": cells,
        },
        items=items,
    )
