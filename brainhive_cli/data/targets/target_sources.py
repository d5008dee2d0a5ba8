"""The sources of one encoder's targets: a store, or the network itself at each step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core.memory_estimate import to_device
from brainhive_cli.data.datasets import StimulusSet
from brainhive_cli.data.stores.hdf5 import StoredRows
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.encoder_groups import EncoderGroup, alternatives, shape_of, views_each
from brainhive_cli.models.encoders import EncoderConfig

Rows = NDArray[np.int64]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class StoreTargets:
    """Targets read from a store.

    Attributes:
        values: [N, *shape] on the device, or in a mapped file from which each batch is gathered.
        ids: Stimulus id of each row, [N].
        done: Whether the stimulus of each row could be decoded, [N].
        device: Where gathered targets go.
        others: Further targets of the same stimuli, each like `values`.
        pixels: Digests of the stimuli's pixels, [N], where the store has them.
    """

    values: Tensor | StoredRows
    ids: Sequence[str] = ()
    done: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    device: torch.device = CPU
    others: tuple[Tensor | StoredRows, ...] = ()
    pixels: NDArray[np.uint64] | None = None

    @classmethod
    def of(
        cls, store: TargetStore, device: torch.device, hold: bool, further: Sequence[TargetStore] = ()
    ) -> "StoreTargets":
        """Read a store: all of it onto the device (`hold`), in the store's dtype, or batch by batch.

        Args:
            store: The store; its own alternatives, where it has that axis, are the source's.
            device: Where gathered targets go.
            hold: Copy everything to the device.
            further: Stores of the same stimuli and shape, whose targets are alternatives too.
        """
        arrays: list[StoredRows] = []
        for each in (store, *further):
            count = each.alternatives
            arrays += [each.embedding] if count is None else [each.embedding.column(k) for k in range(count)]
        values: list[Any] = arrays
        if hold:
            values = [torch.from_numpy(np.array(array)).to(device) for array in arrays]
        return cls(values[0], store.image_ids, store.done, device, tuple(values[1:]), store.pixels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one target."""
        return tuple(self.values.shape[1:])

    @property
    def alternatives(self) -> int:
        """How many targets each stimulus has: further stores, five captions, six frames."""
        return 1 + len(self.others)

    def gather(self, rows: Rows | Tensor, which: Tensor | None = None) -> Tensor:
        """Gather the targets of some rows: float32 [B, *shape], on the device.

        Args:
            rows: Which stimuli, [B].
            which: Which alternative of each, [B]; the first when None.
        """
        found = self._gather(self.values, rows)
        if which is None:
            return found
        for place, values in enumerate(self.others, 1):
            is_this = which == place
            chosen = rows[is_this] if isinstance(rows, Tensor) else rows[is_this.cpu().numpy()]
            found[is_this] = self._gather(values, chosen)
        return found

    def _gather(self, values: Tensor | StoredRows, rows: Rows | Tensor) -> Tensor:
        if isinstance(values, Tensor):
            index = rows if isinstance(rows, Tensor) else torch.from_numpy(rows)
            return values[to_device(index, values.device)].float()
        chosen = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        return to_device(torch.from_numpy(np.asarray(values[chosen], np.float32)), self.device)


@dataclass(frozen=True)
class OnlineTargets:
    """Targets computed from the stimulus whenever they are gathered.

    Attributes:
        stimuli: The stimuli of the split.
        group: The network, with one or several outputs.
        name: Which of its outputs.
        vary: Changes each stimulus before it is preprocessed; None leaves it as it is.
    """

    stimuli: StimulusSet
    group: EncoderGroup
    name: str
    vary: Callable[[Any], Any] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one target."""
        return shape_of(self._config, self.group.shapes[self.name], self.stimuli)

    @property
    def ids(self) -> Sequence[str]:
        """Stimulus id of each row, [N]."""
        return self.stimuli.image_ids

    @property
    def done(self) -> NDArray[np.bool_]:
        """Every stimulus is taken to be sound: one that is not is an error when it is decoded."""
        return np.ones(len(self.stimuli), bool)

    @property
    def alternatives(self) -> int:
        """How many frames or captions each stimulus has."""
        return alternatives(self._config, self.stimuli) or 1

    def gather(self, rows: Rows | Tensor, which: Tensor | None = None) -> Tensor:
        """Gather as `StoreTargets` does; raises BadPicture if a stimulus cannot be decoded."""
        return self.chosen(self.group.encode(self.views(rows, which))[self.name], which)

    def chosen(self, values: Tensor, which: Tensor | None) -> Tensor:
        """Choose an alternative of what the network gives for `views`: [B, *shape]."""
        if self.alternatives == 1 or not self._combines:
            return values
        return _chosen(values, which)

    def views(self, rows: Rows | Tensor, which: Tensor | None = None) -> Tensor:
        """Decode and preprocess stimuli in this process: [B, 3, H, W].

        Of several frames or captions, one; all of them, [B, K, …], where an output combines them.
        """
        read, vary = self._read, self.vary
        given = (read(row) if vary is None else vary(read(row)) for row in rows.tolist())
        views = torch.stack([self.group.view(each) for each in given])
        if self._combines or views_each(self.group.configs[0], self.stimuli) is None:
            return views
        return _chosen(views, which)

    @cached_property
    def _read(self) -> Callable[[int], Any]:
        """Gives what is encoded of a stimulus; other pictures are looked for once."""
        return self.group.reader(self.stimuli) or self.stimuli.open

    @property
    def _config(self) -> EncoderConfig:
        (config,) = (each for each in self.group.configs if each.name == self.name)
        return config

    @property
    def _combines(self) -> bool:
        return any(config.combines for config in self.group.configs)


def _chosen(values: Tensor, which: Tensor | None) -> Tensor:
    """Choose one of K for each row of [B, K, …]; the first when None."""
    place = torch.zeros(len(values), dtype=torch.int64) if which is None else which
    return values[torch.arange(len(values)), place.to(values.device)]


TargetSource = StoreTargets | OnlineTargets
"""What one encoder computes for each stimulus of a split."""
