"""From reconstructions on disk to the metrics and artifacts of a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from brainhive_cli.core import artifacts, console
from brainhive_cli.core.caveats import find_caveats, merge_caveats
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import ALL, Measurements, Metric, scope
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.results import Result
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.data.command_lines import command
from brainhive_cli.data.datasets import Clip
from brainhive_cli.evaluation.reconstruction.annotations import Annotation, as_documents
from brainhive_cli.evaluation.reconstruction.clip_selection import ClipSelection
from brainhive_cli.evaluation.reconstruction.generated import GeneratedSet, Scored, metrics_of, write_values
from brainhive_cli.evaluation.reconstruction.metric_parts import is_here, load, names_for
from brainhive_cli.evaluation.reconstruction.recipe import PublishedScores, Scoring
from brainhive_cli.evaluation.reconstruction.scoring import Scorer
from brainhive_cli.evaluation.reconstruction.sheet_selection import Selection
from brainhive_cli.evaluation.reconstruction.tables import (
    COMPARISONS,
    comparison_tables,
    missing_lines,
    tables,
    titles_of,
)
from brainhive_cli.measurement.metrics.tasks import RECALL
from brainhive_cli.measurement.paired_runs import compare_runs, compare_sources
from brainhive_cli.measurement.units import Alike
from brainhive_cli.models.encoders import EncoderConfig

"""The section of tables that are written again when a run is compared with others."""
CONTACT_SHEET = "contact_sheet.png"


@dataclass(frozen=True)
class Stimuli:
    """What was seen, by image id: functions that open a picture or a clip, and say what it shows.

    `alike` says which are.
    """

    open: Callable[[str], Any]
    label: Callable[[str], str]
    annotation: Callable[[str], Annotation] = lambda image_id: Annotation()
    alike: Alike = field(default_factory=Alike)


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
    if decoded := {each.scope: as_documents(each.annotations) for each in generated if each.annotations}:
        folder.write_json("decoded.json", decoded)
    caveats = merge_caveats(*(find_caveats(each.described) for each in generated))
    notes = {"caveats": caveats, "medium": "clip" if frames else "picture", **notes}
    found = _measurements(scored, scoring.protocol, split, stimuli.alike, notes)
    for each in generated:
        missing_metrics |= each.tasks.missing
    found = replace(found, missing={**missing_metrics, **missing})
    found = replace(found, notes={**found.notes, "comparisons": compare_sources(found)})
    artifacts.write(folder, [*_shown(folder, scoring, scored, stimuli, frames), *comparison_tables(found)])
    folder.finish(found)


def _shown(
    folder: RunFolder, scoring: Scoring, scored: Sequence[Scored], stimuli: Stimuli, frames: int | None
) -> list[artifacts.Artifact]:
    """Write what people are shown: pictures, or clips that play; nothing where no rows are wanted."""
    how = (scoring.sheet_rows, scoring.protocol)
    if not scoring.sheet_rows:
        return []
    if frames:
        opened = (stimuli.open, stimuli.label, stimuli.annotation)
        return ClipSelection(folder, scored, *opened, *how).artifacts()
    selection = Selection(folder, scored, stimuli.open, stimuli.label, *how)
    folder.replace(CONTACT_SHEET, selection.contact_sheet().save)
    return [*selection.sheets()]


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


def compare_with(folder: RunFolder, others: Sequence[RunFolder]) -> None:
    """Compare a finished run with others, and write it into its metrics and artifacts.

    Raises:
        BrainhiveError: if a run cannot be paired with this one.
    """
    with folder.reading() as found:
        runs = {str(other.path): other.measurements() for other in others}
        against = compare_runs(found, str(folder.path), runs)
    found = replace(found, notes={**found.notes, "against": against})
    kept = [each for each in artifacts.read(folder) if each.section != COMPARISONS]
    artifacts.write(folder, [*kept, *comparison_tables(found)])
    folder.finish(found)


def result_of(folder: RunFolder, published: PublishedScores | None = None) -> Result:
    """Read back a finished run, with what was published of it, and warn of what is missing."""
    sheet = folder.path / CONTACT_SHEET
    existing = {"contact sheet": sheet} if sheet.is_file() else {}
    with folder.reading() as found:
        for line in missing_lines(found.missing, found.notes.get("medium", "picture")):
            console.warn(line)
        hint = command("report", None, [], str(folder.path))
        return Result(folder.path, tables(found, published), found, existing, hint)


def _score(
    scoring: Scoring,
    generated: Sequence[GeneratedSet],
    stimuli: Stimuli,
    frames: int | None,
    launch: Launch,
) -> tuple[list[Scored], dict[str, str]]:
    """Score all reconstructions; also give the metrics that are missing, with the way to get them."""
    ids = list(dict.fromkeys(image_id for each in generated for image_id in each.files))
    names = names_for("clip" if frames else "picture", scoring.metrics)
    if not launch.is_main:
        launch.barrier()  # what the main process downloads, the others find
    parts, missing = load(names, scoring.metric_encoders, launch)
    if launch.is_main:
        launch.barrier()
    opens = [partial(stimuli.open, image_id) for image_id in ids]
    scorer = Scorer(parts, scoring.protocol, scoring.metric_batch_size, launch.device, opens, frames)
    rows = {image_id: row for row, image_id in enumerate(ids)}
    scored = [Scored.of(each, scorer, rows, launch) for each in generated]
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

    sources = list(dict.fromkeys(each.generated.source for each in scored))
    of_source = {source: [each for each in scored if each.generated.source == source] for source in sources}
    scopes = {source: metrics(some) for source, some in of_source.items()}
    scopes = {ALL: scopes[sources[0]], **scopes}
    recalls = {source: metrics(some, by_concept=True) for source, some in of_source.items()}
    for source, metric_of in recalls.items():
        scopes |= {scope(f"concept {name}", source): {RECALL: metric} for name, metric in metric_of.items()}
    titles = {source: titles_of(notes["medium"]).get(source, source) for source in sources}
    cells, items = {}, {}
    units = alike.items([list(each.generated.files) for each in scored])
    for each, unit_names in zip(scored, units.units, strict=True):
        of = each.generated
        scopes[of.scope] = metrics([each])
        cells[of.scope] = {"source": of.source, "subject": of.subject, "title": of.title}
        items[of.scope] = {**each.items, "units": [str(unit) for unit in unit_names]}
    return Measurements(
        scopes,
        notes={
            **notes,
            "units": units.kind,
            "unit_count": units.count,
            "sources": sources,
            "titles": titles,
            "concepts": list(recalls[sources[0]]),
            "cells": cells,
        },
        items=items,
    )
