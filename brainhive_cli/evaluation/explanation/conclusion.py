"""What was found of all cells and subjects, put together: metrics, artifacts and figures of the run."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from brainhive_cli.core import artifacts, console, home
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Measurements, Metric, scope
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.set_up import SET_UP
from brainhive_cli.data.stores.recordings import Sensors
from brainhive_cli.evaluation.explanation.explained_artifacts import SECTION, all_artifacts
from brainhive_cli.evaluation.explanation.findings import (
    SIMILARITY,
    Finding,
    findings,
    overall,
    similarity_findings,
    summary_table,
)
from brainhive_cli.evaluation.explanation.found import Found
from brainhive_cli.evaluation.explanation.job import Job
from brainhive_cli.evaluation.explanation.reader import Reader
from brainhive_cli.evaluation.explanation.recipe import OF_MODEL
from brainhive_cli.evaluation.explanation.signal_profiles import Course, explain_similarity, names_of
from brainhive_cli.measurement.units import Items
from brainhive_cli.reports.artifact_figures import artifact_figure
from brainhive_cli.training.alignment.learned import describe_tested

FIGURES = "figures"
"""The folder of the run that they lie in."""
WITHOUT_MODEL = "no model"


def conclude(job: Job, folder: RunFolder, device: torch.device) -> Measurements:
    """Describe everything over all subjects; write the artifacts, and draw them.

    Args:
        job: The explanation.
        folder: Its run, with all parts.
        device: Where models are loaded.
    """
    readers = [job.reader(cells[0], subject, device) for subject, cells in job.subjects.items()]
    groups = {
        "model": [[_load(job, folder, cell, subject) for cell in cells] for subject, cells in _of_model(job)],
        "signals": [[_load(job, folder, None, subject)] for subject in _of_signals(job)],
    }
    missing = {
        name: reason
        for group in groups.values()
        for cells in group
        for found in cells
        for name, reason in found.missing.items()
    }
    found = _findings(job, groups, readers[0].shared)
    course = _similarity(job, readers, missing)
    without_model = f"{job.protocol}, {WITHOUT_MODEL}"
    if course is not None:
        found += similarity_findings(course, without_model, job.spec.split)
    recording = readers[0].selection.recording
    sensors = recording.space if isinstance(recording.space, Sensors) else None
    encoded = [cells[0] for cells in groups["signals"]]
    times_ms = readers[0].times_ms.round(3).tolist()
    shown = dict(all_artifacts(found, sensors, encoded, names_of(readers[0])[0], times_ms, course))
    has_map = any(isinstance(each, artifacts.Map) for each in shown.values())
    if sensors is not None and not has_map and any(each.axis == "sensor" for each in found):
        missing["head maps"] = "where the sensors lie is not known; pip install 'brainhive[raw]' for EEG"
    for name, reason in missing.items():
        console.warn(f"{name} left out: {reason}")
    table = summary_table(found, f"Explanation: {job.protocol}, {job.spec.split}")
    for name, artifact in shown.items() if job.spec.figures else ():
        figure = artifact_figure(artifact)
        for suffix in job.spec.figures:
            folder.replace(f"{FIGURES}/{name}.{suffix}", figure.savefig)
    listed = artifacts.Table(table.title, table.columns, table.rows, SECTION)
    artifacts.write(folder, [listed, *shown.values()])
    scopes = overall(found) | _scopes(found, course, without_model, job.spec.split)
    return Measurements(scopes, missing, _notes(job, found, course, readers[0].shared))


def _of_model(job: Job) -> list[tuple[int, Any]]:
    return [*job.subjects.items()] if job.analyses_of(OF_MODEL) else []


def _of_signals(job: Job) -> list[int]:
    return [*job.subjects] if "encoding" in job.spec.analyses else []


def _load(job: Job, folder: RunFolder, cell: Any, subject: int) -> Found:
    return Found.load(folder.path / job.part(cell, subject))


def _findings(job: Job, groups: dict[str, Any], pictures: Items) -> list[Finding]:
    seeds = sorted({cell.seed for cell in job.align.cells})
    found: list[Finding] = []
    if groups["model"]:
        found += findings(groups["model"], pictures, job.protocol, job.spec.split, seeds)
    if groups["signals"]:
        protocol = f"{job.protocol}, {WITHOUT_MODEL}"
        found += findings(groups["signals"], pictures, protocol, job.spec.split, ())
    return found


def _similarity(job: Job, readers: Sequence[Reader], missing: dict[str, str]) -> Course | None:
    if SIMILARITY not in job.spec.analyses:
        return None
    try:
        return explain_similarity(readers, job.levels(job.spec.split), job.spec)
    except BrainhiveError as error:
        missing[SIMILARITY] = error.in_one_line
        return None


def _scopes(
    found: Sequence[Finding], course: Course | None, protocol: str, split: str
) -> dict[str, dict[str, Metric]]:
    """Give all metrics by scope; several of one scope are put together."""
    scopes: dict[str, dict[str, Metric]] = {}
    for each in found:
        for name, metrics in each.scopes.items():
            scopes.setdefault(name, {}).update(metrics)
    if course is None:
        return scopes
    for place, lower, upper in zip(course.at, course.found.lower, course.found.upper, strict=True):
        ends = {"ceiling_lower": lower, "ceiling_upper": upper}
        how = (course.pictures.size, None, None, None, None, (), protocol, split, "none")
        metrics = {
            name: Metric(name, float(value), *how) for name, value in ends.items() if np.isfinite(value)
        }
        if metrics:
            label = f"{place:g} ms" if isinstance(place, float) else place
            scopes[scope(SIMILARITY, label)] = metrics
    return scopes


def _notes(job: Job, found: Sequence[Finding], course: Course | None, pictures: Items) -> dict[str, Any]:
    notes: dict[str, Any] = {
        "run": home.portable(str(job.align.folder.path)),
        "runs": [job.align.name],
        "dataset": job.align.dataset.name,
        "mode": job.align.mode,
        "protocol": job.protocol,
        "caveats": job.align.caveats(job.spec.split),
        **describe_tested([job.align.tested_pictures(job.spec.split)]),
        "draws": job.spec.draws,
        SET_UP: job.align.set_up(job.spec.split),
        "units": pictures.kind,
        "unit_count": pictures.count,
        "profiles": [each.note for each in found],
    }
    if course is not None and course.halves is not None:
        notes["similarity of halves"] = course.halves.tolist()
    return notes
