"""Page on the signals of a subject: evoked response, reliability and noise ceilings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.base import Bool, BrainhiveError, DamagedStore, Float64, Table
from brainhive_cli.core.results import list_footnotes, mark
from brainhive_cli.core.runs import (
    Artifact,
    BrainMap,
    Curve,
    CurveLine,
    Evoked,
    Heatmap,
)
from brainhive_cli.data.files import shorten_store_path
from brainhive_cli.data.signals import (
    WHITENED_UNIT,
    Sensors,
    Trials,
    measure_reliability,
    write_maps,
)
from brainhive_cli.data.stores import (
    COUNT_COLUMNS,
    SignalStore,
    describe_store,
    make_count_rows,
)
from brainhive_cli.reports.figures import (
    MIXTURES,
    draw_evoked,
    draw_head,
    name_unit,
    place_sensors,
    write_brain_map,
)
from brainhive_cli.reports.pages.page import Page, PageSection, group_artifacts
from brainhive_cli.reports.templates import render

BY_REGION = "noise ceiling by region, %"
"""Key of the noise ceilings of regions among the numbers of a split."""
HALVES_CORRELATION = "correlation of halves"
"""Value of the figures of reliability."""
CORRECTED_CORRELATION = f"{HALVES_CORRELATION}, Spearman-Brown corrected"


def write_signal_page(store: SignalStore, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write a page on the signals of a subject, and its maps for other programs.

    Args:
        store: Signals of a subject.
        folder: Folder of the page and the maps.

    Returns:
        Path of the page, and the numbers of each split as plain values for JSON.

    Raises:
        BrainhiveError: if no split has repeated stimuli and the store has no maps.
        DamagedStore: if the store is damaged.
    """
    folder = folder.absolute()  # figures are found from it
    folder.mkdir(parents=True, exist_ok=True)
    name = shorten_store_path(store.path)
    sections = list[PageSection]()
    numbers_by_split = dict[str, Any]()
    problems = []
    headlines = list[Curve | Evoked | BrainMap]()
    leads = list[str]()
    first_recording = next(iter(store.splits.values()))
    space = first_recording.space
    maps = dict(space.maps)

    # Note below maps of voxels.
    untested_note = "No threshold: single voxels are not tested."
    # write a section for each split with repeated stimuli
    for split, recording in store.splits.items():
        try:
            counts, evoked, split_half, ceiling = measure_reliability(recording, split)
        except DamagedStore:
            raise
        except BrainhiveError as error:
            problems.append(error)
            continue

        # maps of the best sample of each channel or voxel, figures and numbers
        maps[f"{split} reliability"] = split_half.max(1)
        maps[f"{split} noise ceiling"] = ceiling.max(1)
        if not recording.space.has_names:
            figures, numbers = _draw_voxels(ceiling[:, 0], recording.space.regions)
            if recording.space.grid is not None:
                reliability_map = write_brain_map(
                    folder,
                    store.path.stem,
                    f"{split} reliability",
                    split_half[:, 0],
                    recording.space,
                    title="Reliability of voxels",
                    value=CORRECTED_CORRELATION,
                    note=untested_note,
                    folder="",
                    is_diverging=True,
                )
                figures.append(reliability_map.locate(folder))
        else:
            best_samples = split_half.argmax(1)  # [C]
            best_times_ms = recording.times_s[best_samples] * 1000
            maps[f"{split} reliability at ms"] = best_times_ms
            figures, numbers = _draw_sensors(evoked, split_half, recording)
        numbers["stimuli"] = len(counts)
        measures = {"split-half reliability": split_half, "noise ceiling, %": ceiling}
        for measure, values in measures.items():
            numbers[f"median {measure}"] = float(np.median(values))
            numbers[f"highest {measure}"] = float(values.max())
        numbers_by_split[split] = numbers

        # the headlines of the page are not repeated in the section
        if not headlines:
            headlines = _choose_headlines(figures)
        artifacts = [artifact for artifact in figures if artifact not in headlines]
        artifacts += _tabulate_numbers(f"{name}, {split}", numbers)

        # the lead of the first split stands at the top of the page
        leads.append(render("signals.txt", numbers=numbers))
        sections.append(
            PageSection(
                split,
                group_artifacts([("", artifacts, folder)]),
                lead=leads[-1:] if sections else [],
                footnotes=list_footnotes(recording.caveats),
            )
        )

    # maps of voxels that the preparation measured
    if space.maps and space.grid is not None:
        slices = []
        # Label of the colour bar of each map.
        map_units = {
            "tsnr": "mean / standard deviation over time",
            "ncsnr": "signal / noise",
            "r2": "%",
            "hrf_index": "number in the library",
            "fraction": "fraction of the length",
        }
        # Title of each map that a preparation measures.
        map_titles = {
            "tsnr": "Temporal signal-to-noise ratio",
            "ncsnr": "Noise-ceiling signal-to-noise ratio",
            "r2": "Variance explained by the model of the responses, %",
            "hrf_index": (
                "Haemodynamic response of each voxel: number in the library, "
                "from early to late"
            ),
            "fraction": "Fraction to which ridge regression shrinks betas",
        }
        for key, values in space.maps.items():
            if np.ptp(values) == 0:  # such as marks of constant voxels without any
                continue
            title = map_titles.get(key, key)
            brain_map = write_brain_map(
                folder,
                store.path.stem,
                key,
                values,
                space,
                title=title,
                value=map_units.get(key, ""),
                note=untested_note,
                folder="",
            )
            slices.append(brain_map)
        sections.append(PageSection("voxels", group_artifacts([("", slices, folder)])))
    if not maps:
        raise problems[0]

    # write the maps; whitened channels have no position
    if space.has_names and first_recording.unit == WHITENED_UNIT:
        space = Sensors(space.names, np.full((len(space.names), 3), np.nan))
    write_maps(folder, store.path.stem, maps, space)

    # trials and steps of the preparation
    described = describe_store(store)
    tables = [Table("Trials", COUNT_COLUMNS, list(make_count_rows(described)))]
    steps = [(step, str(value)) for step, value in first_recording.preparation.items()]
    if steps:
        tables.append(Table("Preparation", ("step", "setting"), steps))
    sections.append(PageSection("recording", group_artifacts([("", tables, folder)])))

    path = folder / f"{store.path.stem}.html"
    page = Page(
        mark(f"Signals of {name}", first_recording.caveats),
        lead=leads[:1] + [render("signals.txt")],
        sections=sections,
        headlines=headlines,
    )
    page.write(path)
    return path, numbers_by_split


def _choose_headlines(figures: Sequence[Artifact]) -> list[Curve | Evoked | BrainMap]:
    """Choose the first curve, evoked response and brain map, if there are any."""
    headlines: list[Curve | Evoked | BrainMap] = []
    for kind in (Curve, Evoked, BrainMap):
        for figure in figures:
            if isinstance(figure, kind):
                headlines.append(figure)
                break
    return headlines


def _tabulate_numbers(title: str, numbers: Mapping[str, Any]) -> list[Table]:
    """Lay out the numbers of a split, and the ceilings of regions, as tables.

    Args:
        title: Name of the signal file and of the split.
        numbers: Numbers by name, with ceilings of regions below `BY_REGION`.
    """
    rows = [item for item in numbers.items() if not isinstance(item[1], Mapping)]
    tables = [
        Table(f"{title}: {numbers['stimuli']} stimuli", ("measure", "value"), rows)
    ]
    regions = numbers.get(BY_REGION)
    if regions:
        columns = ("region", "voxels", "median, %", "90 % quantile, %")
        region_rows = [
            [region] + list(values.values()) for region, values in regions.items()
        ]
        tables.append(Table("Noise ceiling by region", columns, region_rows))
    return tables


def _draw_lines(
    title: str,
    axis: str,
    at: Sequence[float],
    lines: Mapping[str, Float64],
    value: str,
    **options: Any,
) -> Curve:
    """Make a figure of several lines.

    Args:
        axis: Label of the horizontal axis.
        at: Positions [K] on the horizontal axis.
        lines: Values [K] of each line by its name.
        value: Name and unit of the values.
        **options: Further fields of `Curve`.
    """
    curve_lines = [CurveLine(name, line.tolist()) for name, line in lines.items()]
    return Curve(title, axis, at, curve_lines, value, **options)


def _draw_voxels(
    ceiling: Float64, masks: Mapping[str, Bool]
) -> tuple[list[Artifact], dict[str, Any]]:
    """Draw histograms of the noise ceiling by region.

    Args:
        ceiling: Noise ceiling [V] of each voxel, in percent of the variance.
        masks: Mask [V] of each brain region, by name.

    Returns:
        The figures, and numbers for JSON.
    """
    # without regions, all voxels are one region
    regions = {name: ceiling[mask] for name, mask in masks.items() if np.any(mask)}
    if not regions:
        regions = {"all voxels": ceiling}
    ceilings = {}
    for name, voxels in regions.items():
        ceilings[name] = {
            "voxels": len(voxels),
            "median": float(np.median(voxels)),
            "quantile": float(np.quantile(voxels, 0.9)),
        }

    # Largest number of regions that a figure can distinguish.
    max_regions = 8
    # draw histograms of the largest regions
    largest = sorted(regions.items(), key=lambda region: -len(region[1]))[:max_regions]
    lines = {}
    # Edges of the bins of a histogram of noise ceilings, in percent.
    ceiling_edges = np.linspace(0, 100, 41)
    for name, voxels in largest:
        histogram, _ = np.histogram(voxels, ceiling_edges)
        lines[f"{name} ({len(voxels):,} voxels)"] = 100 * histogram / len(voxels)
    centres = (ceiling_edges[1:] + ceiling_edges[:-1]) / 2
    figures: list[Artifact] = [
        _draw_lines(
            "Noise ceiling by region",
            "noise ceiling, % of variance",
            centres.tolist(),
            lines,
            "% of voxels",
        )
    ]
    return figures, {BY_REGION: ceilings}


def _draw_sensors(
    evoked: Float64, split_half: Float64, recording: Trials
) -> tuple[list[Artifact], dict[str, Any]]:
    """Draw the evoked response and the reliability over channels and times.

    Args:
        evoked: Mean [C, T] over the repetitions of all stimuli, before whitening if the
            recording has whiteners.
        split_half: Split-half reliability [C, T].

    Returns:
        The figures, and numbers for JSON.
    """
    # most reliable channel and time
    space = recording.space
    times_ms = (recording.times_s * 1000).round(3)
    field_power = evoked.std(0)  # global field power [T]
    channel, sample = divmod(int(split_half.argmax()), len(times_ms))
    channel_name = space.names[channel]
    positions_ms = times_ms.tolist()

    unit = name_unit(recording)

    # times around the peak at which reliability is at least half as high
    is_low = split_half[channel] < split_half[channel, sample] / 2
    low_samples = np.flatnonzero(is_low)
    start = max(low_samples[low_samples < sample], default=-1) + 1
    end = min(low_samples[low_samples > sample], default=len(field_power)) - 1
    window = f"{positions_ms[start]:g}–{positions_ms[end]:g}"
    numbers: dict[str, Any] = {
        "most reliable channel": channel_name,
        "most reliable time, ms": round(float(times_ms[sample]), 1),
        "window of at least half of that, ms": window,
        "peak of global field power, ms": round(
            float(times_ms[field_power.argmax()]), 1
        ),
        "unit of the evoked response": unit,
    }
    if (times_ms < 0).any():
        numbers["window before onset, %"] = 100 * float((times_ms < 0).mean())

    reliability_lines = {
        channel_name: split_half[channel],
        "median of channels": np.median(split_half, 0),
    }
    # Label of the time axis.
    time_axis = "ms after onset"
    figures: list[Artifact] = [
        _draw_lines(
            "Reliability over time",
            time_axis,
            positions_ms,
            reliability_lines,
            HALVES_CORRELATION,
            marks=recording.stimulus_marks,
        ),
        draw_evoked(evoked, space, recording),
        Heatmap(
            "Reliability of each channel and time",
            split_half.tolist(),
            rows=space.names,
            columns=list(map("{:g}".format, positions_ms)),
            row_axis="channel",
            column_axis=time_axis,
            value=CORRECTED_CORRELATION,
            low=0,
            high=1,
        ),
    ]

    # maps on the head, unless the channels are mixtures
    positions = {} if unit == MIXTURES else place_sensors(space)
    if not positions:
        return figures, numbers

    # the reliability of whitened signals belongs to mixtures of channels
    if recording.whiteners is None:
        values = dict(zip(space.names, split_half[:, sample].tolist(), strict=True))
        title = f"Reliability of channels at {times_ms[sample]:.0f} ms"
        figures.append(
            draw_head(title, positions, values, HALVES_CORRELATION, is_diverging=False)
        )
    return figures, numbers
