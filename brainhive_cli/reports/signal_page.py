"""Page on the signals of a subject: evoked response, reliability and noise ceilings, by
split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.artifacts import Artifact, Curve, CurveLine, Heatmap, Topomap
from brainhive_cli.core.errors import BrainhiveError, DamagedStore
from brainhive_cli.core.measurements import list_footnotes, mark
from brainhive_cli.core.tables import Table
from brainhive_cli.data.files.hdf5 import short_name
from brainhive_cli.data.signals.reliability import measure_reliability
from brainhive_cli.data.signals.repetitions import WHITENED
from brainhive_cli.data.signals.space_files import write_maps
from brainhive_cli.data.signals.spaces import Sensors, Voxels
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.signal_store import SignalStore
from brainhive_cli.data.stores.store_tables import COUNTED, count_rows, describe_store
from brainhive_cli.reports.drawings import draw_slices
from brainhive_cli.reports.head_maps import draw_head, place_sensors
from brainhive_cli.reports.page import Page, PageSection, group_artifacts
from brainhive_cli.reports.tables import render

TIME_AXIS = "ms after onset"
"""Name of the axis of times."""
BY_REGION = "noise ceiling by region, %"
"""Name of the noise ceilings of regions among the numbers of a store."""
UNMIXED = "before whitening"
"""Unit of signals whose whitening was undone."""
MIXTURES = "whitened channels"
"""Unit of whitened signals whose whiteners are not known: each mixes channels, and has
no position.
"""
MAX_REGIONS = 8
"""Regions that one figure can distinguish."""
WORDS = {
    "tsnr": "Temporal signal-to-noise ratio",
    "ncsnr": "Noise-ceiling signal-to-noise ratio",
    "r2": "Variance that the model of the responses explains, %",
    "hrf_index": (
        "Haemodynamic response of each voxel: of the library's, from early to late"
    ),
    "fraction": "Fraction to which ridge regression shrinks betas",
}
"""Titles of maps."""


def write_signal_page(store: SignalStore, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Draw the figures of a store into a folder, with a page that holds them all, and
    write its maps.

    Args:
        store: One subject's signals.
        folder: Where figures, page and maps go, the last as `write_maps` names them.

    Returns:
        The page, and the figures by split: plain numbers for JSON.

    Raises:
        BrainhiveError: if no split has stimuli that were shown twice, and the store has
            no maps.
    """
    # a section for each split whose stimuli were repeated
    folder.mkdir(parents=True, exist_ok=True)
    name = short_name(store.path)
    sections = list[PageSection]()
    figures = dict[str, Any]()
    reasons = []
    headlines = list[Curve | Topomap]()
    leads = list[str]()
    first = next(iter(store.splits.values()))
    maps = {**first.space.maps} if isinstance(first.space, Voxels) else {}
    for split, recording in store.splits.items():
        try:
            counts, evoked, split_half, ceiling = measure_reliability(recording, split)
        except DamagedStore:
            raise
        except BrainhiveError as error:
            reasons.append(error)
            continue

        # figures of the split, of which the first stand beside the first sentence
        # alone, and their numbers
        if isinstance(recording.space, Voxels):
            drawn, numbers = _draw_voxels(
                split_half[:, 0], ceiling[:, 0], recording.space
            )
        else:
            drawn, numbers = _draw_sensors(evoked, split_half, recording)
        if not headlines:
            for kind in (Curve, Topomap):
                headlines += [
                    artifact for artifact in drawn if isinstance(artifact, kind)
                ][:1]
        best = split_half.argmax(1)  # sample [C]
        maps[f"{split} reliability"] = split_half.max(1)
        maps[f"{split} noise ceiling"] = ceiling.max(1)
        if not isinstance(recording.space, Voxels):
            maps[f"{split} reliability at ms"] = recording.times_s[best] * 1000
        numbers["stimuli"] = count = len(counts)
        # one number each for JSON, over channels and times
        measures = {"split-half reliability": split_half, "noise ceiling, %": ceiling}
        for measure, values in measures.items():
            numbers[f"median {measure}"] = float(np.median(values))
            numbers[f"highest {measure}"] = float(values.max())
        rows = [
            (key, value)
            for key, value in numbers.items()
            if not isinstance(value, dict)
        ]
        regions = [
            (region, *shares.values())
            for region, shares in numbers.get(BY_REGION, {}).items()
        ]
        tables = [
            Table(f"{name}, {split}: {count} stimuli", ("figure", "value"), rows),
            Table(
                "Noise ceiling by region",
                ("region", "voxels", "median, %", "90 % quantile, %"),
                regions,
            ),
        ]

        # headline figures are not shown twice
        shown = [artifact for artifact in drawn if artifact not in headlines]
        shown += [table for table in tables if table.rows]
        leads.append(render("signals.txt", numbers=numbers))
        # the first split's sentence leads the page, not its section
        lead = leads[-1:] if sections else []
        footnotes = list_footnotes(recording.caveats)
        sections.append(
            PageSection(
                split, group_artifacts([("", shown, folder)]), lead, footnotes=footnotes
            )
        )
        figures[split] = numbers

    # maps of voxels with known positions, which preparations have measured
    space = first.space
    if isinstance(space, Voxels) and space.maps and space.grid is not None:
        slices = [
            draw_slices(WORDS.get(key, key), values, space.grid, key)
            for key, values in space.maps.items()
        ]
        sections.append(PageSection("voxels", group_artifacts([("", slices, folder)])))
    if not maps:
        raise reasons[0]

    # all maps for other programs; whitened channels have no position
    if isinstance(space, Sensors) and first.unit == WHITENED:
        space = replace(space, positions=np.full((len(space.names), 3), np.nan))
    write_maps(folder, store.path.stem, maps, space)

    # trials, and steps of the preparation, as `check` lists them
    described = describe_store(store)
    steps = [(step, str(value)) for step, value in first.preparation.items()]
    tables = [Table("Trials", COUNTED, [*count_rows(described)])]
    tables += [Table("Preparation", ("step", "setting"), steps)] if steps else []
    sections.append(PageSection("recording", group_artifacts([("", tables, folder)])))

    # the page, with its headline figures
    page = folder / f"{store.path.stem}.html"
    title = mark(f"Signals of {name}", first.caveats)
    lead = [*leads[:1], render("signals.txt")]
    Page(title, lead, sections=sections, headlines=headlines).write(page)
    return page, figures


def _draw_lines(
    title: str,
    axis: str,
    at: Sequence[float],
    lines: Mapping[str, Float64],
    value: str,
    **options: Any,
) -> Curve:
    return Curve(
        title,
        axis,
        at,
        [CurveLine(name, line.tolist()) for name, line in lines.items()],
        value,
        **options,
    )


def _draw_voxels(
    halves: Float64, ceiling: Float64, space: Voxels
) -> tuple[list[Artifact], dict[str, Any]]:
    """Draw how the noise ceiling [V] is distributed over the voxels of the largest
    regions.
    """
    # the ceiling of every region
    regions = {
        name: ceiling[mask] for name, mask in space.regions.items() if np.any(mask)
    }
    # without regions all voxels are one
    regions = regions or {"all voxels": ceiling}
    by_region = {
        name: {
            "voxels": len(voxels),
            "median": float(np.median(voxels)),
            "quantile": float(np.quantile(voxels, 0.9)),
        }
        for name, voxels in regions.items()
    }

    # histograms of the largest, and slices where voxels have positions
    edges = np.linspace(0, 100, 41)  # percent, in steps of 2.5
    largest = sorted(regions.items(), key=lambda region: -len(region[1]))[:MAX_REGIONS]
    lines = {
        f"{name} ({len(voxels):,} voxels)": 100
        * np.histogram(voxels, edges)[0]
        / len(voxels)
        for name, voxels in largest
    }
    centres = ((edges[1:] + edges[:-1]) / 2).tolist()
    axis = "noise ceiling, % of variance"
    drawn: list[Artifact] = [
        _draw_lines("Noise ceiling by region", axis, centres, lines, "% of voxels")
    ]
    if space.grid is not None:
        value = "correlation of halves, Spearman-Brown corrected"
        drawn.append(draw_slices("Reliability of voxels", halves, space.grid, value, 0))
    return drawn, {BY_REGION: by_region}


def _draw_sensors(
    evoked: Float64, halves: Float64, recording: Trials
) -> tuple[list[Artifact], dict[str, Any]]:
    """Draw the evoked response, its map at its peak, and the reliability of each
    channel and time.
    """
    # the most reliable channel and time
    space = recording.space
    times_ms = (recording.times_s * 1000).round(3)
    marks = recording.stimulus_marks
    assert isinstance(space, Sensors)
    power = evoked.std(0)  # global field power [T]
    row, sample = divmod(int(halves.argmax()), len(times_ms))
    channel = space.names[row]
    at = times_ms.tolist()

    # the evoked response is in sensor space where whiteners are known; mixtures have no
    # position
    unit = MIXTURES if recording.unit == WHITENED else recording.unit
    unit = unit if recording.whiteners is None else UNMIXED
    positions = {} if unit == MIXTURES else place_sensors(space)

    # the times around the best one at which halves agree at least half as well
    below = np.flatnonzero(halves[row] < halves[row, sample] / 2)
    first = max(below[below < sample], default=-1) + 1
    last = min(below[below > sample], default=len(power)) - 1
    numbers: dict[str, Any] = {
        "most reliable channel": channel,
        "most reliable time, ms": round(float(times_ms[sample]), 1),
        "window of at least half of that, ms": f"{at[first]:g}–{at[last]:g}",
        "peak of global field power, ms": round(float(times_ms[power.argmax()]), 1),
        "unit of the evoked response": unit,
    }
    if (times_ms < 0).any():
        numbers["window before onset, %"] = 100 * float((times_ms < 0).mean())

    # curves over time, and the grid of channels and times
    over_time = {channel: halves[row], "median of channels": np.median(halves, 0)}
    responses = {"global field power": power, channel: evoked[row]}
    names = [f"{time:g}" for time in at]
    value = "correlation of halves"
    title = "Reliability of each channel and time"
    grid_value = f"{value}, Spearman-Brown corrected"
    drawn: list[Artifact] = [
        _draw_lines(
            "Reliability over time", TIME_AXIS, at, over_time, value, marks=marks
        ),
        _draw_lines("Evoked response", TIME_AXIS, at, responses, unit, marks=marks),
        Heatmap(
            title,
            halves.tolist(),
            space.names,
            names,
            "channel",
            TIME_AXIS,
            grid_value,
            low=0,
            high=1,
        ),
    ]

    # maps: the reliability of channels, but not of whitened ones, which have no
    # position
    if positions:
        maps = (
            []
            if unit == UNMIXED
            else [("Reliability of channels", sample, halves, value, False)]
        )

        # and the evoked response at the peak of the global field power after onset, if
        # there are such times
        is_after = times_ms >= 0
        after = np.where(is_after, power, -np.inf) if is_after.any() else power
        maps.append(("Evoked response", int(after.argmax()), evoked, unit, True))
        for title, index, values, value, is_diverging in maps:
            by_sensor = dict(zip(space.names, values[:, index].tolist(), strict=True))
            title = f"{title} at {times_ms[index]:.0f} ms"
            drawn.append(draw_head(title, positions, by_sensor, value, is_diverging))
    return drawn, numbers
