"""One page on the signals of a subject: evoked response, reliability and noise ceilings, by split."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainhive_cli.core.arrays import Array, Float64, Int64
from brainhive_cli.core.artifacts import Artifact, Curve, Heatmap, Line, Map
from brainhive_cli.core.errors import BrainhiveError, DamagedStore
from brainhive_cli.core.measurements import Metric, list_footnotes, mark
from brainhive_cli.core.tables import Table
from brainhive_cli.data.signal_stores import COUNTED, count_rows, describe_store
from brainhive_cli.data.spaces import Sensors, Voxels
from brainhive_cli.data.stores.hdf5 import short_name
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.explanation.profiles import TIME
from brainhive_cli.evaluation.explanation.sensor_space import (
    WHITENED,
    averages_by_part,
    draw_head,
    place_sensors,
    repetitions,
    separate_in_time,
)
from brainhive_cli.measurement.ranks import summarise
from brainhive_cli.measurement.reliability import (
    correlate,
    halve,
    noise_ceiling,
    rank_halves,
    spearman_brown,
)
from brainhive_cli.measurement.units import Alike
from brainhive_cli.reports.drawings import draw_slices
from brainhive_cli.reports.page import Page, Section, groups_of
from brainhive_cli.reports.tables import metric_table
from brainhive_cli.reports.templates import render

STIMULI = 1000
"""Stimuli that are measured, drawn with a seed where there are more: so many give correlations to .03."""
PROTOCOL = "halves of repetitions"
"""Measure of retrieval's ceiling: the mean of some repetitions is looked for among means of others."""
BY_REGION = "noise ceiling by region, %"
"""Name of the noise ceilings of regions among the numbers of a store."""
UNMIXED = "before whitening"
"""Unit of signals whose whitening was undone."""
MIXTURES = "whitened channels"
"""Unit of whitened signals whose whiteners are not known: each mixes channels, and has no position."""
MAX_MAPS, MAX_REGIONS = 4, 8
"""Scalp maps at peaks of the global field power, and regions that one figure can distinguish."""
PEAK_DISTANCE = 20
"""Two maps are of peaks at least this part of the window apart."""
WORDS = {
    "tsnr": "Temporal signal-to-noise ratio",
    "ncsnr": "Noise-ceiling signal-to-noise ratio",
    "r2": "Variance that the model of the responses explains, %",
    "hrf_index": "Haemodynamic response of each voxel: of the library's, from early to late",
    "fraction": "Fraction to which ridge regression shrinks betas",
}
"""Titles of maps."""
RESPONSE_MS = 500
"""Time after a stimulus, or after its onset where its length is not known, within which maps of the evoked
response are drawn: later peaks may be responses to the next stimulus."""


@dataclass(frozen=True)
class Reliability:
    """Reliability of a recording, measured by its repetitions.

    Attributes:
        counts: [N] repetitions of each stimulus that was measured, two at least.
        evoked: [C, T] mean over all repetitions; where the store has the whiteners of its sessions, of the
            signals before they were whitened, so that channels are sites.
        split_half: [C, T] correlation over stimuli of two halves of the repetitions, Spearman-Brown
            corrected to all of them.
        ceiling: [C, T] percent of the variance of the stimuli's means that is not noise (Allen et al. 2022).
        retrieval: Top-1 of finding a stimulus by the mean of k repetitions among the means of as many others,
            for k = 1, 2, 4 …
    """

    counts: Int64
    evoked: Float64
    split_half: Float64
    ceiling: Float64
    retrieval: dict[int, Metric]


def measure_reliability(recording: Trials, split: str, alike: Alike | None = None) -> Reliability:
    """Measure how reliable a recording is.

    Args:
        recording: One subject's recording of a split.
        split: Its name, for the metrics.
        alike: Which stimuli are alike; None: none.

    Raises:
        BrainhiveError: if fewer than three stimuli were shown twice, or repetitions follow one another.
    """
    # stimuli that were shown twice at least, drawn where there are more than are measured
    rows = np.flatnonzero(recording.counts > 1)
    if len(rows) < 3:
        raise BrainhiveError(
            f"{len(rows)} {split} stimuli were shown twice or more: reliability needs three", "another split"
        )
    trials = recording.take(np.sort(np.random.default_rng(0).permutation(rows)[:STIMULI]))

    # those whose repetitions are far apart in time; successive ones of a stimulus count as one
    parts, part_counts = separate_in_time(trials)
    is_apart = part_counts > 1
    trials, parts, part_counts = trials.take(is_apart), parts[is_apart], part_counts[is_apart]
    shape, counts = trials.signal.shape[2:], trials.counts  # C, T

    def means() -> Iterator[Array]:
        return averages_by_part(trials, parts, is_mixed=True)

    # mean over trials, before whitening where each session's whitener is known
    evoked = np.zeros(shape)
    for stimulus in repetitions(trials):  # [R, C, T]
        evoked += stimulus.sum(0)
    evoked /= counts.sum()

    # agreement of two halves, and how often k repetitions of a stimulus retrieve it among k others
    draw = torch.Generator().manual_seed(0)
    halves = correlate(halve(stimulus, draw) for stimulus in means()).mean(0).reshape(shape)
    options: Any = {"split": split, "protocol": PROTOCOL, "seeds": (0,), "only": ("top1",)}
    options["items"] = (alike or Alike()).items([trials.image_ids])
    retrieval = {}
    # up to half of the fewest parts that a stimulus has
    for size in (2**n for n in range(int(part_counts.min() // 2).bit_length())):
        pairs = [torch.from_numpy(np.stack(halve(stimulus, draw, 1, size))) for stimulus in means()]
        (retrieval[size],) = summarise([rank_halves(*torch.cat(pairs, 1))], len(counts), **options)
    split_half = spearman_brown(halves, part_counts.sum() / (part_counts // 2).sum())
    ceiling = noise_ceiling(means, part_counts)
    return Reliability(counts, evoked, split_half, ceiling, retrieval)


def write_signal_page(
    store: SignalStore, folder: Path, alike: Mapping[str, Alike] | None = None
) -> tuple[Path, dict[str, Any]]:
    """Draw the figures of a store into a folder, with a page that holds them all.

    Args:
        store: One subject's signals.
        folder: Where figures and page go.
        alike: Which stimuli are, by split, as far as that is known.

    Returns:
        The page, and the figures by split: plain numbers for JSON.

    Raises:
        BrainhiveError: if no split has stimuli that were shown twice.
    """
    # a section for each split whose stimuli were repeated
    folder.mkdir(parents=True, exist_ok=True)
    name, sections, figures, reasons = short_name(store.path), list[Section](), dict[str, Any](), []
    headlines, leads = list[Curve | Map](), list[str]()
    for split, recording in store.splits.items():
        try:
            reliability = measure_reliability(recording, split, alike=(alike or {}).get(split))
        except DamagedStore:
            raise
        except BrainhiveError as error:
            reasons.append(error)
            continue

        # figures of the split, of which the first stand beside the first sentence alone, and their numbers
        draw = _draw_voxels if isinstance(recording.space, Voxels) else _draw_sensors
        drawn, numbers = draw(reliability, recording)
        if not headlines:
            for kind in (Curve, Map):
                headlines += [artifact for artifact in drawn if isinstance(artifact, kind)][:1]
        numbers["stimuli"] = count = len(reliability.counts)
        # one number each for JSON, over channels and times
        measures = {"split-half reliability": reliability.split_half, "noise ceiling, %": reliability.ceiling}
        for measure, values in measures.items():
            numbers[f"median {measure}"] = float(np.median(values))
            numbers[f"highest {measure}"] = float(values.max())
        rows = [(key, value) for key, value in numbers.items() if not isinstance(value, dict)]
        metrics = {str(size): {"top1": metric} for size, metric in reliability.retrieval.items()}
        regions = [(region, *shares.values()) for region, shares in numbers.get(BY_REGION, {}).items()]
        tables = [
            Table(f"{name}, {split}: {count} stimuli", ("figure", "value"), rows),
            metric_table("Stimuli found by their repetitions", metrics, "repetitions"),
            Table("Noise ceiling by region", ("region", "voxels", "median, %", "90 % quantile, %"), regions),
        ]

        # headline figures are not shown twice
        shown = [artifact for artifact in drawn if artifact not in headlines]
        shown += [table for table in tables if table.rows]
        leads.append(render("signals.txt", numbers=numbers))
        # the first split's sentence leads the page, not its section
        lead, footnotes = leads[-1:] if sections else [], list_footnotes(recording.caveats)
        sections.append(Section(split, groups_of([("", shown, folder)]), lead, footnotes=footnotes))
        figures[split] = numbers
        numbers["retrieval"] = {size: metric["top1"].as_dict() for size, metric in metrics.items()}

    # maps of voxels, which preparations have measured; on slices where positions are known
    first = next(iter(store.splits.values()))
    if isinstance(first.space, Voxels) and first.space.maps:
        shares = {"median": 0.5, "90 % quantile": 0.9, "highest": 1.0}
        figures["maps"] = {
            key: dict(zip(shares, np.quantile(values, [*shares.values()]).tolist(), strict=True))
            for key, values in first.space.maps.items()
        }
        rows = [(key, *quantiles.values()) for key, quantiles in figures["maps"].items()]
        shown = [Table("What was measured of voxels", ("map", *shares), rows)]
        if first.space.grid is not None:
            for key, values in first.space.maps.items():
                shown.append(draw_slices(WORDS.get(key, key), values, first.space.grid, key))
        sections.append(Section("voxels", groups_of([("", shown, folder)])))
    if not sections:
        raise reasons[0]

    # trials, and steps of the preparation, as `check` lists them
    described = describe_store(store)
    steps = [(step, str(value)) for step, value in first.preparation.items()]
    tables = [Table("Trials", COUNTED, [*count_rows(described)])]
    tables += [Table("Preparation", ("step", "setting"), steps)] if steps else []
    sections.append(Section("recording", groups_of([("", tables, folder)])))

    # the page, with its headline figures
    page, title = folder / f"{store.path.stem}.html", mark(f"Signals of {name}", sections[0].footnotes)
    lead = [*leads[:1], render("signals.txt")]
    Page(title, lead, sections=sections, headlines=headlines).write(page)
    return page, figures


def _draw_lines(
    title: str, axis: str, at: Sequence[float], lines: Mapping[str, Float64], value: str, **options: Any
) -> Curve:
    return Curve(
        title, axis, at, [Line(name, line.tolist()) for name, line in lines.items()], value, **options
    )


def _draw_voxels(reliability: Reliability, recording: Trials) -> tuple[list[Artifact], dict[str, Any]]:
    """Draw how the noise ceiling is distributed over the voxels of the largest regions."""
    # the ceiling of every region
    space, ceiling = recording.space, reliability.ceiling[:, 0]
    assert isinstance(space, Voxels)
    regions = {name: ceiling[mask] for name, mask in space.regions.items() if np.any(mask)}
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
        f"{name} ({len(voxels):,} voxels)": 100 * np.histogram(voxels, edges)[0] / len(voxels)
        for name, voxels in largest
    }
    centres, axis = ((edges[1:] + edges[:-1]) / 2).tolist(), "noise ceiling, % of variance"
    drawn: list[Artifact] = [_draw_lines("Noise ceiling by region", axis, centres, lines, "% of voxels")]
    if space.grid is not None:
        halves, value = reliability.split_half[:, 0], "correlation of halves, Spearman-Brown corrected"
        drawn.append(draw_slices("Reliability of voxels", halves, space.grid, value, 0))
    return drawn, {BY_REGION: by_region}


def _draw_sensors(reliability: Reliability, recording: Trials) -> tuple[list[Artifact], dict[str, Any]]:
    """Draw the evoked response, its maps at peaks, and the reliability of each channel and time."""
    # the most reliable channel and time
    space, times_ms, marks = recording.space, (recording.times_s * 1000).round(3), recording.stimulus_marks
    assert isinstance(space, Sensors)
    evoked, halves = reliability.evoked, reliability.split_half
    power = evoked.std(0)  # global field power [T]
    row, sample = divmod(int(halves.argmax()), len(times_ms))
    channel, at = space.names[row], times_ms.tolist()

    # the evoked response is in sensor space where whiteners are known; mixtures have no position
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
        "scalp maps": "yes" if positions else "none",
    }
    if (times_ms < 0).any():
        numbers["window before onset, %"] = 100 * float((times_ms < 0).mean())

    # curves over time, and the grid of channels and times
    over_time = {channel: halves[row], "median of channels": np.median(halves, 0)}
    responses = {"global field power": power, channel: evoked[row]}
    names, value = [f"{time:g}" for time in at], "correlation of halves"
    title, grid_value = "Reliability of each channel and time", f"{value}, Spearman-Brown corrected"
    drawn: list[Artifact] = [
        _draw_lines("Reliability over time", TIME, at, over_time, value, marks=marks),
        _draw_lines("Evoked response", TIME, at, responses, unit, marks=marks),
        Heatmap(title, halves.tolist(), space.names, names, "channel", TIME, grid_value, low=0, high=1),
    ]

    if not positions:
        return drawn, numbers

    # maps: the reliability of channels, but not of whitened ones, which have no position
    from scipy.signal import find_peaks

    maps = [] if unit == UNMIXED else [("Reliability of channels", sample, halves, value, False)]

    # and the evoked response at the highest peaks of the global field power in the window of the stimulus,
    # from onset to RESPONSE_MS after it; anywhere if the trial has no such times
    end_ms = max(np.max(mark) for mark in marks.values()) + RESPONSE_MS if marks else np.inf
    is_inside = (times_ms >= 0) & (times_ms <= end_ms)
    is_inside = is_inside if is_inside.any() else np.ones(len(times_ms), bool)
    inside = np.where(is_inside, power, -np.inf)
    peaks = find_peaks(power, inside.max() / 4, distance=max(1, len(power) // PEAK_DISTANCE))[0]
    peaks = peaks[is_inside[peaks]] if is_inside[peaks].any() else np.array([inside.argmax()])
    highest = sorted(peaks[np.argsort(power[peaks])[-MAX_MAPS:]].tolist())
    maps += [("Evoked response", index, evoked, unit, True) for index in highest]
    for title, index, values, value, is_diverging in maps:
        by_sensor = dict(zip(space.names, values[:, index].tolist(), strict=True))
        drawn.append(
            draw_head(f"{title} at {times_ms[index]:.0f} ms", positions, by_sensor, value, is_diverging)
        )
    return drawn, numbers
