"""Dropout that a batch has whether one process computes it or several share it."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from brainhive_cli.core.launch import Launch
from brainhive_cli.models.blocks import dropout


class RowNoise(TorchFunctionMode):
    """Draws the dropout of all rows of a batch, and applies that of this process's own.

    What is drawn without `F.dropout` (in an LSTM, in torch's attention) is not changed.

    Args:
        launch: The processes that share the batch.
        count: Rows of the whole batch.
        seed: Of the dropout; the same in all processes.
    """

    def __init__(self, launch: Launch, count: int, seed: int) -> None:
        super().__init__()
        self.count, self.own = count, launch.shard(range(count))
        self.random: Any = torch.cuda if launch.device.type == "cuda" else torch
        self.state = torch.Generator(launch.device).manual_seed(seed).get_state()

    def __torch_function__(
        self, function: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch; in place of a dropout, multiply by its mask."""
        call = partial(self._dropped, function) if function in (F.dropout, dropout) else function
        return call(*args, **(kwargs or {}))

    def _dropped(
        self, function: Callable[..., Tensor], x: Tensor, p: float, training: bool, inplace: bool = False
    ) -> Tensor:
        each, rest = divmod(len(x), len(self.own))  # elements of the first axis that a row has
        if not training or p == 0 or rest:
            return function(x, p, training)
        before = self.random.get_rng_state()
        self.random.set_rng_state(self.state)
        mask = function(_ones(x, self.count * each), p, training)
        self.state = self.random.get_rng_state()
        self.random.set_rng_state(before)
        return x * mask[self.own[0] * each : (self.own[-1] + 1) * each]


def by_row(launch: Launch, count: int, parts: int, seed: int) -> AbstractContextManager[Any]:
    """Draw dropout by row where several processes share the batch, and it is one micro-batch."""
    return RowNoise(launch, count, seed) if launch.processes > 1 and parts == 1 else nullcontext()


def _ones(like: Tensor, rows: int) -> Tensor:
    """Return ones of as many rows, whose axes lie in memory in the order of `like`'s: so noise is drawn."""
    axes = sorted(range(like.ndim), key=lambda axis: -like.stride()[axis])
    shape = (rows, *like.shape[1:])
    ones = torch.ones([shape[axis] for axis in axes], dtype=like.dtype, device=like.device)
    return ones.permute([axes.index(axis) for axis in range(like.ndim)])
