"""Contribution of each sensor to the input of a model, with the mixing of channels
undone.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.arrays import Float32
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.repetitions import WHITENED_UNIT, average_by_session
from brainhive_cli.data.signals.trials import Trials


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
    def from_trials(
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
        for part, weights in average_by_session(learned, sessions):
            total = total + part.sum(0)
            weight = weight + weights.sum(0)
        means = total / np.maximum(weight, 1e-12)[:, None, None]  # [S, E, T]
        parts, shares = (
            np.concatenate(chunks)
            for chunks in zip(*average_by_session(tested, sessions), strict=True)
        )
        deviation = torch.from_numpy(
            (parts - shares[..., None, None] * means).astype(np.float32)
        )
        return cls(read, deviation, mixing)

    def remove_sensor(self, sensor: int) -> Tensor:
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
    if recording.whiteners is None and recording.unit == WHITENED_UNIT:
        return BrainhiveError(
            "the signals were whitened, and the store does not have the whiteners: its "
            "channels are mixtures of sensors",
            "prepare the raw recordings, or without whitening",
        )
    return None
