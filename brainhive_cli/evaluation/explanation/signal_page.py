"""One page on the signals of a subject: evoked response, reliability and noise ceilings, by split."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from brainhive_cli.core.artifacts import Artifact, Curve, Line, Media
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Metric
from brainhive_cli.core.tables import Table
from brainhive_cli.data.stores.hdf5 import short_name
from brainhive_cli.data.stores.recordings import Recording, SignalStore, Voxels
from brainhive_cli.evaluation.explanation.sensor_space import WHITENED
from brainhive_cli.measurement.ranks import summarise
from brainhive_cli.measurement.reliability import (
    correlate,
    halve,
    noise_ceiling,
    rank_halves,
    spearman_brown,
)
from brainhive_cli.measurement.units import Alike
from brainhive_cli.reports.page import Figure, Group, Page, Section
from brainhive_cli.reports.paper_figures import (
    MIXTURES,
    draw_evoked,
    draw_regions,
    draw_reliability,
    require_matplotlib,
)

Values = NDArray[np.float64]
STIMULI = 1000
"""Stimuli that are measured, drawn with a seed where there are more: so many give correlations to .03."""
PROTOCOL = "halves of repetitions"
"""How retrieval's ceiling is measured: the mean of some repetitions is looked for among means of others."""
BY_REGION = "noise ceiling by region, %"
"""What the noise ceilings of regions are called among the numbers of a store."""
NOTE = (
    "How much of what was recorded comes back when the same stimulus is shown again. All figures are of the "
    "stimuli that were shown twice or more; retrieval is by cosine similarity of all channels and times, "
    "less their mean over stimuli, without a decoder."
)


@dataclass(frozen=True)
class Reliability:
    """What the repetitions of a recording say about it.

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
    """

    stimuli: int
    repetitions: tuple[int, int]
    evoked: Values
    field_power: Values
    split_half: Values
    ceiling: Values
    retrieval: dict[int, Metric]


def measure_reliability(
    recording: Recording, split: str, seed: int = 0, alike: Alike | None = None
) -> Reliability:
    """Measure how reliable a recording is.

    Args:
        recording: One subject's recording of a split.
        split: Its name, for the metrics.
        seed: Of the draw of stimuli and halves.
        alike: Which stimuli are; None: none.

    Raises:
        BrainhiveError: if fewer than three stimuli were shown twice.
    """
    # stimuli that were shown twice at least, drawn where there are more than are measured
    random = np.random.default_rng(seed)
    count, most, *places = recording.signal.shape
    counts = np.full(count, most) if recording.repetitions is None else recording.repetitions
    rows = np.flatnonzero(counts > 1)
    if len(rows) < 3:
        raise BrainhiveError(
            f"{len(rows)} {split} stimuli were shown twice or more: reliability needs three", "another split"
        )
    rows = np.sort(random.permutation(rows)[:STIMULI])
    counts = counts[rows]

    def trials() -> Iterator[NDArray[np.float32]]:
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
            yield np.array(recording.signal[row][:count], np.float32)  # [R, C, T]

    # sums over trials, by session that has a whitener
    whiteners, sessions = recording.whiteners, recording.sessions
    if whiteners is None or sessions is None:
        sessions = np.zeros(recording.signal.shape[:2], np.int8)
    sums = np.zeros((1 if whiteners is None else len(whiteners), *places))
    for row, stimulus in zip(rows.tolist(), trials(), strict=True):
        np.add.at(sums, sessions[row, : len(stimulus)].astype(int), stimulus)
    evoked = (sums if whiteners is None else np.linalg.solve(whiteners, sums)).sum(0) / counts.sum()

    # how alike two halves are, and how often a stimulus is found by k of its repetitions among k others
    draw = torch.Generator().manual_seed(seed)
    halves = correlate(halve(stimulus, draw) for stimulus in trials()).mean(0).reshape(places)
    options: Any = {"split": split, "protocol": PROTOCOL, "seeds": (seed,), "only": ("top1",)}
    options["items"] = (alike or Alike()).items([[recording.image_ids[row] for row in rows.tolist()]])
    retrieval = {}
    for size in (2**n for n in range(int(counts.min() // 2).bit_length())):
        pairs = [torch.from_numpy(np.stack(halve(stimulus, draw, 1, size))) for stimulus in trials()]
        (retrieval[size],) = summarise([rank_halves(*torch.cat(pairs, 1))], len(rows), **options)
    return Reliability(
        stimuli=len(rows),
        repetitions=(int(counts.min()), int(counts.max())),
        evoked=evoked,
        field_power=evoked.std(0),
        split_half=spearman_brown(halves, counts.sum() / (counts // 2).sum()),
        ceiling=noise_ceiling(trials, counts),
        retrieval=retrieval,
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
        MissingExtra: if matplotlib is not installed.
        BrainhiveError: if no split has stimuli that were shown twice.
    """
    require_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    name, sections, figures, reasons = short_name(store.path), [], {}, []
    for split, recording in store.splits.items():
        try:
            reliability = measure_reliability(recording, split, alike=(alike or {}).get(split))
        except BrainhiveError as error:
            reasons.append(error)
            continue
        title = f"{name}, {split}: {reliability.stimuli} stimuli"
        drawn, place = _draw(reliability, recording, folder, split, title)
        figures[split] = described = _describe(reliability, place)
        rows: list[tuple[Any, ...]] = [
            (name, value) for name, value in described.items() if not isinstance(value, dict)
        ]
        blocks: list[Table | Figure] = [Table(title, ("figure", "value"), rows)]
        rows = [
            (size, f"{top1.value:.1%}", f"{top1.low:.1%}–{top1.high:.1%}", top1.pool, f"{top1.chance:.2%}")
            for size, top1 in reliability.retrieval.items()
        ]
        columns: tuple[str, ...] = ("repetitions", "top-1", "95 %", "pool", "chance")
        blocks.append(Table("Stimuli found by their repetitions", columns, rows))
        if regions := described.get(BY_REGION):
            columns = ("region", "voxels", "median, %", "90 % quantile, %")
            rows = [(region, *ceiling.values()) for region, ceiling in regions.items()]
            blocks.append(Table("Noise ceiling by region", columns, rows))
        blocks += [Figure([("", artifact, folder)]) for artifact in drawn]
        sections.append(Section(split, [Group("", blocks)]))
    if not sections:
        raise reasons[0]
    page = folder / f"{store.path.stem}.html"
    Page(f"Signals of {name}", [NOTE], sections=sections).write(page)
    return page, figures


def _draw(
    reliability: Reliability, recording: Recording, folder: Path, split: str, title: str
) -> tuple[list[Artifact], dict[str, Any]]:
    """Draw a split's figures, and describe what they show of voxels, or of sensors and times."""
    curves: list[Artifact] = []
    if len(reliability.retrieval) > 1:
        top1 = list(reliability.retrieval.values())
        low, high = [metric.low for metric in top1], [metric.high for metric in top1]
        line = Line("top-1", [metric.value for metric in top1], low, high, top1[0].chance)
        words, axis = "A stimulus found among means of other repetitions", "repetitions in each mean"
        sizes = list(reliability.retrieval)
        curves.append(Curve(words, axis, sizes, [line], "accuracy", is_logarithmic=True))

    space, times_s = recording.space, recording.times_s
    if isinstance(space, Voxels):
        regions = {name: mask for name, mask in space.regions.items() if np.any(mask)}
        regions = regions or {"all voxels": np.ones(len(reliability.ceiling), bool)}
        file, ceiling = f"{split}_ceiling.png", reliability.ceiling[:, 0]
        draw_regions(folder / file, ceiling, regions, f"{title}, ceiling")
        by_region = {
            name: {
                "voxels": len(ceiling[mask]),
                "median": float(np.median(ceiling[mask])),
                "quantile": float(np.quantile(ceiling[mask], 0.9)),
            }
            for name, mask in regions.items()
        }
        return [Media("Noise ceiling by region", file, is_drawing=True), *curves], {BY_REGION: by_region}

    # the evoked response is in sensor space where whiteners are known
    unit = MIXTURES if recording.unit == WHITENED else recording.unit
    unit = unit if recording.whiteners is None else "before whitening"
    evoked, halves = f"{split}_evoked.png", f"{split}_split_half.png"
    has_maps = draw_evoked(
        folder / evoked, reliability.evoked, times_s, space, unit, f"{title}, evoked response"
    )
    draw_reliability(folder / halves, reliability.split_half, times_s, space.names, f"{title}, split halves")
    channel, sample = np.unravel_index(reliability.split_half.argmax(), reliability.split_half.shape)
    place = {
        "unit of the evoked response": unit,
        "scalp maps": "yes" if has_maps else "none",
        "most reliable channel": space.names[int(channel)],
        "most reliable time, ms": round(float(times_s[sample]) * 1000, 1),
        "peak of global field power, ms": round(float(times_s[reliability.field_power.argmax()]) * 1000, 1),
    }
    drawings = [("Evoked response", evoked), ("Split-half reliability", halves)]
    return [*(Media(*drawing, is_drawing=True) for drawing in drawings), *curves], place


def _describe(reliability: Reliability, place: dict[str, Any]) -> dict[str, Any]:
    """Return plain numbers: of channels and times, quantiles and where the largest is."""
    return {
        "stimuli": reliability.stimuli,
        "fewest repetitions": reliability.repetitions[0],
        "most repetitions": reliability.repetitions[1],
        "median split-half reliability": float(np.median(reliability.split_half)),
        "highest split-half reliability": float(reliability.split_half.max()),
        **place,
        "median noise ceiling, %": float(np.median(reliability.ceiling)),
        "highest noise ceiling, %": float(reliability.ceiling.max()),
        "retrieval": {str(size): metric.as_dict() for size, metric in reliability.retrieval.items()},
    }
