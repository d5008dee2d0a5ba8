"""Identity prior, which passes decoded heads to the generator by name."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.core.recipes import parts
from brainhive_cli.models import Conditioning, Decoded, Vocabulary
from brainhive_cli.models.priors import Description

KIND = "identity"


class Config(parts.Config):
    """Names of the heads that become conditions.

    The first name in a list that the brain model has is used. An empty list means no
    condition.
    """

    embeddings: tuple[str, ...] = Field(
        ("embeddings", "image", "tokens", "token"),
        description="Heads that become condition tokens.",
    )
    texts: tuple[str, ...] = Field(
        ("texts", "text", "caption"),
        description="Heads that become texts, as embeddings or prompts.",
    )
    vocabulary: str | None = Field(
        None,
        description="Tokenizer of heads of texts that are token ids: open-clip, or a "
        "model with a CLIP tokenizer in its folder `tokenizer`.",
    )
    images: tuple[str, ...] = Field(
        ("images", "keyframe"), description="Heads that become condition images."
    )
    start: tuple[str, ...] = Field(
        ("start", "latent"),
        description="Heads from which sampling starts, as latents or pictures.",
    )
    masks: tuple[str, ...] = Field(
        ("masks", "mask"), description="Heads that mask the conditions."
    )

    def build(self, dims: Mapping[str, int], generator: Any) -> "Identity":
        """Make the prior. The arguments have no effect."""
        return Identity(self)


TINY = Config()
"""Default settings, as the prior has no size."""


def load(reference: str) -> "Identity":
    """Make the prior with default settings. No file is read."""
    return Identity(TINY)


def describe(reference: str) -> Description:
    """Describe the prior, which has neither weights nor a fuser."""
    return Description(KIND, reference)


class Identity(nn.Module):
    """Prior without weights and fuser, which cannot be trained.

    Attributes:
        condition_heads: Names of heads, by field of `Conditioning`.
        vocabulary: Tokenizer of captions that are token ids, or None.
    """

    kind = KIND
    fuser: ClassVar[None] = None
    dim: ClassVar[int] = 0
    dims: ClassVar[dict[str, int]] = {}

    def __init__(self, config: Config = TINY) -> None:
        super().__init__()
        self.condition_heads = dict(config)
        del self.condition_heads["vocabulary"]
        self.vocabulary = (
            None if config.vocabulary is None else Vocabulary(config.vocabulary)
        )

    def condition(self, decoded: Decoded, seeds: Sequence[int]) -> Conditioning:
        """Turn heads into conditions. A vector [B, D] becomes one token [B, 1, D].

        Args:
            decoded: Heads of B signals.
            seeds: Without effect.

        Raises:
            BrainhiveError: if conditions are configured, and no head has their name.
        """
        heads = decoded.tensors | decoded.texts
        conditions: dict[str, Any] = {}
        for condition, names in self.condition_heads.items():
            for name in names:
                if name in heads:
                    conditions[condition] = heads[name]
                    break

        # without conditions the generator would ignore the brain
        if not conditions and any(self.condition_heads.values()):
            raise BrainhiveError(
                "the identity prior finds no condition among the heads "
                f"{', '.join(heads) or 'none'}",
                f"name a head as a condition: {', '.join(self.condition_heads)}",
            )

        if "embeddings" in conditions and conditions["embeddings"].ndim == 2:
            conditions["embeddings"] = conditions["embeddings"][:, None]
        texts = conditions.get("texts")
        if self.vocabulary is not None and isinstance(texts, Tensor):
            conditions["texts"] = [
                self.vocabulary.decode(ids) for ids in texts.long().tolist()
            ]
        return Conditioning(**conditions, decoded=decoded)

    def null(self, n: int, seeds: Sequence[int]) -> Conditioning:
        """Return no condition. The generator then uses its own unconditional input."""
        return Conditioning()

    def attach(self, generator: Any) -> None:
        """Leave the generator as it is."""

    def detach(self, generator: Any) -> None:
        """Leave the generator as it is."""
