"""Signals of several subjects, on the device or mapped, from which batches are gathered."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core.memory_estimate import to_device
from brainhive_cli.data.signals.prepared import Signals
from brainhive_cli.data.stores.hdf5 import StoredRows
from brainhive_cli.data.trials import Trials

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class SignalBank:
    """Signals of several subjects, one after the other, from which rows are gathered.

    Subjects of one width are gathered together; where widths differ, each by itself.

    Attributes:
        signals: [N_subject, ...] a subject, on the device or mapped.
        stored: The file of each subject's signals that are mapped, by the subject's place.
        first: Row of each subject's first signal.
        stimulus: [N] row of each signal's stimulus, on the device.
        subject: [N] subject index, on the device.
    """

    signals: list[Tensor]
    stored: dict[int, StoredRows]
    first: Rows
    stimulus: Tensor
    subject: Tensor

    @classmethod
    def of(
        cls,
        signals: Sequence[Signals],
        pictures: Sequence[Rows],
        device: torch.device,
        are_single: bool = False,
    ) -> "SignalBank":
        """Put signals on the device, unless they are mapped.

        Args:
            signals: [N_subject, …] of each subject.
            pictures: Row of each signal's stimulus, of each subject.
            device: Where gathered signals go.
            are_single: Whether they are [N_subject, R, …], of which each repetition is a signal by itself.
        """
        tensors = [_tensor(signal, device) for signal in signals]
        if are_single:
            tensors = [signal.flatten(0, 1) for signal in tensors]
        counts = [len(signal) for signal in tensors]
        return cls(
            tensors,
            {place: signal for place, signal in enumerate(signals) if isinstance(signal, StoredRows)},
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
        every = zip(range(len(self.signals)), self.first, ends, ends[1:], strict=False)
        spans = [span for span in every if span[2] < span[3]]
        shape = self.signals[spans[0][0] if spans else 0].shape[1:]
        gathered = torch.empty((len(rows), *shape), device=self.signals[0].device)
        for place, first, start, stop in spans:
            signal, chosen = self.signals[place], rows[start:stop] - first
            if stored := self.stored.get(place):
                stored.verify(chosen // (len(signal) // len(stored)))  # where a row holds R signals, that row
            index = to_device(torch.from_numpy(chosen), signal.device)
            torch.index_select(signal, 0, index, out=gathered[start:stop])
        return to_device(gathered, self.stimulus.device)


def _tensor(signal: Signals, device: torch.device) -> Tensor:
    if not isinstance(signal, StoredRows):
        return torch.from_numpy(signal).to(device)
    values = signal.values
    if isinstance(values, np.memmap):  # copy-on-write, since torch warns of read-only arrays
        values = np.memmap(str(values.filename), np.float32, "c", values.offset, values.shape)
    return torch.from_numpy(values)


def averages_of(trials: Sequence[Trials], device: torch.device) -> SignalBank:
    """Lay out the averaged signals of several subjects."""
    return SignalBank.of([each.signal for each in trials], [each.stimulus for each in trials], device)
