"""BrainHiVE's fusion encoder: projections of several embeddings, summed, and one residual MLP."""

from pydantic import Field

from brainhive_cli.models.blocks import FusionEncoder, HiddenDropout, InnerWidth
from brainhive_cli.models.fusers import SizedFuserConfig


class Config(SizedFuserConfig):
    """The fusion encoder that is trained with the brain encoder (BrainHiVE, arXiv 2602.07495)."""

    cites = ("zheng2026",)

    intermediate_size: InnerWidth = Field(1024, description="Width inside the block; BrainHiVE's.")
    dropout: HiddenDropout = 0.1

    def build(self, dims: dict[str, int], dim: int) -> FusionEncoder:
        """Make a fuser of embeddings of these widths, by encoder, to tokens [B, D]."""
        return FusionEncoder(dims, dim, self.intermediate_size, self.dropout)


TINY = Config(intermediate_size=16)
"""Small enough for tests."""
