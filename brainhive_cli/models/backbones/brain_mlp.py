"""Brain MLP, a linear map of all channels and samples and a residual MLP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from brainhive_cli.models import HiddenDropout
from brainhive_cli.models.backbones import BackboneConfig

if TYPE_CHECKING:
    from brainhive_cli.models.backbones._layers import BrainEncoder


class Config(BackboneConfig):
    """Settings of BrainHiVE's brain encoder (arXiv 2602.07495)."""

    cites = ("zheng2026",)
    called = "BrainHiVE's brain MLP"

    hidden: int | None = Field(
        None,
        gt=0,
        le=2**16,
        description="Width inside the residual MLP. Default: the token's width, as in "
        "BrainHiVE.",
    )
    dropout: HiddenDropout = 0.1
    activation: Literal["gelu", "silu"] = Field(
        "gelu", description="Activation inside the residual MLP. BrainHiVE uses gelu."
    )

    def build(
        self, channels: int, samples: int, dim: int, subjects: int = 1
    ) -> BrainEncoder:
        """Make the encoder for signals [B, C, T] or [B, V, 1], and tokens [B, D]."""
        from torch import nn

        from brainhive_cli.models import build_residual_stack
        from brainhive_cli.models.backbones._layers import BrainEncoder

        encoder: Any = BrainEncoder(
            flatten=nn.Flatten(),
            proj_in=nn.Linear(channels * samples, dim),
            block=build_residual_stack(dim, self.hidden or dim, self.dropout),
        )
        if self.activation == "silu":
            encoder.block.layers[0].ff.activation = nn.SiLU()
        return encoder


TINY = Config()
