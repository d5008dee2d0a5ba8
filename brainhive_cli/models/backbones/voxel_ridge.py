"""Voxel ridge, with a penalised linear map for each subject and a shared MLP."""

from functools import partial

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.models import HiddenDropout, Width, build_residual_stack, select_rows
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import map_by_subject


class Config(BackboneConfig):
    """Settings for voxels [B, V, 1] of several subjects, who may differ in V.

    The ridges are those of MindEye2 (arXiv 2403.11207), the MLP is BrainHiVE's.
    """

    cites = ("scotti2024",)
    called = "A penalised linear map for each subject with an MLP shared by all"
    pads_widths = True

    hidden: Width = Field(
        1024, description="Width H of the shared space (4096 in MindEye2)."
    )
    dropout: HiddenDropout = 0.1

    def build(
        self, channels: int, samples: int, dim: int, subjects: int = 1
    ) -> "VoxelRidge":
        """Make the encoder for signals [B, V, 1] of S subjects and tokens [B, D]."""
        return VoxelRidge(self, channels, samples, dim, subjects)


TINY = Config(hidden=8)


class VoxelRidge(nn.Module):
    """Linear map of each subject, then an MLP and a projection that all share.

    Attributes:
        weight: Weights [subjects, V, H] of the linear maps.
        bias: Biases [subjects, H].
    """

    def __init__(
        self, config: Config, channels: int, samples: int, dim: int, subjects: int
    ) -> None:
        super().__init__()
        self.channels = channels
        # Penalty on the sum of the squared weights of the linear maps, our choice.
        self.l2 = 1e-4
        hidden = config.hidden
        n_inputs = channels * samples
        bound = n_inputs**-0.5  # initialised as nn.Linear
        weight = torch.empty(subjects, n_inputs, hidden).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(subjects, hidden))
        self.shared = build_residual_stack(hidden, hidden, config.dropout)
        self.project = nn.Linear(hidden, dim)

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals as tokens.

        Args:
            signal: Voxels [B, V, 1]. Missing voxels of narrower subjects become zeros.
            subject_index: Index [B] of each signal's subject, or None for a new
                subject, who gets the mean map.

        Returns:
            Tokens [B, D].
        """
        signal = F.pad(signal, (0, 0, 0, self.channels - signal.shape[1]))
        flat = signal.flatten(1)
        weight = self.weight.view_as(self.weight)
        # add the gradient of the penalty, which the loss does not contain
        if weight.requires_grad:
            weight.register_hook(
                lambda gradient: gradient + 2 * self.l2 * self.weight.detach()
            )
        if subject_index is None:
            mapped = flat @ weight.mean(0)
        else:
            # one product per subject, instead of weights [B, V, H]
            maps = [partial(torch.matmul, other=matrix) for matrix in weight]
            mapped = map_by_subject("voxel-ridge", flat, subject_index, maps)
        mapped = mapped + select_rows(self.bias, subject_index)  # [B, H]
        return self.project(self.shared(mapped))
