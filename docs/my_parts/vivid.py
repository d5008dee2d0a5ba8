"""my_parts/vivid.py: condition tokens of decoded colours, further from grey."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import nn

from brainhive_cli import api


class Config(api.Config):
    """Keys, for a stage of a chain or a new prior of train-prior."""

    factor: float = Field(
        1.2, gt=0, description="distance from grey, relative to the decoded colours"
    )

    def build(self, dims: Mapping[str, int], generator: Any) -> "Vivid":
        """Build for embeddings of these widths, by encoder, and a generator."""
        return Vivid(self.factor)


TINY = Config()


def load(reference: str) -> "Vivid":
    """Load what `--prior` names: `my_parts.vivid` or `my_parts.vivid:FACTOR`; a trained
    prior reads a folder.
    """
    factor = reference.partition(":")[2]
    return Vivid(float(factor) if factor else TINY.factor)


def describe(reference: str) -> api.Description:
    """Describe the prior without its weights."""
    return api.Description("my_parts.vivid", reference)


class Vivid(nn.Module):
    """Prior without a fuser that brain models could be trained for."""

    kind = "my_parts.vivid"
    fuser = None
    dim = 0

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.dims: dict[str, int] = {}

    def attach(self, generator: Any) -> None:
        """Attach to a generator; here its own conditions suffice."""

    def detach(self, generator: Any) -> None:
        """Restore the generator."""

    def condition(self, decoded: api.Decoded, seeds: Sequence[int]) -> api.Conditioning:
        """Condition on decoded heads [B, *shape]; seeds [B] decide what is sampled."""
        colours = 0.5 + self.factor * (decoded.tensors["token"] - 0.5)
        return api.Conditioning(embeddings=colours[:, None])  # [B, 1, D]

    def null(self, n: int, seeds: Sequence[int]) -> api.Conditioning:
        """Return the unconditional side of guidance: grey."""
        return api.Conditioning(embeddings=torch.full((n, 1, 12), 0.5))
