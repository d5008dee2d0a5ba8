"""One page on the signals of a subject: evoked response, reliability and noise ceilings, by split."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainhive_cli.core.arrays import Array, Float32, Float64
from brainhive_cli.core.artifacts import Artifact, Curve, Heatmap, Line, Map
from brainhive_cli.core.errors import BrainhiveError, DamagedStore
from brainhive_cli.core.measurements import Metric, extend_title
from brainhive_cli.core.tables import Table
from brainhive_cli.data.spaces import Voxels
from brainhive_cli.data.stores.hdf5 import short_name
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.explanation.profiles import TIME
from brainhive_cli.evaluation.explanation.sensor_places import draw_head, place_sensors
from brainhive_cli.evaluation.explanation.sensor_space import WHITENED, separate_in_time
from brainhive_cli.measurement.ranks import summarise
from brainhive_cli.measurement.reliability import (
    average_parts,
    correlate,
    halve,
    noise_ceiling,
    rank_halves,
    spearman_brown,
)
from brainhive_cli.measurement.units import Alike
from brainhive_cli.reports.drawings import draw_slices
from brainhive_cli.reports.page import Figure, Page, Section

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
MIN_SAMPLES = 16
"""Fewest samples of a trial whose spectrum is drawn."""
RHYTHM_SHARE = 0.5
"""Share of the evoked response's variance before onset, of that after it, from which a rhythm is named."""
NOTE = (
    "How much of what was recorded comes back when the same stimulus is shown again. All figures are of the "
    "stimuli that were shown twice or more; retrieval is by cosine similarity of all channels and times, "
    "less their mean over stimuli, without a decoder."
)


@dataclass(frozen=True)
class Reliability:
    """Reliability of a recording, measured by its repetitions.

    Attributes:
        stimuli: How many were measured; those that were shown twice at least.
        repetitions: The fewest and the most that they have.
        evoked: [C, T] mean over all repetitions; where the store has the whiteners of its sessions, of the
            signals before they were whitened, so that channels are sites.
        field_power: [T] global field power: standard deviation of the evoked response over channels.
        split_half: [C, T] correlation over stimuli of two halves of the repetitions, Spearman-Brown
            corrected to all of them.
        ceiling: [C, T] percent of the variance of the stimuli's means that is not noise (Allen et al. 2022).
        retrieval: Top-1 of finding a stimulus by the mean of k repetitions among the means of as many others,
            for k = 1, 2, 4 …
        frequencies_hz: [F] frequencies of the spectrum; none of trials of fewer samples than MIN_SAMPLES.
        spectrum: [C, F] mean power spectral density of single trials, in the space of `evoked`.
    """

    stimuli: int
    repetitions: tuple[int, int]
    evoked: Float64
    field_power: Float64
    split_half: Float64
    ceiling: Float64
    retrieval: dict[int, Metric]
    frequencies_hz: Float64
    spectrum: Float64


def measure_reliability(recording: Trials, split: str, alike: Alike | None = None) -> Reliability:
    """Measure how reliable a recording is.

    Args:
        recording: One subject's recording of a split.
        split: Its name, for the metrics.
        alike: Which stimuli are alike; None: none.

    Raises:
        BrainhiveError: if fewer than three stimuli were shown twice, or repetitions follow one another.
    """
    from scipy.signal import periodogram

    # stimuli that were shown twice at least, drawn where there are more than are measured
    random = np.random.default_rng(0)
    shape = recording.signal.shape[2:]  # C, T
    counts = recording.is_there.sum(1)  # [N]
    rows = np.flatnonzero(counts > 1)
    if len(rows) < 3:
        raise BrainhiveError(
            f"{len(rows)} {split} stimuli were shown twice or more: reliability needs three", "another split"
        )
    rows = np.sort(random.permutation(rows)[:STIMULI])

    # those whose repetitions are far apart in time; successive ones of a stimulus count as one
    parts, part_counts = separate_in_time(recording.take(rows))
    is_apart = part_counts > 1
    rows, parts, part_counts = rows[is_apart], parts[is_apart], part_counts[is_apart]
    counts = counts[rows]

    def trials() -> Iterator[Float32]:
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
            yield np.array(recording.signal[row][:count], np.float32)  # [R, C, T]

    def means() -> Iterator[Float32]:
        for stimulus, numbers in zip(trials(), parts, strict=True):
            yield average_parts(stimulus, numbers[: len(stimulus)])

    # sums over trials and over their spectra, before whitening where each session's whitener is known
    whiteners, sessions = recording.whiteners, recording.sessions
    if sessions is None:
        sessions = np.zeros(recording.signal.shape[:2], np.int8)
    unmixing = None if whiteners is None else np.linalg.inv(whiteners)  # [S, C, C]
    has_spectrum = recording.rate_hz is not None and shape[1] >= MIN_SAMPLES
    evoked, spectrum, frequencies_hz = np.zeros(shape), np.zeros((shape[0], 0)), np.zeros(0)
    for row, stimulus in zip(rows.tolist(), trials(), strict=True):
        plain: Array = stimulus  # [R, C, T]
        if unmixing is not None:
            plain = unmixing[sessions[row, : len(stimulus)]] @ stimulus
        evoked += plain.sum(0)
        if has_spectrum:
            frequencies_hz, power = periodogram(plain, recording.rate_hz, window="hann")  # [R, C, F]
            spectrum = spectrum + power.sum(0) if spectrum.size else power.sum(0)
    evoked, spectrum = evoked / counts.sum(), spectrum / counts.sum()

    # agreement of two halves, and how often a stimulus is found by k of its repetitions among k others
    draw = torch.Generator().manual_seed(0)
    halves = correlate(halve(stimulus, draw) for stimulus in means()).mean(0).reshape(shape)
    options: Any = {"split": split, "protocol": PROTOCOL, "seeds": (0,), "only": ("top1",)}
    options["items"] = (alike or Alike()).items([[recording.image_ids[row] for row in rows.tolist()]])
    retrieval = {}
    for size in (2**n for n in range(int(part_counts.min() // 2).bit_length())):
        pairs = [torch.from_numpy(np.stack(halve(stimulus, draw, 1, size))) for stimulus in means()]
        (retrieval[size],) = summarise([rank_halves(*torch.cat(pairs, 1))], len(rows), **options)
    return Reliability(
        stimuli=len(rows),
        repetitions=(int(counts.min()), int(counts.max())),
        evoked=evoked,
        field_power=evoked.std(0),
        split_half=spearman_brown(halves, part_counts.sum() / (part_counts // 2).sum()),
        ceiling=noise_ceiling(means, part_counts),
        retrieval=retrieval,
        frequencies_hz=frequencies_hz,
        spectrum=spectrum,
    )


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
    name, sections, figures, reasons = short_name(store.path), [], {}, []
    caveats = []
    headlines: list[Curve | Map] = []
    for split, recording in store.splits.items():
        try:
            reliability = measure_reliability(recording, split, alike=(alike or {}).get(split))
        except DamagedStore:
            raise
        except BrainhiveError as error:
            reasons.append(error)
            continue

        # figures of the split, and their numbers in a table
        title = f"{name}, {split}: {reliability.stimuli} stimuli"
        if isinstance(recording.space, Voxels):
            drawn, lead, numbers = _draw_voxels(reliability, recording.space)
        else:
            drawn, lead, numbers = _draw_sensors(reliability, recording)
        if len(sizes := [*reliability.retrieval]) > 1:
            words, axis = "A stimulus found among means of other repetitions", "repetitions in each mean"
            line = Line.of("top-1", [*reliability.retrieval.values()])
            drawn.append(Curve(words, axis, sizes, [line], "top-1", is_logarithmic=True))
        caveats = recording.caveats
        if not headlines:  # figures beside the first sentence stand there alone
            first_map = [shown for shown in drawn if isinstance(shown, Map)][:1]
            headlines = [next(shown for shown in drawn if isinstance(shown, Curve)), *first_map]
            drawn = [shown for shown in drawn if shown not in headlines]
        figures[split] = described = {
            **numbers,
            "stimuli": reliability.stimuli,
            "fewest repetitions": reliability.repetitions[0],
            "most repetitions": reliability.repetitions[1],
            "median split-half reliability": float(np.median(reliability.split_half)),
            "highest split-half reliability": float(reliability.split_half.max()),
            "median noise ceiling, %": float(np.median(reliability.ceiling)),
            "highest noise ceiling, %": float(reliability.ceiling.max()),
            "retrieval": {str(size): metric.as_dict() for size, metric in reliability.retrieval.items()},
        }
        rows: list[tuple[Any, ...]] = [
            (name, value) for name, value in described.items() if not isinstance(value, dict)
        ]
        blocks: list[Table | Figure] = [
            Table(title, ("figure", "value"), rows),
            *_list_dropped(recording, split),
        ]

        # stimuli found by their repetitions, and regions of voxels
        rows = []
        for size, top1 in reliability.retrieval.items():
            has_interval = top1.low is not None and top1.high is not None
            ends = f"{top1.low:.1%}–{top1.high:.1%}" if has_interval else "–"
            rows.append((size, f"{top1.value:.1%}", ends, top1.pool, f"{top1.chance:.2%}"))
        columns: tuple[str, ...] = ("repetitions", "top-1", "95 %", "pool", "chance")
        blocks.append(Table("Stimuli found by their repetitions", columns, rows))
        blocks += _list_steps(recording)
        if regions := described.get(BY_REGION):
            columns = ("region", "voxels", "median, %", "90 % quantile, %")
            rows = [(region, *ceiling.values()) for region, ceiling in regions.items()]
            blocks.append(Table("Noise ceiling by region", columns, rows))
        figures_first: list[Figure] = [[("", artifact, folder)] for artifact in drawn]
        sections.append(Section(split, [("", [*figures_first, *blocks])], lead))

    # maps of voxels, which preparations have measured; on slices where positions are known
    space = next(iter(store.splits.values())).space
    if isinstance(space, Voxels) and space.maps:
        rows = [
            (name, *(float(np.quantile(values, share)) for share in (0.5, 0.9, 1.0)))
            for name, values in space.maps.items()
        ]
        maps = Table("What was measured of voxels", ("map", "median", "90 % quantile", "highest"), rows)
        figures["maps"] = {row[0]: dict(zip(maps.columns[1:], row[1:], strict=True)) for row in rows}
        slices: list[Figure] = [
            [("", draw_slices(WORDS.get(name, name), values, space.grid, name), folder)]
            for name, values in space.maps.items()
            if space.grid is not None
        ]
        sections.append(Section("voxels", [("", [*slices, maps])]))
    if not sections:
        raise reasons[0]

    # the page, with its headline figure
    page = folder / f"{store.path.stem}.html"
    title = extend_title(f"Signals of {name}", caveats)
    Page(title, [*sections[0].lead[:1], NOTE], sections=sections, headlines=headlines).write(page)
    return page, figures


def _draw_voxels(reliability: Reliability, space: Voxels) -> tuple[list[Artifact], list[str], dict[str, Any]]:
    """Draw how the noise ceiling is distributed over the voxels of the largest regions."""
    # histograms of the largest regions
    ceiling = reliability.ceiling[:, 0]
    regions = {name: mask for name, mask in space.regions.items() if np.any(mask)}
    regions = regions or {"all voxels": np.ones(len(ceiling), bool)}
    edges = np.linspace(0, 100, 41)
    largest = sorted(regions, key=lambda name: -int(regions[name].sum()))[:MAX_REGIONS]
    lines, by_region = [], {}
    for name, mask in regions.items():
        voxels, median = ceiling[mask], float(np.median(ceiling[mask]))
        by_region[name] = {
            "voxels": len(voxels),
            "median": median,
            "quantile": float(np.quantile(voxels, 0.9)),
        }
        if name in largest:
            counts = 100 * np.histogram(voxels, edges)[0] / len(voxels)
            lines.append(Line(f"{name} ({len(voxels):,} voxels)", counts.tolist()))

    # the sentence, the curve, and slices where voxels have positions
    best = max(by_region, key=lambda name: by_region[name]["median"])
    words = f"{best} is the most reliable region: median noise ceiling {by_region[best]['median']:.0f} %."
    centres = ((edges[1:] + edges[:-1]) / 2).tolist()
    drawn: list[Artifact] = [
        Curve("Noise ceiling by region", "noise ceiling, % of variance", centres, lines, "% of voxels")
    ]
    if space.grid is not None:
        halves = "correlation of halves, Spearman-Brown corrected"
        drawn.append(
            draw_slices("Reliability of voxels", reliability.split_half[:, 0], space.grid, halves, 0)
        )
    return drawn, [words], {BY_REGION: by_region}


def _draw_sensors(
    reliability: Reliability, recording: Trials
) -> tuple[list[Artifact], list[str], dict[str, Any]]:
    """Draw the evoked response, its maps at peaks, and the reliability of each channel and time."""
    space, times_ms = recording.space, (recording.times_s * 1000).round(3)
    assert not isinstance(space, Voxels)

    # the most reliable channel and time
    evoked, power, halves = reliability.evoked, reliability.field_power, reliability.split_half
    row, sample = (int(index) for index in np.unravel_index(halves.argmax(), halves.shape))
    channel, peak = space.names[row], times_ms[power.argmax()]

    # the evoked response is in sensor space where whiteners are known
    unit = MIXTURES if recording.unit == WHITENED else recording.unit
    unit = unit if recording.whiteners is None else UNMIXED
    marks = recording.stimulus_marks

    # the times around the best one at which halves agree at least half as well
    below = np.flatnonzero(halves[row] < halves[row, sample] / 2)
    first = max(below[below < sample], default=-1) + 1
    last = min(below[below > sample], default=len(power)) - 1
    at = times_ms.tolist()
    lead = [
        f"{channel} is the most reliable channel: correlation of halves {halves[row, sample]:.2f} at "
        f"{at[sample]:g} ms, and at least half of that from {at[first]:g} to {at[last]:g} ms."
    ]

    # curves, the grid of channels and times, the spectrum, and maps
    lines = [Line("global field power", power.tolist()), Line(channel, evoked[row].tolist())]
    over_times = [
        Line(channel, halves[row].tolist()),
        Line("median of channels", np.median(halves, 0).tolist()),
    ]
    places = {} if unit == MIXTURES else place_sensors(space)

    drawn: list[Artifact] = [
        Curve("Reliability over time", TIME, at, over_times, "correlation of halves", marks=marks),
        Curve("Evoked response", TIME, at, lines, unit, marks=marks, note=_describe_rhythm(evoked, times_ms)),
        Heatmap(
            "Reliability of each channel and time",
            halves.tolist(),
            space.names,
            [f"{time:g}" for time in at],
            "channel",
            TIME,
            "correlation of halves, Spearman-Brown corrected",
            low=0,
            high=1,
        ),
    ]

    # the spectrum of single trials: the median channel, and the one with the most power
    if reliability.spectrum.size:
        density = reliability.spectrum[:, 1:]  # [C, F - 1]
        decibels, loudest = 10 * np.log10(np.maximum(density, np.finfo(float).tiny)), density.sum(1).argmax()
        spectra = [
            Line("median of channels", np.median(decibels, 0).tolist()),
            Line(f"{space.names[loudest]}, the channel with the most power", decibels[loudest].tolist()),
        ]
        frequencies, value = reliability.frequencies_hz[1:].tolist(), f"power, dB ({unit})"
        drawn.append(Curve("Spectrum of single trials", "frequency, Hz", frequencies, spectra, value))

    # maps: the reliability of channels, which the page shows beside its first sentence, and the evoked
    # response at the highest peaks of the global field power from onset to RESPONSE_MS after the stimulus
    if places:
        from scipy.signal import find_peaks

        def draw_map(title: str, values: Float64, value: str, is_diverging: bool) -> Map:
            by_sensor = dict(zip(space.names, values.tolist(), strict=True))
            return draw_head(title, places, by_sensor, value, is_diverging)

        # whitened channels are no places
        if unit != UNMIXED:
            title = f"Reliability of channels at {times_ms[sample]:.0f} ms"
            drawn.append(draw_map(title, halves[:, sample], "correlation of halves", False))

        # peaks in the window of the stimulus; anywhere if the trial has no such times
        end_ms = max(np.max(mark) for mark in marks.values()) + RESPONSE_MS if marks else np.inf
        is_inside = (times_ms >= 0) & (times_ms <= end_ms)
        is_inside = is_inside if is_inside.any() else np.ones(len(times_ms), bool)
        distance = max(1, len(power) // PEAK_DISTANCE)
        peaks = find_peaks(power, power[is_inside].max() / 4, distance=distance)[0]
        peaks = peaks[is_inside[peaks]]
        peaks = peaks if len(peaks) else np.array([np.where(is_inside, power, -np.inf).argmax()])
        for index in sorted(peaks[np.argsort(power[peaks])[-MAX_MAPS:]].tolist()):
            title = f"Evoked response at {times_ms[index]:.0f} ms"
            drawn.append(draw_map(title, evoked[:, index], unit, True))
    if (silent := float((times_ms < 0).mean())) > 0:
        lead.append(
            f"{silent:.0%} of the window lie before onset, where nothing can be reliable: medians over all "
            "channels and times say less than the best of them."
        )
    numbers = {
        "most reliable channel": channel,
        "most reliable time, ms": round(float(times_ms[sample]), 1),
        "window of at least half of that, ms": f"{at[first]:g}–{at[last]:g}",
        "peak of global field power, ms": round(float(peak), 1),
        "unit of the evoked response": unit,
        "scalp maps": "yes" if places else "none",
    }
    return drawn, [*lead, *filter(None, [drawn[1].note])], numbers


def _list_steps(recording: Trials) -> list[Table]:
    """List the steps of the preparation, whitening last, with the unit of the signals after each.

    Steps of sensors before whitening keep the recorded unit. Of voxels only the last unit is known.
    """
    # the unit of the recording holds until whitening, which has none
    is_whitened = recording.unit == WHITENED
    sources = [*recording.provenance.get("sessions", ()), recording.provenance]
    known = [source["recorded_unit"] for source in sources if "recorded_unit" in source]
    unit = known[0] if known else "not recorded" if is_whitened else recording.unit
    steps = {step: setting for step, setting in recording.preparation.items() if step != "simulated"}
    rows = []
    for step, setting in sorted(steps.items(), key=lambda item: item[0].startswith("whiten")):
        unit = recording.unit if step.startswith("whiten") and is_whitened else unit
        text = ", ".join(map(str, setting)) if isinstance(setting, list) else setting
        rows.append((step, text, "–" if isinstance(recording.space, Voxels) else unit))
    if not rows:
        return []
    if isinstance(recording.space, Voxels):
        rows.append(("after all steps", "", recording.unit))
    return [Table("Preparation, with the unit after each step", ("step", "setting", "unit"), rows)]


def _list_dropped(recording: Trials, split: str) -> list[Table]:
    """List the trials that were dropped, by session and reason, where the provenance counts them."""
    rows = []
    for source in recording.provenance.get("sessions", [recording.provenance]):
        dropped = source.get("dropped_by_split", {}).get(split, source.get("dropped"))
        if dropped is None:
            continue
        trials = source.get("trials", int(recording.is_there.sum()))
        total = trials + sum(dropped.values())
        for reason, count in (dropped or {"none": 0}).items():
            rows.append((source.get("session", "–"), reason, count, f"{count / max(1, total):.1%}"))
    return [Table("Trials dropped", ("session", "reason", "trials", "of all"), rows)] if rows else []


def _describe_rhythm(evoked: Float64, times_ms: Float64) -> str:
    """Name a rhythm that is locked to onset: an evoked response that is as large before onset as after it."""
    before = times_ms < 0
    if before.sum() < 2 or before.all():
        return ""

    # variance before and after onset
    centred = evoked - evoked.mean(1, keepdims=True)  # [C, T]
    if np.square(centred[:, before]).mean() < RHYTHM_SHARE * np.square(centred[:, ~before]).mean():
        return ""

    # the frequency, other than 0, with the most power over channels
    spectrum = np.square(np.abs(np.fft.rfft(centred))).sum(0)
    rate_hz = 1000 / np.diff(times_ms).mean()
    frequency = np.fft.rfftfreq(len(times_ms), 1 / rate_hz)[1 + spectrum[1:].argmax()]
    return (
        f"The evoked response is as large before onset as after it: a rhythm of about {frequency:.1f} Hz is "
        "locked to onset, as where stimuli follow each other at an even pace."
    )
