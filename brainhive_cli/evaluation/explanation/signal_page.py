"""One page on the signals of a subject: evoked response, reliability and noise ceilings, by split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.artifacts import Artifact, Curve, Line, Media
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Metric
from brainhive_cli.core.tables import Table
from brainhive_cli.data.stores.hdf5 import short_name
from brainhive_cli.data.stores.recordings import Recording, SignalStore, Voxels
from brainhive_cli.evaluation.explanation.reliability import Reliability, measure_reliability
from brainhive_cli.measurement.units import Alike
from brainhive_cli.reports.page import Figure, Group, Page, Section
from brainhive_cli.reports.paper_figures import (
    MIXTURES,
    draw_evoked,
    draw_regions,
    draw_reliability,
    require_matplotlib,
)

WHITENED = "whitened"
"""The unit of signals after multivariate noise normalisation."""
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
        drawn, has_maps = _draw(reliability, recording, folder, split, title)
        figures[split] = _summary(reliability, recording, has_maps)
        rows = tuple((name, value) for name, value in figures[split].items() if not isinstance(value, dict))
        tables = [Table(title, ("figure", "value"), rows), _retrieval_table(reliability.retrieval)]
        if regions := figures[split].get("noise ceiling by region, %"):
            tables.append(_region_table(regions))
        blocks: list[Table | Figure] = [
            *tables,
            *(Figure([("", each, folder)]) for each in drawn),
        ]
        sections.append(Section(split, [Group("", blocks)]))
    if not sections:
        raise reasons[0]
    page = folder / f"{store.path.stem}.html"
    Page(f"Signals of {name}", [NOTE], sections=sections).write(page)
    return page, figures


def _draw(
    reliability: Reliability, recording: Recording, folder: Path, split: str, title: str
) -> tuple[list[Artifact], bool]:
    curves: list[Artifact] = [_curve(reliability.retrieval)] if len(reliability.retrieval) > 1 else []
    if isinstance(recording.space, Voxels):
        file = f"{split}_ceiling.png"
        regions = _regions(recording.space, reliability)
        draw_regions(folder / file, reliability.ceiling[:, 0], regions, f"{title}, ceiling")
        return [Media("Noise ceiling by region", file, is_drawing=True), *curves], False
    sensors, times_s = recording.space, recording.times_s
    evoked, halves = f"{split}_evoked.png", f"{split}_split_half.png"
    has_maps = draw_evoked(
        folder / evoked, reliability.evoked, times_s, sensors, _unit(recording), f"{title}, evoked response"
    )
    draw_reliability(
        folder / halves, reliability.split_half, times_s, sensors.names, f"{title}, split halves"
    )
    shown = [
        Media("Evoked response", evoked, is_drawing=True),
        Media("Split-half reliability", halves, is_drawing=True),
    ]
    return [*shown, *curves], has_maps


def _curve(retrieval: Mapping[int, Metric]) -> Curve:
    metrics = list(retrieval.values())
    low, high = [each.low for each in metrics], [each.high for each in metrics]
    line = Line("top-1", [each.value for each in metrics], low, high, metrics[0].chance)
    title, axis = "A stimulus found among means of other repetitions", "repetitions in each mean"
    return Curve(title, axis, list(retrieval), [line], "accuracy", is_logarithmic=True)


def _unit(recording: Recording) -> str:
    """Name the unit of the evoked response, which is in sensor space where whiteners are known."""
    if recording.whiteners is not None:
        return "before whitening"
    return MIXTURES if recording.unit == WHITENED else recording.unit


def _regions(space: Voxels, reliability: Reliability) -> Mapping[str, NDArray[np.bool_]]:
    """Name the regions that have voxels; all voxels where there is no region."""
    there = {name: mask for name, mask in space.regions.items() if np.any(mask)}
    return there or {"all voxels": np.ones(len(reliability.ceiling), bool)}


def _ceilings(space: Voxels, reliability: Reliability) -> dict[str, dict[str, float]]:
    """Describe the noise ceiling of each region."""
    own = {name: reliability.ceiling[mask, 0] for name, mask in _regions(space, reliability).items()}
    return {
        name: {
            "voxels": len(each),
            "median": float(np.median(each)),
            "quantile": float(np.quantile(each, 0.9)),
        }
        for name, each in own.items()
    }


def _summary(reliability: Reliability, recording: Recording, has_maps: bool) -> dict[str, Any]:
    """Return plain numbers: of channels and times, quantiles and where the largest is."""
    channel, sample = divmod(int(reliability.split_half.argmax()), reliability.split_half.shape[1])
    place: dict[str, Any] = {}
    if isinstance(recording.space, Voxels):
        place = {"noise ceiling by region, %": _ceilings(recording.space, reliability)}
    else:
        place = {
            "unit of the evoked response": _unit(recording),
            "scalp maps": "yes" if has_maps else "none",
            "most reliable channel": recording.space.names[channel],
            "most reliable time, ms": round(float(recording.times_s[sample]) * 1000, 1),
            "peak of global field power, ms": round(
                float(recording.times_s[reliability.field_power.argmax()]) * 1000, 1
            ),
        }
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


def _region_table(regions: Mapping[str, Mapping[str, float]]) -> Table:
    rows = tuple((name, *each.values()) for name, each in regions.items())
    return Table("Noise ceiling by region", ("region", "voxels", "median, %", "90 % quantile, %"), rows)


def _retrieval_table(curve: Mapping[int, Metric]) -> Table:
    rows = tuple(
        (size, f"{each.value:.1%}", f"{each.low:.1%}–{each.high:.1%}", each.pool, f"{each.chance:.2%}")
        for size, each in curve.items()
    )
    return Table(
        "Stimuli found by their repetitions", ("repetitions", "top-1", "95 %", "pool", "chance"), rows
    )
