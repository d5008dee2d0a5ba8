"""Which part of another data set's recording a model takes: the channels, rate and window of its own."""

from collections.abc import Sequence

import numpy as np

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.section import Signal
from brainhive_cli.data.stores.recordings import Recording, Voxels
from brainhive_cli.models.signal_spec import SignalSpec


def match_recording(
    spec: SignalSpec, recording: Recording, signal: Signal, default: Sequence[str] | None, where: str
) -> tuple[Signal, tuple[str, ...]]:
    """Choose the window and the channels of a recording that a model takes.

    Args:
        spec: What the model is built for.
        recording: Of a data set that the model was not trained on.
        signal: The part of its own recordings that the model was trained on.
        default: Channels that the data set uses for decoding.
        where: Name of the recording, for errors.

    Returns:
        `signal` with the recording's window, and channels in the model's order (() for voxels).

    Raises:
        BrainhiveError: if the recording lacks channels, has another rate, or is too short.
    """
    channels = _match_channels(spec, recording, signal.channels or default, where)
    _check_rate(spec, recording, where)
    if spec.times_s and spec.rate_hz:
        half_ms = 500 / spec.rate_hz  # samples may lie a little off the model's
        first_ms, last_ms = (1000 * spec.times_s[index] for index in (0, -1))
        window_ms = (float(first_ms - half_ms), float(last_ms + half_ms))
        signal = signal.model_copy(update={"window_ms": window_ms})
    start_ms, stop_ms = signal.window_ms or (-np.inf, np.inf)
    times_ms = 1000 * recording.times_s
    samples = int(((times_ms >= start_ms) & (times_ms < stop_ms)).sum())
    if samples != spec.samples:
        raise BrainhiveError(
            f"{where} has {samples} samples where the model takes {spec.samples}",
            "cut or resample its signals to the model's window and rate",
        )
    return signal, channels


def _check_rate(spec: SignalSpec, recording: Recording, where: str) -> None:
    if spec.rate_hz and recording.rate_hz and round(spec.rate_hz - recording.rate_hz, 3):
        raise BrainhiveError(
            f"{where} is sampled at {recording.rate_hz:g} Hz, what the model was trained on at "
            f"{spec.rate_hz:g} Hz",
            f"prepare its signals at {spec.rate_hz:g} Hz",
        )


def _match_channels(
    spec: SignalSpec, recording: Recording, chosen: Sequence[str] | None, where: str
) -> tuple[str, ...]:
    """Find the model's channels by name; a model that only counts them takes those that are chosen."""
    if isinstance(recording.space, Voxels) != (not spec.names):
        found, needed = ("voxels", "sensors") if spec.names else ("sensors", "voxels")
        raise BrainhiveError(
            f"{where} has {found} where the model takes {needed}", f"use a data set of {needed}"
        )
    if isinstance(recording.space, Voxels):
        return ()
    names = recording.space.names
    if spec.names != tuple(map(str, range(len(spec.names)))):
        known = {name.lower() for name in names}
        if missing := [name for name in spec.names if name.lower() not in known]:
            raise BrainhiveError(
                f"{where} has no channel {', '.join(missing)}, which the model was trained on",
                "train on channels that both have: signal.channels=…",
            )
        return spec.names
    taken = tuple(chosen or names)
    if len(taken) != len(spec.names):
        raise BrainhiveError(
            f"{where} gives {len(taken)} channels where the model takes {len(spec.names)}",
            "the model does not name them; decode with a data set of as many",
        )
    return taken
