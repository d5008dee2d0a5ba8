"""A brain model as a module of torch alone, for signals of other channels, another rate
and window.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from brainhive_cli.core import weights
from brainhive_cli.core.arrays import Float32
from brainhive_cli.core.damage import is_machine_error
from brainhive_cli.core.errors import BrainhiveError, RecipeError, first_line
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.signals.spaces import Sensors, find_channel_rows
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.targets.model_input import choose_input
from brainhive_cli.models.signal_spec import build_resampling_matrix
from brainhive_cli.training.alignment.model import Aligner, MapsSignals

Mapping = Literal["none", "spline"]
"""What is done about channels of a model that a recording lacks."""
RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""Largest difference of tokens: relative to the largest value, and added to that."""
CHECKED = 32
"""Signals on which a file is compared with its model."""
WHERE = "the list of channels"
WAY = "brainhive push shares the model as it is"


class PortableModel(nn.Module):
    """Maps signals [B, C', T'] of one subject to the vectors [B, D] that retrieval
    compares.

    All linear steps before the backbone are one matrix over channels, one over samples,
    and an offset.

    Args:
        aligner: The model; parts that only targets or other subjects need are removed
            from it.
        subject: Number of the subject; one it was not trained on is a new one.
        normaliser: Of the subject; None where signals are not normalised.
        channels: [C'] names in order; default: those of the model, or of its whitener.
        rate_hz: Of the signals; default: the model's.
        window_ms: Their start and stop after stimulus onset; default: the model's.
        mapping: Interpolate channels of the model that are not there, or refuse them.

    Attributes:
        names: [C'] of the signals; () for voxels.
        is_whitening: Whether the file whitens, by the noise of the subject's last
            training session.
        example: Random signals [n, C', T'].
        prepared: The model's input of these [n, C, T], as our own way from a recording
            makes it.
        window_ms: Start and stop of the signals after stimulus onset.

    Raises:
        BrainhiveError: naming what the model needs and the signals lack.
    """

    channels: Tensor
    times: Tensor
    offset: Tensor

    def __init__(
        self,
        aligner: Aligner,
        subject: int,
        normaliser: Normaliser | None = None,
        channels: Sequence[str] | None = None,
        rate_hz: float | None = None,
        window_ms: tuple[float, float] | None = None,
        mapping: Mapping = "none",
    ) -> None:
        super().__init__()
        spec, learned = aligner.layout.spec, aligner.learned
        if spec.signal.get("normalise_trials"):
            raise BrainhiveError(
                "the model normalises each trial over time, and the file would not", WAY
            )
        self.aligner, self.subject, self.window_ms = aligner, subject, window_ms
        self.rate_hz, self.names = rate_hz or spec.rate_hz, spec.names
        self.is_whitening = subject in learned.whiteners
        widths = dict(zip(spec.subjects, spec.widths, strict=True))

        # what other subjects, and targets, alone need
        known = {*map(str, widths)}
        for module in [*aligner.modules()] if subject in widths else ():
            if isinstance(module, nn.ModuleDict) and {*module} == known:
                for name in known - {str(subject)}:
                    del module[name]
        aligner.adapter = None
        if not isinstance(aligner.fuser, MapsSignals):
            aligner.fuser = None

        # a model of voxels takes them as its stores have them
        matrix = np.full((1, 1), spec.signal.get("scale", 1.0))
        times, width = torch.eye(spec.samples), widths.get(subject) or spec.channels
        if spec.names:
            # channels, whitened where the model's are
            recorded = learned.recorded_channels if self.is_whitening else ()
            self.names = tuple(channels or recorded or spec.names)
            width = len(self.names)
            whitener = np.eye(width)
            if self.is_whitening:
                rows = find_channel_rows(self.names, recorded)
                whitener = learned.whiteners[subject][-1] @ whitener[rows]

            # samples at the model's rate, of which it reads its window
            own_hz, (start_s, *_) = spec.rate_hz or 1.0, spec.times_s or (0.0,)
            stop_s = start_s + spec.samples / own_hz
            start_ms, stop_ms = window_ms or (1000 * start_s, 1000 * stop_s)
            self.window_ms, given_hz = (start_ms, stop_ms), self.rate_hz or own_hz
            samples = max(1, round((stop_ms - start_ms) / 1000 * given_hz))
            times = build_resampling_matrix(samples, given_hz, own_hz).mT
        elif channels or rate_hz or window_ms:
            raise RecipeError(
                "channels, rate_hz and window_ms are of sensors, and it reads voxels",
                "leave them out",
            )

        # random signals, and what our own way makes of them
        self.example = torch.randn(CHECKED, width, len(times))
        prepared = self.example.numpy() * np.float32(matrix)
        if spec.names:
            values = whitener @ self.example.numpy() @ times.numpy()
            trials = Trials(
                values[:, None],
                (),
                Sensors(recorded or self.names),
                start_ms / 1000 + np.arange(values.shape[2]) / own_hz,
                own_hz,
                spec.unit,
            )
            chosen = choose_input(spec, trials, WHERE, channel_mapping=mapping)
            prepared = chosen.averages
            matrix = whitener[chosen.rows] * matrix
            if chosen.mapping is not None:
                matrix = chosen.mapping.matrix @ matrix
            times = times[:, chosen.samples].contiguous()

        # the normaliser: W (x - m) = W x + W (0 - m)
        offset: Float32 = np.zeros((1, 1), np.float32)
        if normaliser is not None:
            weight, offset = normaliser.matrix, normaliser(offset)
            mixes = spec.names and weight.shape[1] > 1
            matrix = weight @ matrix if mixes else weight * matrix
            prepared = normaliser(prepared)
        self.prepared = torch.from_numpy(prepared)
        self.register_buffer("channels", torch.from_numpy(matrix).float())
        self.register_buffer("times", times)
        self.register_buffer("offset", torch.from_numpy(offset).float())
        self.eval().requires_grad_(False)

    def forward(self, signal: Tensor) -> Tensor:
        """Encode signals [B, C', T'] of any dtype."""
        # `to` would be exported for the dtype of the example alone
        signal = signal.type_as(self.channels)
        # [C, 1] are factors, as of voxels, which are too many for a product
        product = torch.mul if self.channels.shape[1] == 1 else torch.matmul
        # [B, C, T]
        return self.encode(product(self.channels, signal) @ self.times + self.offset)

    def encode(self, signal: Tensor) -> Tensor:
        """Encode the model's input [B, C, T]."""
        index = self.aligner.make_subject_index(self.subject, signal.shape[0])
        return self.aligner.encode_signal(signal, index)


def save_program(module: PortableModel, file: Path) -> tuple[list[int], float]:
    """Write a model as a `torch.export` file that takes batches of any size, read it
    back, and compare its tokens of random signals with ours.

    Returns:
        The shape of one output, and the largest difference.

    Raises:
        BrainhiveError: naming a backbone whose computation cannot be exported, or if
            tokens differ.
    """
    signal, shapes = module.example, ({0: torch.export.Dim("batch", min=1)},)
    with torch.no_grad():
        try:
            program = torch.export.export(module, (signal,), dynamic_shapes=shapes)
            written = weights.serialise(partial(torch.export.save, program))
        except Exception as error:  # torch refuses by many kinds
            if is_machine_error(error):
                raise
            kind = module.aligner.layout.backbone["kind"]
            raise BrainhiveError(
                f"the backbone {kind} cannot be exported: {first_line(error)}", WAY
            ) from error
        file.write_bytes(written)
        actual = torch.export.load(file).module()(signal)
        expected = module.encode(module.prepared)
    difference = (actual - expected).abs().max().item()
    largest = expected.abs().max().item()
    if not difference <= ABSOLUTE + RELATIVE * largest:
        raise BrainhiveError(
            f"tokens of the exported model differ by {difference:.2g}, of "
            f"{largest:.2g} at most",
            WAY,
        )
    return [*expected.shape[1:]], difference
