"""Contribution of each sensor to the input of a model, without mixing of channels."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.base import BrainhiveError, Float32
from brainhive_cli.data.signals import WHITENED_UNIT, Trials, average_by_session


@dataclass(frozen=True)
class SensorSpace:
    """Contribution of each sensor or voxel to the input of a model.

    The input is the mean training signal plus the sum over sessions of
    mixing @ deviation. Signals that nothing mixes count as a single session.

    Attributes:
        signal: Input [N, C, T] of the model.
        deviation: Deviation [N, S, E, T] of E sensors from their mean in S sessions.
        mixing: Matrix [S, C, E] from sensors to the channels of the model. None if
            nothing mixes the sensors.
    """

    signal: Tensor
    deviation: Tensor
    mixing: Tensor | None

    @classmethod
    def from_trials(
        cls, tested: Trials, train: Trials, signal: Float32, mean: Float32
    ) -> Self:
        """Undo the mixing of channels, such as whitening, to change single sensors.

        The trials must pass `find_mixture`.

        Args:
            tested: Explained trials as the model reads them.
            train: Training trials of the same subject.
            signal: Average [N, C, T] over repetitions of the explained trials.
            mean: Mean [C, T] of the training signals.
        """
        recorded = tested.recorded or tested
        normaliser = tested.normaliser
        model_signal = torch.from_numpy(signal)
        matrix = None
        if normaliser is not None and normaliser.matrix.shape[1] > 1:
            matrix = torch.from_numpy(normaliser.matrix)

        # without whitening, at most the normalisation of the model mixes channels
        if recorded.whiteners is None:
            from_mean = model_signal - torch.from_numpy(mean)  # [N, C, T]
            if matrix is None:
                return cls(model_signal, from_mean[:, None], None)
            sensor_deviation = torch.linalg.solve(matrix, from_mean)
            return cls(model_signal, sensor_deviation[:, None], matrix[None])

        # whitening, selection of channels, scale and normalisation, in this order
        whiteners = torch.from_numpy(recorded.whiteners).float()  # [S, E, E]
        mixing = whiteners[:, torch.from_numpy(tested.rows)]
        if normaliser is None:
            mixing = mixing * tested.scale
        else:
            scaled = torch.from_numpy(normaliser.matrix) * tested.scale
            mixing = scaled * mixing if matrix is None else scaled @ mixing

        # mean training signal of each sensor in each session
        n_sessions = len(whiteners)
        total = 0.0
        weight = 0.0
        for signals, weights in average_by_session(train, n_sessions):
            total = total + signals.sum(0)
            weight = weight + weights.sum(0)
        means = total / np.maximum(weight, 1e-12)[:, None, None]  # [S, E, T]

        # deviation of the explained signals, by the share of each session
        deviations = []
        for signals, weights in average_by_session(tested, n_sessions):
            deviations.append(signals - weights[..., None, None] * means)
        deviation = np.concatenate(deviations).astype(np.float32)
        return cls(model_signal, torch.from_numpy(deviation), mixing)

    def remove_sensor(self, sensor: int) -> Tensor:
        """Compute the input [N, C, T] with the mean training signal at one sensor."""
        if self.mixing is None:
            changed = self.signal.clone()
            changed[:, sensor] -= self.deviation[:, 0, sensor]
            return changed
        contribution = torch.einsum(
            "sc,nst->nct", self.mixing[..., sensor], self.deviation[:, :, sensor]
        )
        return self.signal - contribution


def find_mixture(trials: Trials) -> BrainhiveError | None:
    """Return an error that says why channels are unknown mixtures of sensors.

    Returns None if the mixing is known, or if nothing mixes the sensors.
    """
    recording = trials.recorded or trials
    if trials.normalises_trials and recording.whiteners is not None:
        return BrainhiveError(
            "the channels are mixtures of sensors, because the model normalises each "
            "trial after whitening",
            "set signal.normalise_trials=false, or use signals without whitening",
        )
    if recording.whiteners is None and recording.unit == WHITENED_UNIT:
        return BrainhiveError(
            "the channels are mixtures of sensors, because the signals were whitened "
            "and the store has no whiteners",
            "prepare the raw recordings, or use signals without whitening",
        )
    return None
