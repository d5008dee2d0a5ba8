"""Signals of another data set, brought to what a model was trained on: channels by name, rate and window."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.alignment.layout import Layout
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.signal_stores import open_signals, store_path
from brainhive_cli.datasets import Dataset
from brainhive_cli.signals.section import Signal
from brainhive_cli.signals.selection import sample_range
from brainhive_cli.stores.recordings import Recording, Sensors, SignalStore


@dataclass(frozen=True)
class Origin:
    """The recordings that a model was trained on.

    Attributes:
        name: The data set; empty when nothing says: subjects are then known by their numbers.
        times_s: [T] seconds of their samples; None when the recordings are not at hand.
        rate_hz: Their rate; None when they are not at hand.
    """

    name: str
    times_s: NDArray[np.float64] | None = None
    rate_hz: float | None = None

    @property
    def is_other(self) -> bool:
        """Whether the subjects are known to be other people than those trained on."""
        return bool(self.name)

    @classmethod
    def of(cls, dataset: Dataset, signal: Signal, paths: Paths) -> Self:
        """Look at the first subject whose signals are prepared."""
        for subject in dataset.subjects:
            path = store_path(dataset, paths, signal, subject)
            if path.is_file():
                first = next(iter(SignalStore.open(path).splits.values()))
                return cls(dataset.name, first.times_s, first.rate_hz)
        return cls(dataset.name)


def fitted(
    origin: Origin, layout: Layout, signal: Signal, dataset: Dataset, paths: Paths, subject: int, split: str
) -> tuple[Signal, tuple[str, ...]]:
    """Say which window and channels of a recording a model takes.

    Returns:
        The signal section with its window, and the channels in the model's order.

    Raises:
        BrainhiveError: if the recording lacks channels, has another rate, or is too short.
    """
    recording = open_signals(dataset, paths, signal, subject)[split]
    where = f"{dataset.name} subject {subject}"
    channels = _channels(layout, signal, dataset, recording, where)
    if origin.rate_hz and recording.rate_hz and round(origin.rate_hz - recording.rate_hz, 3):
        raise BrainhiveError(
            f"{where} is sampled at {recording.rate_hz:g} Hz, {origin.name} at {origin.rate_hz:g} Hz",
            f"prepare its signals at {origin.rate_hz:g} Hz",
        )
    if origin.times_s is not None and origin.rate_hz:
        times_ms = 1000 * origin.times_s[sample_range(origin.times_s, signal.window_ms)]
        half_ms = 500 / origin.rate_hz  # samples may lie a little beside the model's
        window_ms = (float(times_ms[0] - half_ms), float(times_ms[-1] + half_ms))
        signal = signal.model_copy(update={"window_ms": window_ms})
    start_ms, stop_ms = signal.window_ms or (-np.inf, np.inf)
    times_ms = 1000 * recording.times_s
    taken = int(((times_ms >= start_ms) & (times_ms < stop_ms)).sum())
    if taken != layout.spec.samples:
        raise BrainhiveError(
            f"{where} has {taken} samples where the model takes {layout.spec.samples}",
            "cut or resample its signals to the model's window and rate",
        )
    return signal, channels


def _channels(
    layout: Layout, signal: Signal, dataset: Dataset, recording: Recording, where: str
) -> tuple[str, ...]:
    """Find the model's channels by name; a model that only counts them takes those of the data set."""
    names = recording.space.names if isinstance(recording.space, Sensors) else ()
    is_counted = layout.spec.names == tuple(map(str, range(len(layout.spec.names))))
    if not is_counted:
        known = {name.lower() for name in names}
        if absent := [name for name in layout.spec.names if name.lower() not in known]:
            raise BrainhiveError(
                f"{where} has no channel {', '.join(absent)}, which the model was trained on",
                "train on channels that both have: signal.channels=…",
            )
        return layout.spec.names
    chosen = tuple(signal.channels or dataset.channels or names)
    if len(chosen) != len(layout.spec.names):
        raise BrainhiveError(
            f"{where} gives {len(chosen)} channels where the model takes {len(layout.spec.names)}",
            "it does not say which; decode with a data set of as many",
        )
    return chosen
