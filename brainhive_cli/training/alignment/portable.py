"""A brain model as a module of torch alone, for signals of another cap, rate, window
and unit.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Float32, Float64
from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingData,
    RecipeError,
    find_rows,
    first_line,
)
from brainhive_cli.data.model_input import choose_input, model_input
from brainhive_cli.data.signals.channel_mapping import map_channels
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.trials import Trials
from brainhive_cli.models.signal_spec import (
    UNIT_SIZES,
    SignalSpec,
    name_unit,
    resampling_matrix,
)
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.trained import TrainedModel

Mapping = Literal["none", "spline"]
"""What is done about channels of a model that a recording lacks."""
RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""Largest difference of tokens: relative to the largest value, and added to that."""
MAX_BATCH = 2**16
"""Signals in one call of the file, at most."""
CHECKED = 32
"""Test signals on which a file is compared with its model."""


@dataclass(frozen=True)
class Recorded:
    """Signals [B, C', T'] as a recording has them.

    Attributes:
        channels: [C'] names in order; () for voxels.
        rate_hz: Samples a second; None for voxels.
        start_s: Time of the first sample after stimulus onset.
        samples: T'.
        unit: Of the signals; empty where it is not known.
    """

    channels: tuple[str, ...]
    rate_hz: float | None
    start_s: float
    samples: int
    unit: str

    @classmethod
    def of(
        cls,
        spec: SignalSpec,
        channels: Sequence[str] | None,
        rate_hz: float | None,
        window_ms: tuple[float, float] | None,
        unit: str,
    ) -> "Recorded":
        """Describe signals by what is chosen, and by the model's own for the rest.

        Raises:
            RecipeError: if a choice is of sensors and the model reads voxels, or the
                model does not know its rate or times.
        """
        names, first_s = spec.names, spec.times_s[0] if spec.times_s else 0.0
        if (channels or rate_hz or window_ms) and not names:
            raise RecipeError(
                "channels, rate_hz and window_ms are of sensors, and it reads voxels",
                "leave them out",
            )
        if (rate_hz or window_ms) and not (spec.rate_hz and spec.times_s):
            raise RecipeError(
                "the model does not say its sampling rate and times",
                "leave rate_hz and window_ms out",
            )
        if not (rate := rate_hz or spec.rate_hz) or not spec.rate_hz:
            return cls(names, None, first_s, spec.samples, unit)

        # a window as long as the model's, unless one is chosen
        length_s = spec.samples / spec.rate_hz
        if window_ms:
            first_s = window_ms[0] / 1000
            length_s = window_ms[1] / 1000 - first_s
        samples = max(1, round(length_s * rate))
        return cls(tuple(channels or names), rate, first_s, samples, unit)


def fold_channels(
    spec: SignalSpec,
    channels: Sequence[str],
    mapping: Mapping,
    recorded: Sequence[str] = (),
    whitener: Float64 | None = None,
) -> tuple[Float64, str]:
    """Compute what a model's channels are of those of a recording.

    Args:
        spec: What the model is built for.
        channels: [C'] of the recording.
        mapping: Interpolate channels that the recording lacks, or refuse them.
        recorded: [E] channels of the whitener.
        whitener: [E, E] Σ^(-1/2) that comes first; None where signals are not whitened
            here.

    Returns:
        Matrix [C, C'], and how channels were mapped, in words.

    Raises:
        BrainhiveError: naming channels that are absent, or why none can be
            interpolated.
    """
    names, where = spec.names, "the list of channels"
    # the whitener mixes all recorded channels, of which the model reads some
    if whitener is not None:
        way = "name all, or whiten=false, and whiten signals before"
        columns = require_rows(recorded, channels, where, way)
        matrix = np.zeros((len(names), len(channels)))
        chosen = require_rows(names, recorded, "the whitener", "whiten=false")
        matrix[:, columns] = whitener[chosen]
        return matrix, ""
    # a model that only counts its channels takes as many of any name, in order
    if names == tuple(map(str, range(len(names)))) and len(channels) == len(names):
        names = tuple(channels)
    if mapping == "spline" and None in find_rows(names, channels, where):
        sensors = Sensors(tuple(channels))
        mapped = map_channels("spline", names, spec.positions, sensors, where)
        matrix = np.zeros((len(names), len(channels)))
        matrix[:, [channels.index(name) for name in mapped.sources]] = mapped.matrix
        return matrix, mapped.words
    way = "name them too, or channel_mapping=spline"
    return np.eye(len(channels))[require_rows(names, channels, where, way)], ""


def require_rows(
    wanted: Sequence[str], names: Sequence[str], where: str, hint: str
) -> list[int]:
    """Find the rows of channels, all of which must be there.

    Raises:
        BrainhiveError: naming those that are not.
    """
    rows = find_rows(wanted, names, where)
    if absent := [name for name, row in zip(wanted, rows, strict=True) if row is None]:
        raise MissingData(f"{where} lacks {', '.join(absent[:5])}", hint)
    return [row for row in rows if row is not None]


def fold_times(spec: SignalSpec, recorded: Recorded) -> Tensor | None:
    """Compute the matrix [T', T] from the samples of a recording to a model's; None
    where these are the same.

    Raises:
        BrainhiveError: if the window lacks samples that the model reads.
    """
    if spec.rate_hz is None or recorded.rate_hz is None or spec.times_s is None:
        return None
    matrix = torch.eye(recorded.samples)
    if recorded.rate_hz != spec.rate_hz:
        matrix = resampling_matrix(recorded.samples, recorded.rate_hz, spec.rate_hz)
    times_s = np.array(spec.times_s)
    columns = np.rint((times_s - recorded.start_s) * spec.rate_hz).astype(int)
    if columns[0] < 0 or columns[-1] >= len(matrix):
        stop_ms = 1000 * (times_s[-1] + 1 / spec.rate_hz)
        raise BrainhiveError(
            f"the window starts at {1000 * recorded.start_s:g} ms and has "
            f"{recorded.samples} samples, the model reads {1000 * times_s[0]:g} to "
            f"{stop_ms:g} ms",
            f"window_ms=[{1000 * times_s[0]:g}, {stop_ms:g}], or a wider one",
        )
    is_same = recorded.rate_hz == spec.rate_hz and recorded.samples == spec.samples
    return None if is_same else matrix[columns].mT.contiguous()


def unit_factor(unit: str, to_unit: str) -> float:
    """Give the factor from one unit to another.

    Raises:
        RecipeError: if one is unknown, or they measure different things.
    """
    names = name_unit(unit), name_unit(to_unit)
    if names[0] == names[1]:
        return 1.0
    sizes = [UNIT_SIZES.get(name, (0.0, name)) for name in names]
    if not (sizes[0][0] and sizes[1][0]) or sizes[0][1] != sizes[1][1]:
        raise RecipeError(
            f"signals in {unit} cannot become {to_unit or 'those of an unknown unit'}",
            f"unit={to_unit}" if to_unit else "leave unit out",
        )
    return sizes[0][0] / sizes[1][0]


class PortableModel(nn.Module):
    """Maps signals [B, C', T'] of one subject to vectors [B, D], or a head's shape.

    Args:
        aligner: The model; parts that only targets or other subjects need are removed
            from it.
        subject: A subject it was trained on; None for any other.
        recorded: The signals.
        unit: Of the signals that the model was trained on, before they were whitened.
        head: The head that is given; default: the vector that retrieval compares.
        mapping: Interpolate channels of the model that are not there, or refuse them.
        whitener: [E, E] Σ^(-1/2) of all recorded channels; None where signals are not
            whitened here.
        normaliser: Of the subject; None where signals are not normalised here.

    Attributes:
        row: The subject's index; None of a new one.
        mapped: How channels were mapped, in words; empty where they were not.

    Raises:
        BrainhiveError: naming what the model needs and the signals lack.
    """

    channels: Tensor | None
    times: Tensor | None
    gain: Tensor
    offset: Tensor

    def __init__(
        self,
        aligner: Aligner,
        subject: int | None,
        recorded: Recorded,
        unit: str = "",
        head: str | None = None,
        mapping: Mapping = "none",
        whitener: Float64 | None = None,
        normaliser: Normaliser | None = None,
    ) -> None:
        super().__init__()
        spec = aligner.layout.spec
        self.aligner, self.head = aligner, head
        self.recorded, self.unit = recorded, unit
        self.mapping, self.whitener, self.normaliser = mapping, whitener, normaliser
        self.row = spec.subjects.index(subject) if subject in spec.subjects else None

        # what other subjects, and targets, alone need
        known = {*map(str, spec.subjects)}
        for module in [*aligner.modules()] if self.row is not None else ():
            if isinstance(module, nn.ModuleDict) and {*module} == known:
                for name in known - {str(subject)}:
                    del module[name]
        aligner.adapter = None
        if not hasattr(aligner.fuser, "of_signal"):
            aligner.fuser = None

        # channels, unit and scale in float64
        factor = unit_factor(recorded.unit, unit) * spec.signal.get("scale", 1.0)
        gain, offset = np.full((1, 1), factor), np.zeros((1, 1))
        channels, self.mapped = None, ""
        if spec.names:
            learned = aligner.learned.recorded_channels
            channels, self.mapped = fold_channels(
                spec, recorded.channels, mapping, learned, whitener
            )
        # the normaliser: W (f x - m) = (W f) x - W m
        if normaliser is not None:
            weight = normaliser.matrix.astype(np.float64)
            is_diagonal = weight.shape[1] == 1  # voxels are too many for a product
            mean = normaliser.mean
            offset = weight * mean if is_diagonal else weight @ mean
            gain = weight * factor
            if not is_diagonal:
                channels = gain if channels is None else gain @ channels
                gain = np.ones((1, 1))
        if channels is not None:
            channels, gain = channels * gain, np.ones((1, 1))

        for name, values in {
            "channels": channels,
            "gain": gain,
            "offset": offset,
        }.items():
            is_there = values is not None
            tensor = torch.tensor(values, dtype=torch.float32) if is_there else None
            self.register_buffer(name, tensor)
        self.register_buffer("times", fold_times(spec, recorded))
        self.eval().requires_grad_(False)

    @property
    def shape(self) -> tuple[int, int]:
        """Channels C' and samples T' of a signal."""
        spec, recorded = self.aligner.layout.spec, self.recorded
        width = spec.channels if self.row is None else spec.widths[self.row]
        return len(recorded.channels) or width, recorded.samples

    def forward(self, signal: Tensor) -> Tensor:
        """Encode signals [B, C', T']."""
        if self.channels is not None:
            signal = self.channels @ signal
        if self.times is not None:
            signal = signal @ self.times
        signal = signal * self.gain - self.offset  # [B, C, T]
        index = None
        if self.row is not None:
            index = signal.new_full((signal.shape[0],), self.row, dtype=torch.long)
        return encode(self.aligner, signal, index, self.head)


def encode(
    aligner: Aligner, signal: Tensor, index: Tensor | None, head: str | None
) -> Tensor:
    """Encode signals as the vector that retrieval compares, or as one head."""
    if head is None:
        return aligner.encode_signal(signal, index)
    return aligner.predict(signal, index, [head])[head]


def save_program(module: PortableModel, file: Path) -> None:
    """Write a model as a `torch.export` file that takes batches of any size.

    Raises:
        BrainhiveError: naming a backbone whose computation cannot be exported.
    """
    kind = module.aligner.layout.backbone["kind"]
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    try:
        # warnings are of how torch traces
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            program = torch.export.export(
                module, (torch.zeros(2, *module.shape),), dynamic_shapes=({0: batch},)
            )
            torch.export.save(program, file)
    except BrainhiveError:
        raise
    except Exception as error:  # torch refuses by many kinds
        raise BrainhiveError(
            f"the backbone {kind} cannot be exported: {first_line(error)}",
            "brainhive push shares the model as it is",
        ) from error


def compare_tokens(
    file: Path, module: PortableModel, trained: TrainedModel | None, subject: int | None
) -> dict[str, Any]:
    """Compare what a file gives with what the model gives, on test signals of the
    store.

    At the rate of the store these are the tokens of eval-retrieval; else, or where
    users normalise signals themselves, those of the module before it was exported.

    Args:
        file: From `save_program`.
        module: What was saved.
        trained: The cell of the run; None of a model folder, which names no signals.
        subject: Whose signals the file takes; None for a new one.

    Returns:
        Which signals, compared with what, the largest difference, the largest value,
        and the shape of one output.

    Raises:
        BrainhiveError: if they differ.
    """
    spec, recorded, expected = module.aligner.layout.spec, module.recorded, None
    signal, words = torch.randn(CHECKED, *module.shape), "random signals"
    try:
        if trained is None:
            raise MissingData("a model folder names no signals")
        person = trained.cell.tested_on[0] if subject is None else subject
        recording = trained.source.recording(person, "test")
        recording = recording.take(np.arange(min(CHECKED, len(recording.signal))))
        where = f"{trained.run.dataset.name} subject {person}"
        signal = torch.from_numpy(_as_recorded(recording, module, where))
        words = f"{len(signal)} test signals of {where}"

        # our own way from a store to tokens
        is_normalised = spec.signal.get("normalise", "none") != "none"
        is_here = module.normaliser is not None or not is_normalised
        if is_here and recording.rate_hz == recorded.rate_hz:
            if recorded.channels and module.whitener is None:
                recording = recording.select(recorded.channels)
            options = module.normaliser, where, module.mapping if spec.names else "none"
            prepared = torch.from_numpy(model_input(spec, recording, *options))
            index = None
            if module.row is not None:
                index = torch.full((len(prepared),), module.row)
            with torch.no_grad():
                expected = encode(trained.module, prepared, index, module.head)
    except MissingData as error:
        console.warn(f"compared on random signals: {error.message}")

    # the file is read as its users read it
    against = "the model before the export" if expected is None else "eval-retrieval"
    with torch.no_grad():
        expected = module(signal) if expected is None else expected
        actual = torch.export.load(file).module()(signal)
    difference = (actual - expected).abs().max().item()
    largest = expected.abs().max().item()
    if not difference <= ABSOLUTE + RELATIVE * largest:
        raise BrainhiveError(
            f"tokens of the exported model differ from those of {against} by "
            f"{difference:.2g}, of {largest:.2g} at most",
            "brainhive push shares the model as it is",
        )
    return {
        "signals": words,
        "against": against,
        "largest_difference": difference,
        "largest_value": largest,
        "shape": [*expected.shape[1:]],
    }


def _as_recorded(recording: Trials, module: PortableModel, where: str) -> Float32:
    """Turn trials of a store into signals [N, C', T'] as the file takes them.

    Raises:
        MissingData: if the store lacks a channel.
    """
    spec, recorded = module.aligner.layout.spec, module.recorded
    unit = unit_factor(module.unit, recorded.unit)
    if not isinstance(recording.space, Sensors):
        scale = np.float32(spec.signal.get("scale", 1.0))
        return choose_input(spec, recording, where).averages / scale * np.float32(unit)

    # the whitening undone, and the channels of the file
    names, values = recording.space.names, recording.averages.astype(np.float64)
    if module.whitener is not None:
        every = module.aligner.learned.recorded_channels
        rows = require_rows(every, names, where, "prepare again")
        names, values = every, np.linalg.inv(module.whitener) @ values[:, rows]
    rows = require_rows(recorded.channels, names, where, "channels of the store")
    values = values[:, rows] * unit

    # the rate and the window of the file; samples that the store lacks are zeros
    rate_hz = recorded.rate_hz or 1.0
    if recording.rate_hz and recorded.rate_hz not in (None, recording.rate_hz):
        options = values.shape[2], recording.rate_hz, rate_hz
        values = values @ resampling_matrix(*options).double().numpy().T
    first = round((recording.times_s[0] - recorded.start_s) * rate_hz)
    signal = np.zeros((len(values), *module.shape), np.float32)
    values = values[:, :, max(0, -first) :]
    part = signal[:, :, max(0, first) :]
    count = min(part.shape[2], values.shape[2])
    part[:, :, :count] = values[:, :, :count]
    return signal
