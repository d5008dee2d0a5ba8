"""Batch normalisation where a batch is shared: by several processes, or by subjects of different widths."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from torch import nn

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.training.alignment.model import Aligner

ONE_VALUE = "Expected more than 1 value per channel"
"""How torch's error begins."""


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
