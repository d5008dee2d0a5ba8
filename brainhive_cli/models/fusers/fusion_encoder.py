"""BrainHiVE's fusion encoder: projections of several embeddings, summed, and one residual MLP."""

from pydantic import Field

from brainhive_cli.models.blocks import FusionEncoder
from brainhive_cli.models.fusers import SizedFuserConfig


class Config(SizedFuserConfig):
    """The fusion encoder that is trained with the brain encoder (BrainHiVE, arXiv 2602.07495)."""

    intermediate_size: int = Field(1024, gt=0, le=2**17, description="Width inside the block; BrainHiVE's.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Probability of dropping a hidden unit; BrainHiVE's.")

    def build(self, dims: dict[str, int], dim: int) -> FusionEncoder:
        """Make a fuser of embeddings of these widths, by encoder, to tokens [B, D]."""
        return FusionEncoder(dims, dim, self.intermediate_size, self.dropout)


TINY = Config(intermediate_size=16)
"""Small enough for tests."""
