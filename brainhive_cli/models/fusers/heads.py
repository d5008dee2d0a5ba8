"""The encoders' own features, each the target of a head of its own; nothing is trained."""

from torch import Tensor, nn

from brainhive_cli.models.fusers import FuserConfig


class Config(FuserConfig):
    """A head for each encoder; retrieval ranks by the mean of their cosines. Short for the key `heads`."""

    def token_dim(self, dims: dict[str, int], dim: int) -> int:
        """Return the width of all heads together, given the encoders' widths."""
        return sum(dims.values())

    def build(self, dims: dict[str, int], dim: int) -> "EachByItself":
        """Make a fuser that leaves embeddings as they are."""
        return EachByItself()


TINY = Config()


class EachByItself(nn.Module):
    """Embeddings as they are, by encoder."""

    def forward(self, embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the target of each head, [B, D_encoder] by the encoder's key."""
        return dict(embeddings)
