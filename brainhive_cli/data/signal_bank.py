"""Signals of several subjects, on the device or mapped, from which batches are gathered."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.data.device import to_device
from brainhive_cli.data.trials import Trials
from brainhive_cli.signals.prepared import Signals

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class SignalBank:
    """Signals of several subjects, one after the other, from which rows are gathered.

    Subjects of one width are gathered together; where widths differ, each by itself.

    Attributes:
        signals: [N_subject, ...] a subject, on the device or mapped.
        first: Row of each subject's first signal.
        stimulus: [N] row of each signal's stimulus, on the device.
        subject: [N] subject index, on the device.
    """

    signals: list[Tensor]
    first: Rows
    stimulus: Tensor
    subject: Tensor

    @classmethod
    def of(cls, signals: Sequence[Signals], pictures: Sequence[Rows], device: torch.device) -> "SignalBank":
        """Put signals on the device, unless they are mapped."""
        counts = [len(signal) for signal in signals]
        return cls(
            [_tensor(signal, device) for signal in signals],
            np.cumsum([0, *counts[:-1]]),
            torch.from_numpy(np.concatenate(pictures)).to(device),
            torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device),
        )

    def split(self, rows: Rows) -> list[Rows]:
        """Split ascending rows into those that `gather` takes together: all, or one subject's each."""
        if len({signal.shape[1:] for signal in self.signals}) == 1:
            return [rows]
        return [each for each in np.split(rows, np.searchsorted(rows, self.first[1:])) if len(each)]

    def gather(self, rows: Rows) -> Tensor:
        """Gather the signals of ascending rows of one width: [B, ...], on the device."""
        ends = [*np.searchsorted(rows, self.first), len(rows)]
        every = zip(self.signals, self.first, ends, ends[1:], strict=False)
        spans = [span for span in every if span[2] < span[3]]
        shape = (spans[0][0] if spans else self.signals[0]).shape[1:]
        gathered = torch.empty((len(rows), *shape), device=self.signals[0].device)
        for signal, first, start, stop in spans:
            index = to_device(torch.from_numpy(rows[start:stop] - first), signal.device)
            torch.index_select(signal, 0, index, out=gathered[start:stop])
        return to_device(gathered, self.stimulus.device)


def _tensor(signal: Signals, device: torch.device) -> Tensor:
    if isinstance(signal, np.memmap):  # copy-on-write, since torch warns of read-only arrays
        signal = np.memmap(str(signal.filename), np.float32, "c", signal.offset, signal.shape)
        return torch.from_numpy(signal)
    return torch.from_numpy(signal).to(device)


def averages_of(trials: Sequence[Trials], device: torch.device) -> SignalBank:
    """Lay out the averaged signals of several subjects."""
    return SignalBank.of([each.signal for each in trials], [each.stimulus for each in trials], device)
