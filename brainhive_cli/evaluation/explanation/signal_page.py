"""One page on the signals of a subject: evoked response, reliability and noise ceilings, by split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.artifacts import Artifact, Curve, Line, Media
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.tables import Table
from brainhive_cli.data.stores.hdf5 import short_name
from brainhive_cli.data.stores.recordings import Recording, SignalStore, Voxels
from brainhive_cli.evaluation.explanation.reliability import Reliability, measure_reliability
from brainhive_cli.evaluation.explanation.sensor_space import WHITENED
from brainhive_cli.measurement.units import Alike
from brainhive_cli.reports.page import Figure, Group, Page, Section
from brainhive_cli.reports.paper_figures import (
    MIXTURES,
    draw_evoked,
    draw_regions,
    draw_reliability,
    require_matplotlib,
)

BY_REGION = "noise ceiling by region, %"
"""What the noise ceilings of regions are called among the numbers of a store."""
NOTE = (
    "How much of what was recorded comes back when the same stimulus is shown again. All figures are of the "
    "stimuli that were shown twice or more; retrieval is by correlation of all channels and times, without a "
    "decoder."
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
