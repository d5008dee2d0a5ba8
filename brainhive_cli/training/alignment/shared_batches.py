"""Batches that several processes or subjects share: dropout and batch normalisation as of one process."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.models.blocks import dropout
from brainhive_cli.training.alignment.model import Aligner

ONE_VALUE = "Expected more than 1 value per channel"
"""How torch's error begins."""


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


def normalise_together(aligner: Aligner, launch: Launch) -> Aligner:
    """Let batch normalisation take its statistics over the whole batch, as one process would.

    torch's SyncBatchNorm works on GPUs only, and needs as many micro-batches in all processes: on a CPU, and
    where subjects differ in width, each process takes statistics of its share, with a warning.
    """
    has_any = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in aligner.modules())
    if launch.processes == 1 or not has_any:
        return aligner
    is_split = len(set(aligner.layout.spec.widths)) > 1
    if launch.device.type == "cuda" and not is_split:
        return cast(Aligner, nn.SyncBatchNorm.convert_sync_batchnorm(aligner))
    if launch.is_main:
        where = "with subjects of different widths" if is_split else "on a CPU"
        console.warn(
            f"{aligner.layout.backbone['kind']} normalises by batch, and {where} each of the "
            f"{launch.processes} processes does so by its own share: one process would give other weights"
        )
    return aligner


@contextmanager
def at_least_two() -> Iterator[None]:
    """Say in one line that batch normalisation has no variance of one signal.

    Raises:
        BrainhiveError: in place of torch's ValueError.
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(ONE_VALUE):
            raise
        raise BrainhiveError(
            "batch normalisation needs two signals, and a process has one of a subject in a step",
            "another train.batch_size, or a brain model without batch normalisation",
        ) from error
