"""Sensors of a signal: what each recorded, where mixing is undone, and where it lies on
the head.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.arrays import Array, Float32, Float64, Int64
from brainhive_cli.core.artifacts import Map, Point
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.spaces import Sensors, Voxels, standard_positions
from brainhive_cli.data.signals.trials import COPIED_STIMULI, Trials
from brainhive_cli.measurement.reliability import average_parts
from brainhive_cli.measurement.repetitions import separate_repetitions

WHITENED = "whitened"
"""The unit of signals after multivariate noise normalisation."""
MIN_SENSORS = 4
"""Fewest sensors with a known position of which a map is drawn."""


@dataclass(frozen=True)
class SensorSpace:
    """Contribution of each sensor, or voxel, to the input of a model.

    The input is a baseline, the mean training signal, plus the sum over sessions of a
    matrix times what the sensors deviate from their mean. Where nothing mixes channels,
    there is one session and no matrix.

    Attributes:
        signal: [N, C, T] input of the model.
        deviation: [N, S, E, T] of E sensors from their mean, in S sessions.
        mixing: [S, C, E] from sensors to the model's channels; None where they are the
            same.
    """

    signal: Tensor
    deviation: Tensor
    mixing: Tensor | None

    @classmethod
    def of(
        cls, tested: Trials, learned: Trials, signal: Float32, mean: Float32
    ) -> Self:
        """Undo what mixes the channels of trials; all of a recording's sensors
        contribute if it was whitened.

        Channels must be no mixtures that are not known, as of `find_mixture`.

        Args:
            tested: What a model reads of the signals that are explained.
            learned: What it reads of the same subject's training signals.
            signal: [N, C, T] the former, repetitions averaged.
            mean: [C, T] mean of the latter.
        """
        # without whitening at most one matrix mixes channels
        recorded = tested.recorded or tested
        read = torch.from_numpy(signal)
        matrix = None
        if tested.normaliser is not None and tested.normaliser.matrix.shape[1] > 1:
            matrix = torch.from_numpy(tested.normaliser.matrix)
        if recorded.whiteners is None:
            from_mean = read - torch.from_numpy(mean)  # [N, C, T]
            deviation = (
                from_mean if matrix is None else torch.linalg.solve(matrix, from_mean)
            )
            return cls(
                read, deviation[:, None], None if matrix is None else matrix[None]
            )

        # whitening is followed by the choice of channels, scaling and normalisation
        whiteners = torch.from_numpy(recorded.whiteners).float()  # [S, E, E]
        mixing = whiteners[:, torch.from_numpy(tested.rows)] * (
            1 if tested.normaliser else tested.scale
        )
        if tested.normaliser is not None:
            scaled = torch.from_numpy(tested.normaliser.matrix) * tested.scale
            mixing = scaled @ mixing if matrix is not None else scaled * mixing

        # the mean of each sensor over training trials, by session; deviations of the
        # tested ones from it
        sessions = len(whiteners)
        total = 0.0
        weight = 0.0
        for part, weights in _by_session(learned, sessions):
            total = total + part.sum(0)
            weight = weight + weights.sum(0)
        means = total / np.maximum(weight, 1e-12)[:, None, None]  # [S, E, T]
        parts, shares = (
            np.concatenate(chunks)
            for chunks in zip(*_by_session(tested, sessions), strict=True)
        )
        deviation = torch.from_numpy(
            (parts - shares[..., None, None] * means).astype(np.float32)
        )
        return cls(read, deviation, mixing)

    def without(self, sensor: int) -> Tensor:
        """Give the input [N, C, T] as if a sensor had shown its mean training
        signal.
        """
        # unmixed, the sensor's own deviation is subtracted; mixed, what its column of
        # the matrix makes of it
        if self.mixing is None:
            changed = self.signal.clone()
            changed[:, sensor] -= self.deviation[:, 0, sensor]
            return changed
        part = torch.einsum(
            "sc,nst->nct", self.mixing[..., sensor], self.deviation[:, :, sensor]
        )
        return self.signal - part


def find_mixture(trials: Trials) -> BrainhiveError | None:
    """Say why channels are unknown mixtures of sensors, which have no position; None of
    others.
    """
    recording = trials.recorded or trials
    if trials.normalises_trials and recording.whiteners is not None:
        return BrainhiveError(
            "the model normalises each trial after whitening, which cannot be undone: "
            "its channels are mixtures of sensors",
            "signal.normalise_trials=false, or signals without whitening",
        )
    # without the whiteners, mixing cannot be undone
    if recording.whiteners is None and recording.unit == WHITENED:
        return BrainhiveError(
            "the signals were whitened, and the store does not have the whiteners: its "
            "channels are mixtures of sensors",
            "prepare the raw recordings, or without whitening",
        )
    return None


def separate_in_time(trials: Trials) -> tuple[Int64, Int64]:
    """Find the repetitions of stimuli that are far apart in time.

    Returns:
        [N, R] number of the part of the recording that each repetition is of, in the
        order of time only where runs have one each, and [N] how many these are.

    Raises:
        BrainhiveError: as `separate_repetitions`.
    """
    is_there = trials.is_there
    known = (trials.sessions, trials.runs, trials.times_in_run)
    parts = separate_repetitions(is_there, *known)

    # parts count from 0
    counts = 1 + np.where(is_there, parts, 0).max(1)

    # in one run the first repetitions of stimuli whose first is late are late, too:
    # their order is drawn
    if any(values is not None for values in known):
        sessions, runs = (
            0 if values is None else values.astype(np.int64) for values in known[:2]
        )
        run = np.zeros(is_there.shape, np.int64) + sessions * 2**16 + runs
        random = np.random.default_rng(0)
        for numbers, mask, shown_in, count in zip(
            parts, is_there, run, counts, strict=True
        ):
            if len(np.unique(shown_in[mask])) < count:
                numbers[mask] = random.permutation(count)[numbers[mask]]
    return parts, counts


def averages(trials: Trials, is_mixed: bool = False) -> Iterator[Float32]:
    """Average the repetitions of stimuli in chunks [n, E, T].

    In sensor space, not scaled; as the model reads them where channels are mixtures
    that are not known.
    """
    for part in _chunks(trials):
        if is_mixed:
            yield trials.read(part)
        else:
            # zeros of missing repetitions add nothing
            averaged = (
                _read_sensors(trials, part).sum(1) / trials.counts[part][:, None, None]
            )
            yield averaged.astype(np.float32)


def repetitions(trials: Trials, is_mixed: bool = False) -> Iterator[Float32]:
    """Give the repetitions [R, E, T] of each stimulus, as `averages` does their
    averages.
    """
    for part in _chunks(trials):
        singles = (
            trials.read(part, as_singles=True)
            if is_mixed
            else _read_sensors(trials, part)
        )
        for single, count in zip(singles, trials.counts[part], strict=True):
            yield single[:count]  # without padding


def averages_by_part(
    trials: Trials, parts: Int64, is_mixed: bool = False
) -> Iterator[Array]:
    """Average the repetitions of each stimulus within the parts [N, R] of the
    recording: [parts, E, T].
    """
    for stimulus, numbers in zip(repetitions(trials, is_mixed), parts, strict=True):
        yield average_parts(stimulus, numbers[: len(stimulus)])


def _chunks(trials: Trials) -> list[slice]:
    return [
        slice(start, start + COPIED_STIMULI)
        for start in range(0, len(trials.signal), COPIED_STIMULI)
    ]


def _read_sensors(trials: Trials, part: slice) -> Float32:
    """Read repetitions [n, R, E, T] as their sensors recorded them, not scaled; zeros
    where there is none.
    """
    recorded = trials.recorded or trials
    channels = slice(None) if trials.rows is None else trials.rows
    signal = np.asarray(recorded.signal[part])[..., trials.samples].astype(np.float32)
    if recorded.whiteners is None:
        return np.where(
            trials.is_there[part][..., None, None], signal[:, :, channels], 0
        )

    # whiteners mix all channels, session by session
    unmixed = np.zeros_like(signal)
    session = _sessions(recorded, part)
    for number, whitener in enumerate(recorded.whiteners):
        unmixed[session == number] = (
            np.linalg.inv(whitener).astype(np.float32) @ signal[session == number]
        )
    return unmixed


def _by_session(trials: Trials, count: int) -> Iterator[tuple[Float64, Float64]]:
    """Yield the part of each of S sessions in the averages of a chunk of stimuli, [n,
    S, E, T] and [n, S].

    The second is the share of each session in the repetitions that are averaged.
    """
    for part in _chunks(trials):
        # [n, R, S]
        is_of = _sessions(trials.recorded or trials, part)[..., None] == np.arange(
            count
        )
        weights = is_of / trials.counts[part][:, None, None]
        yield (
            np.einsum("nrs,nret->nset", weights, _read_sensors(trials, part)),
            weights.sum(1),
        )


def _sessions(recording: Trials, part: slice) -> Int64:
    """Return the session of each repetition [n, R], -1 where there is none."""
    # one session, to which all repetitions belong
    if recording.sessions is None:
        return np.where(recording.is_there[part], 0, -1)
    return recording.sessions[part].astype(int)


def flattened(positions: Float64) -> Float64:
    """Project positions on a head [K, 3] on a plane [K, 2], nose up; 1 is the height of
    the ears.

    Distances from the top are angles, as seen from the centre of the sphere that fits
    the positions best.
    """
    # the sphere |p|^2 = 2 p c + k that fits the positions p best has its centre at c
    system = np.column_stack([2 * positions, np.ones(len(positions))])
    centre = np.linalg.lstsq(system, np.square(positions).sum(1), rcond=None)[0][:3]

    # angle from the top, and direction around it
    x, y, z = (positions - centre).T
    angle = np.arctan2(np.hypot(x, y), z)
    direction = np.arctan2(y, x)
    plane: Float64 = (angle / (np.pi / 2))[:, None] * np.stack(
        [np.cos(direction), np.sin(direction)], 1
    )
    return plane


def place_sensors(space: Sensors | Voxels) -> dict[str, tuple[float, float]]:
    """Place the sensors whose position on the head is known on a plane, by name, as
    `flattened`.

    Those are the recording's positions; of recordings without any, the electrodes of
    the 10-05 system. None where there are too few, or two at one position, as
    gradiometers have.
    """
    if not isinstance(space, Sensors):
        return {}
    # [C, 3]
    positions = (
        standard_positions(space.names) if space.positions is None else space.positions
    )

    # sensors at (0, 0, 0) have no position
    known = np.flatnonzero(np.isfinite(positions).all(1) & positions.any(1))
    distinct = np.unique(positions[known].round(4), axis=0)
    if len(known) < MIN_SENSORS or len(distinct) < len(known):
        return {}
    plane = flattened(positions[known]).tolist()
    return {
        space.names[row]: (x, y)
        for row, (x, y) in zip(known.tolist(), plane, strict=True)
    }


def draw_head(
    title: str,
    positions: Mapping[str, tuple[float, float]],
    values: Mapping[str, float],
    value: str,
    is_diverging: bool = True,
) -> Map:
    """Draw the values of sensors on the head, of those that have a position.

    Args:
        title: Of the map.
        positions: As `place_sensors`.
        values: By sensor.
        value: What they are.
        is_diverging: Whether they lie around 0.
    """
    points = [
        Point(*positions[name], name, value=values[name])
        for name in values
        if name in positions
    ]
    return Map(title, points, value, is_diverging)
