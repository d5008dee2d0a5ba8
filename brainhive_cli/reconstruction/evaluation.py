"""From reconstructions on disk to metrics, sheets and the page of a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import AfterValidator, Field

from brainhive_cli.core import console, recipe
from brainhive_cli.core.caveats import in_title, said_in, together
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Section
from brainhive_cli.core.results import Result
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.encoders import Encoders
from brainhive_cli.reconstruction.generated import GeneratedSet, Scored, metrics_of, write_values
from brainhive_cli.reconstruction.paired_tests import with_runs, with_sources
from brainhive_cli.reconstruction.scoring import (
    METRICS,
    Comparer,
    Truth,
    is_here,
    known_metrics,
    two_way_name,
)
from brainhive_cli.reconstruction.sheet_selection import sheets_of
from brainhive_cli.reconstruction.tables import tables, told
from brainhive_cli.reports.page import Section as PageSection
from brainhive_cli.reports.page import write_page


class Measuring(Section):
    """How reconstructions are compared with what was seen."""

    metrics: Annotated[recipe.Names, AfterValidator(known_metrics)] = Field(
        list(METRICS), description=f"of: {', '.join(METRICS)}"
    )
    metric_encoders: Encoders = Field(
        [], validate_default=True, description="more encoders for two-way identification"
    )
    protocol: Literal["brainhive", "mindeye2"] = Field(
        "brainhive", description="how pictures are sized for metrics"
    )
    metric_batch_size: int = Field(32, gt=0, description="pictures compared at once")
    sheet_rows: int = Field(12, ge=0, description="items on a sheet; 0 draws none")

    @property
    def measured(self) -> str:
        """What is measured, and which weights are still to be fetched for it."""
        names = [*self.metrics, *map(two_way_name, self.metric_encoders)]
        absent = [name for name in names if not is_here(name, self.metric_encoders)]
        return ", ".join(names) + (f"; weights not here yet: {', '.join(absent)}" if absent else "")


@dataclass(frozen=True)
class Stimuli:
    """What was seen, by image id.

    Attributes:
        open: Opens a picture.
        label: Says what it shows.
    """

    open: Callable[[str], Image.Image]
    label: Callable[[str], str]


def measure_run(
    folder: RunFolder,
    how: Measuring,
    drawn: Sequence[GeneratedSet],
    stimuli: Stimuli,
    split: str,
    launch: Launch,
    more: Mapping[str, Any],
) -> None:
    """Compare all reconstructions with their stimuli, draw the sheets and finish the run.

    Args:
        folder: The run.
        how: Which metrics, by which protocol.
        drawn: The reconstructions; the first source is the one that the run is about.
        stimuli: What was seen.
        split: Whose pictures.
        launch: Those who share the work.
        more: What else the metrics file is to hold.
    """
    comparer = _load(how, launch)
    ids = list(dict.fromkeys(image_id for each in drawn for image_id in each.files))
    places = {image_id: place for place, image_id in enumerate(ids)}
    truth = Truth.of(comparer, [_opener(stimuli, image_id) for image_id in ids])
    scored = [Scored.of(each, truth, places, launch) for each in drawn]
    if not scored[0].values:
        raise BrainhiveError(
            "none of the metrics can be computed",
            "; ".join(told(comparer.missing)) or "two-way identification needs at least two pictures",
        )
    if not launch.is_main:
        return
    if len(ids) < 2 and comparer.comparisons:
        console.warn("one picture cannot be told from others: no two-way identification")
    if how.sheet_rows:
        sheets = sheets_of(scored, stimuli.open, stimuli.label, how.sheet_rows, how.protocol)
        for name, sheet in sheets.items():
            folder.replace(name, sheet.save)
    folder.replace("values.csv", lambda beside: write_values(beside, scored))
    caveats = together(*(said_in(each.made) for each in drawn))
    metrics = _figures(scored, how.protocol, split)
    metrics |= {"caveats": caveats, "missing": comparer.missing, **more}
    metrics["comparisons"] = with_sources(metrics)
    folder.replace("index.html", lambda beside: _write_page(beside, folder, metrics))
    folder.finish(metrics)


def open_run(
    label: str,
    what: Any,
    launch: Launch,
    again: bool,
    has_come: Callable[[str], bool] = lambda source: False,
) -> RunFolder:
    """Open a run of `reconstruct`, unfinished too if something has come that it lacked.

    Args:
        label: What a person would call it.
        what: Its recipe.
        launch: Those who share it.
        again: Start anew beside what is there.
        has_come: Whether a baseline that was missing can be made now.
    """
    folder = RunFolder.open("reconstruct", label, what, launch, again)
    if not folder.is_finished:
        return folder
    lacked = folder.metrics()
    if not (
        any(is_here(name, what.metric_encoders) for name in lacked["missing"])
        or any(has_come(source) for source in lacked.get("missing_sources", {}))
    ):
        return folder
    launch.barrier()
    if launch.is_main:
        (folder.path / FINISHED).unlink()
    launch.barrier()
    return RunFolder.open("reconstruct", label, what, launch)


def compare_with(folder: RunFolder, others: Sequence[RunFolder]) -> None:
    """Compare a finished run with others, and let its metrics and page say so.

    Raises:
        BrainhiveError: if a run cannot be paired with this one, or was made by an older version.
    """
    metrics = folder.metrics()
    beside = {str(other.path): other.metrics() for other in others}
    for name, each in {str(folder.path): metrics, **beside}.items():
        if any("subject" not in cell for cell in each["cells"].values()):
            raise BrainhiveError(f"{name} was made by an older version", "run its command again with --again")
    metrics["against"] = with_runs(metrics, str(folder.path), beside)
    folder.replace("index.html", lambda beside: _write_page(beside, folder, metrics))
    folder.finish(metrics)


def _load(how: Measuring, launch: Launch) -> Comparer:
    """Load what is compared by, the main process first: what it fetches, the others find."""
    if not launch.is_main:
        launch.barrier()
    comparer = Comparer.load(how.metrics, how.metric_encoders, how.protocol, how.metric_batch_size, launch)
    if launch.is_main:
        launch.barrier()
    return comparer


def _opener(stimuli: Stimuli, image_id: str) -> Callable[[], Image.Image]:
    return lambda: stimuli.open(image_id)


def _figures(scored: Sequence[Scored], protocol: str, split: str) -> dict[str, Any]:
    def figures(some: Sequence[Scored]) -> dict[str, Any]:
        how = f"{protocol}, {some[0].drawn.made}"
        return {name: metric.as_dict() for name, metric in metrics_of(some, how, split).items()}

    names = dict.fromkeys(each.drawn.source for each in scored)
    sources = {source: figures([each for each in scored if each.drawn.source == source]) for source in names}
    cells = {
        each.drawn.name: {
            "source": each.drawn.source,
            "title": each.drawn.title,
            "subject": each.drawn.subject,
            "metrics": figures([each]),
            "items": each.items,
        }
        for each in scored
    }
    return {"overall": next(iter(sources.values())), "sources": sources, "cells": cells}


def result_of(folder: RunFolder) -> Result:
    """Read back a finished run; metrics that are missing are told again."""
    metrics = folder.metrics()
    for line in told(metrics["missing"], metrics.get("missing_sources", {})):
        console.warn(line)
    files = {
        name: folder.path / f"{name.replace(' ', '_')}.png" for name in ("contact sheet", "best", "worst")
    }
    files["page"] = folder.path / "index.html"
    found = {name: path for name, path in files.items() if path.is_file()}
    return Result(folder.path, tables(metrics), metrics, found)


def _write_page(path: Path, folder: RunFolder, metrics: Mapping[str, Any]) -> None:
    sheets = sorted((folder.path / "sheets").rglob("*.png"))
    first = [folder.path / f"{name}.png" for name in ("contact_sheet", "best", "worst", "baselines/mean")]
    sections = [
        PageSection(
            "Metrics", "", tables(metrics), {}, told(metrics["missing"], metrics.get("missing_sources", {}))
        ),
        PageSection("Reconstructions", "", [], {f.stem: f for f in first if f.is_file()}),
        PageSection("From the best to the worst", "", [], {str(f): f for f in sheets}),
    ]
    title = in_title("Reconstruction", metrics["caveats"])
    write_page(path, title, str(folder.path.name), sections)
