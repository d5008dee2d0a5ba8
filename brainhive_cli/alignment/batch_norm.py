"""Batch normalisation where several processes share a batch."""

from typing import cast

from torch import nn

from brainhive_cli.alignment.model import Aligner
from brainhive_cli.core import console
from brainhive_cli.core.launch import Launch


def normalise_together(aligner: Aligner, launch: Launch) -> Aligner:
    """Let batch normalisation take its statistics over the whole batch, as one process would.

    torch's SyncBatchNorm does so on GPUs alone; on a CPU each process takes those of its share, and says so.
    """
    has_any = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in aligner.modules())
    if launch.processes == 1 or not has_any:
        return aligner
    if launch.device.type == "cuda":
        return cast(Aligner, nn.SyncBatchNorm.convert_sync_batchnorm(aligner))
    if launch.is_main:
        console.warn(
            f"{aligner.layout.backbone['kind']} normalises by batch, and on a CPU each of the "
            f"{launch.processes} processes does so by its own share: one process would give other weights"
        )
    return aligner
