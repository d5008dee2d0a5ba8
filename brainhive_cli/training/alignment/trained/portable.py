"""Brain model as a torch module, with all steps from recorded signals to tokens."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from brainhive_cli.core.base import BrainhiveError, Float32, RecipeError, first_line
from brainhive_cli.core.files import is_machine_error
from brainhive_cli.core.runs import weights
from brainhive_cli.data.signals import Normaliser, Sensors, Trials, find_channel_rows
from brainhive_cli.data.targets import choose_input
from brainhive_cli.models import build_resampling_matrix
from brainhive_cli.training.alignment import Aligner

MappingKind = Literal["none", "spline"]
"""Treatment of channels of a model that a recording lacks."""
PUSH_HINT = "brainhive push shares the model as it is"


class PortableModel(nn.Module):
    """Map from signals [B, C', T'] of a subject to the vectors [B, D] of retrieval.

    The linear steps before the backbone are a matrix over channels, a matrix over
    samples, and an offset.

    Args:
        aligner: Model, from which parts for targets or other subjects are removed.
        subject: Number of the subject, who is new unless a training subject has it.
        normaliser: Normaliser of the subject, or None if signals are not normalised.
        channels: Names [C'] of the channels. The default is the channels of the model,
            or of its whitener.
        rate_hz: Rate of the signals, by default the model's.
        window_ms: Start and stop of the signals after stimulus onset, by default the
            model's.
        mapping: Treatment of channels of the model that `channels` lacks.

    Attributes:
        names: Names [C'] of the channels. Empty for voxels.
        is_whitening: True if the module whitens with the noise of the subject's last
            training session.
        example: Random signals [n, C', T'].
        model_input: Input of the model [n, C, T] for these signals, computed by the
            steps for recordings.
        window_ms: Start and stop of the signals after stimulus onset.

    Raises:
        BrainhiveError: if the signals lack something that the model needs.
        RecipeError: if a key of sensors is set for a model of voxels.
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
        mapping: MappingKind = "none",
    ) -> None:
        super().__init__()
        spec = aligner.layout.spec
        history = aligner.learned
        if spec.signal.get("normalise_trials"):
            raise BrainhiveError(
                "the model normalises each trial over time, and the file would not",
                PUSH_HINT,
            )
        self.aligner = aligner
        self.subject = subject
        self.window_ms = window_ms
        self.rate_hz = rate_hz or spec.rate_hz
        self.names = spec.names
        self.is_whitening = subject in history.whiteners
        _remove_unused_parts(aligner, subject)

        # voxels are taken as stores have them
        matrix = np.full((1, 1), spec.signal.get("scale") or 1.0)
        times = torch.eye(spec.samples)
        widths = dict(zip(spec.subjects, spec.widths, strict=True))
        width = widths.get(subject) or spec.channels
        if spec.names:
            # channels, and the whitener of the training
            recorded = history.recorded_channels if self.is_whitening else ()
            self.names = tuple(channels or recorded or spec.names)
            width = len(self.names)
            whitener = np.eye(width)
            if self.is_whitening:
                rows = find_channel_rows(self.names, recorded)
                whitener = history.whiteners[subject][-1] @ whitener[rows]

            # matrix over samples from the rate of the signals to the model's
            model_hz = spec.rate_hz or 1.0
            start_s = spec.times_s[0] if spec.times_s else 0.0
            stop_s = start_s + spec.samples / model_hz
            start_ms, stop_ms = window_ms or (1000 * start_s, 1000 * stop_s)
            self.window_ms = (start_ms, stop_ms)
            signal_hz = self.rate_hz or model_hz
            n_samples = max(1, round((stop_ms - start_ms) / 1000 * signal_hz))
            times = build_resampling_matrix(n_samples, signal_hz, model_hz).mT
        elif channels or rate_hz or window_ms:
            raise RecipeError(
                "channels, rate_hz and window_ms are keys of sensors, but the model "
                "reads voxels",
                "leave them out",
            )

        # Number of random signals on which a file is compared with its model.
        n_examples = 32
        # random signals, and the input that the steps for recordings make of them
        self.example = torch.randn(n_examples, width, len(times))
        model_input = self.example.numpy() * np.float32(matrix)
        if spec.names:
            values = whitener @ self.example.numpy() @ times.numpy()
            trials = Trials(
                values,
                (),
                Sensors(recorded or self.names),
                start_ms / 1000 + np.arange(values.shape[2]) / model_hz,
                model_hz,
                spec.unit,
            )
            selection = choose_input(
                spec, trials, "the list of channels", channel_mapping=mapping
            )
            model_input = selection.averages
            matrix = whitener[selection.rows] * matrix
            if selection.mapping is not None:
                matrix = selection.mapping.matrix @ matrix
            times = times[:, selection.samples].contiguous()

        # the normaliser: W (x - m) = W x + W (0 - m)
        offset: Float32 = np.zeros((1, 1), np.float32)
        if normaliser is not None:
            weight = normaliser.matrix
            offset = normaliser(offset)
            mixes_channels = spec.names and weight.shape[1] > 1
            matrix = weight @ matrix if mixes_channels else weight * matrix
            model_input = normaliser(model_input)
        self.model_input = torch.from_numpy(model_input)
        self.register_buffer("channels", torch.from_numpy(matrix).float())
        self.register_buffer("times", times)
        self.register_buffer("offset", torch.from_numpy(offset).float())
        self.eval().requires_grad_(False)

    def forward(self, signal: Tensor) -> Tensor:
        """Encode signals [B, C', T'] of any dtype."""
        # `to` would be exported for the dtype of the example alone
        signal = signal.type_as(self.channels)
        # factors [C, 1], as of voxels, are too many for a diagonal matrix
        product = torch.mul if self.channels.shape[1] == 1 else torch.matmul
        return self.encode(product(self.channels, signal) @ self.times + self.offset)

    def encode(self, signal: Tensor) -> Tensor:
        """Encode inputs [B, C, T] of the model."""
        index = self.aligner.make_subject_index(self.subject, signal.shape[0])
        return self.aligner.encode_signal(signal, index)


def _remove_unused_parts(aligner: Aligner, subject: int) -> None:
    """Remove the parts of a model that only targets or other subjects use."""
    numbers = {str(number) for number in aligner.layout.spec.subjects}
    if str(subject) in numbers:
        for module in list(aligner.modules()):
            # a dict with a module for each subject
            if isinstance(module, nn.ModuleDict) and set(module) == numbers:
                for number in numbers - {str(subject)}:
                    del module[number]
    aligner.adapter = None
    if not hasattr(aligner.fuser, "of_signal"):
        aligner.fuser = None


def save_program(module: PortableModel, file: Path) -> tuple[list[int], float]:
    """Write a model to a `torch.export` file, and check the tokens of the file.

    The file takes batches of any size.

    Args:
        module: Model of a subject.
        file: Path of the new file.

    Returns:
        Shape of a token, and the largest difference from the model's tokens.

    Raises:
        BrainhiveError: if the backbone cannot be exported, or tokens differ.
    """
    signal = module.example
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    with torch.no_grad():
        try:
            program = torch.export.export(module, (signal,), dynamic_shapes=shapes)
            content = weights.serialise(partial(torch.export.save, program))
        except Exception as error:  # torch raises errors of many classes
            if is_machine_error(error):
                raise
            kind = module.aligner.layout.backbone["kind"]
            raise BrainhiveError(
                f"the backbone {kind} cannot be exported: {first_line(error)}",
                PUSH_HINT,
            ) from error
        file.write_bytes(content)
        actual = torch.export.load(file).module()(signal)
        expected = module.encode(module.model_input)
    difference = (actual - expected).abs().max().item()
    largest = expected.abs().max().item()
    # largest difference of tokens: absolute, and relative to the largest value
    tolerance = 1e-5 + 1e-4 * largest
    if not difference <= tolerance:
        raise BrainhiveError(
            f"tokens of the exported model differ by {difference:.2g}, with values up "
            f"to {largest:.2g}",
            PUSH_HINT,
        )
    return list(expected.shape[1:]), difference
