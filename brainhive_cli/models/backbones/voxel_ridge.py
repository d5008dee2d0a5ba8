"""Voxel ridge: a penalised linear map for each subject into a shared space, and an MLP
that all share.
"""

from functools import partial

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import map_by_subject
from brainhive_cli.models.blocks import build_residual_stack, select_rows
from brainhive_cli.models.sizes import HiddenDropout, Width


class Config(BackboneConfig):
    """For voxels [B, V, 1] of several subjects, who may differ in V.

    After the subject-wise ridge of MindEye2 (arXiv 2403.11207); the shared part is
    BrainHiVE's block.
    """

    cites = ("scotti2024",)
    pads_widths = True

    hidden: Width = Field(
        1024, description="Width of the shared space; ours (MindEye2: 4096)."
    )
    dropout: HiddenDropout = 0.1

    def build(
        self, channels: int, samples: int, dim: int, subjects: int = 1
    ) -> "VoxelRidge":
        """Make the encoder for signals [B, V, 1] of S subjects and tokens [B, D]."""
        return VoxelRidge(self, channels, samples, dim, subjects)


TINY = Config(hidden=8)
L2 = 1e-4
"""Weight of the sum of the squared weights of the linear maps, added to the loss;
ours.
"""


class VoxelRidge(nn.Module):
    """Each signal through the map of its subject, then through what all subjects
    share.
    """

    def __init__(
        self, config: Config, channels: int, samples: int, dim: int, subjects: int
    ) -> None:
        super().__init__()
        self.channels = channels
        self.l2 = L2
        hidden = config.hidden
        reach = (channels * samples) ** -0.5  # as nn.Linear starts
        self.weight = nn.Parameter(
            torch.empty(subjects, channels * samples, hidden).uniform_(-reach, reach)
        )
        self.bias = nn.Parameter(torch.zeros(subjects, hidden))
        self.shared = build_residual_stack(hidden, hidden, config.dropout)
        self.project = nn.Linear(hidden, dim)

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, V, 1] of subjects [B] as tokens [B, D]; None is through
        the mean map.
        """
        # zeros instead of the voxels that narrower subjects do not have
        signal = F.pad(signal, (0, 0, 0, self.channels - signal.shape[1]))
        flat = signal.flatten(1)
        weight = self.weight.view_as(self.weight)
        # the derivative of the penalty, which the loss itself does not show
        if weight.requires_grad:
            weight.register_hook(
                lambda gradient: gradient + 2 * self.l2 * self.weight.detach()
            )
        if subject_index is None:
            mapped = flat @ weight.mean(0)
        else:  # without weights [B, V, H] for each signal
            maps = [partial(torch.matmul, other=matrix) for matrix in weight]
            mapped = map_by_subject("voxel-ridge", flat, subject_index, maps)
        mapped = mapped + select_rows(self.bias, subject_index)  # [B, H]
        return self.project(self.shared(mapped))
