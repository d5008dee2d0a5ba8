"""The identity prior: decoded heads become the conditioning as they are, by name."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.clip_conditions import CaptionTokens
from brainhive_cli.models.heads import Conditioning, Decoded
from brainhive_cli.models.priors import Description

KIND = "identity"


class Config(parts.Config):
    """Heads that become conditions: the first of a list that a brain model has; an
    empty list: none.
    """

    embeddings: tuple[str, ...] = Field(
        ("embeddings", "image", "tokens", "token"),
        description="Heads that become condition tokens.",
    )
    texts: tuple[str, ...] = Field(
        ("texts", "text", "caption"),
        description="Heads that become text: embeddings, or prompts.",
    )
    vocabulary: str | None = Field(
        None,
        description="Where heads of texts are token ids, whose: open-clip, or what has "
        "a CLIP tokenizer in `tokenizer`.",
    )
    images: tuple[str, ...] = Field(
        ("images", "keyframe"), description="Heads that become condition images."
    )
    start: tuple[str, ...] = Field(
        ("start", "latent"),
        description="Heads that sampling starts from: latents, or pictures.",
    )
    masks: tuple[str, ...] = Field(
        ("masks", "mask"), description="Heads that say where conditions hold."
    )

    def build(self, dims: Mapping[str, int], generator: Any) -> "Identity":
        """Make the prior; it needs neither widths nor generator."""
        return Identity(self)


TINY = Config()
"""It has no size."""


def load(reference: str) -> "Identity":
    """Make the prior; nothing is read."""
    return Identity(TINY)


def describe(reference: str) -> Description:
    """Describe it: without weights and fuser."""
    return Description(KIND, reference)


class Identity(nn.Module):
    """A prior without weights and fuser: it leaves the generator as it is, and cannot
    be trained.
    """

    kind = KIND
    fuser: ClassVar[None] = None
    dim: ClassVar[int] = 0
    dims: ClassVar[dict[str, int]] = {}

    def __init__(self, config: Config = TINY) -> None:
        super().__init__()
        self.condition_heads = {
            name: heads for name, heads in dict(config).items() if name != "vocabulary"
        }
        # heads of texts may be token ids instead of prompts
        self.words = (
            None if config.vocabulary is None else CaptionTokens(config.vocabulary)
        )

    def condition(self, decoded: Decoded, seeds: Sequence[int]) -> Conditioning:
        """Pass heads through; a vector [B, D] becomes one token [B, 1, D].

        Raises:
            BrainhiveError: if no head has the name of a condition.
        """
        # choose for each condition the first of its heads that the brain model has
        heads = decoded.tensors | decoded.texts
        conditions: dict[str, Any] = {}
        for condition, names in self.condition_heads.items():
            name = next((name for name in names if name in heads), None)
            if name is not None:
                conditions[condition] = heads[name]

        # refuse a model without any of the wanted heads, as the generator would ignore
        # the brain none is wanted where all lists are empty
        if not conditions and any(self.condition_heads.values()):
            raise BrainhiveError(
                "the identity prior finds no condition among the heads "
                f"{', '.join(heads) or 'none'}",
                f"name a head as a condition: {', '.join(self.condition_heads)}",
            )

        # bring vectors and token ids into the form that generators take
        if "embeddings" in conditions and conditions["embeddings"].ndim == 2:
            conditions["embeddings"] = conditions["embeddings"][:, None]  # [B, 1, D]
        if self.words is not None and isinstance(
            texts := conditions.get("texts"), Tensor
        ):
            conditions["texts"] = [
                self.words.text(ids) for ids in texts.long().tolist()
            ]
        return Conditioning(**conditions, decoded=decoded)

    def null(self, n: int, seeds: Sequence[int]) -> Conditioning:
        """Return no condition: the generator's own unconditional side is used."""
        return Conditioning()

    def attach(self, generator: Any) -> None:
        """Leave the generator as it is: the conditions are its own."""

    def detach(self, generator: Any) -> None:
        """Leave the generator as it is."""
