"""The outputs of a vision transformer: its embedding, its tokens and those of its blocks, in one forward."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from torch import Tensor, nn

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.encoders import EMBEDDING, EncoderConfig

FORMS = "class|mean|patches"
GRAMMAR = re.compile(rf"{EMBEDDING}|(?P<last>{FORMS}|tokens)|block-(?P<block>\d+)(\.(?P<form>{FORMS}))?")


def checked(output: str | list[str], more: Sequence[str] = ()) -> str | list[str]:
    """Refuse outputs that no vision transformer has, unless they are among `more`."""
    for one in [output] if isinstance(output, str) else output:
        if not GRAMMAR.fullmatch(one) and one not in more:
            raise ValueError(
                "an output is embedding, class, mean, patches, tokens, block-I or block-I.class (…)"
            )
    if not output:
        raise ValueError("name one output at least")
    return output


class TokenConfig(EncoderConfig):
    """An encoder with more outputs than its usual embedding."""

    output: Annotated[str | list[str], AfterValidator(checked)] = Field(
        EMBEDDING,
        description="embedding (the family's usual one); after the last norm: class, mean (of patches), "
        "patches [S, D], tokens [S, D] (class and registers first); of a block, counted from 0: block-I "
        "(all tokens), block-I.class (…); several as a list: a store each, one forward",
    )


@dataclass(frozen=True)
class Anatomy:
    """The modules of a vision transformer whose outputs are read.

    Attributes:
        blocks: Its blocks, which give tokens [B, S, D].
        norm: The norm after the last block.
        extra: How many tokens (class, registers) stand before the patches.
        has_class: Whether the first of them is a class token.
    """

    blocks: Sequence[nn.Module]
    norm: nn.Module
    extra: int
    has_class: bool


class Tower(nn.Module):
    """A network, by a function of it and of what it encodes."""

    def __init__(self, tower: nn.Module, encode: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.tower, self.encode = tower, encode

    def forward(self, inputs: Tensor) -> Any:
        """Encode pictures [B, 3, H, W], or token ids [B, S]."""
        return self.encode(self.tower, inputs)


class Outputs(nn.Module):
    """Gives several outputs of a network from one forward pass.

    Args:
        network: Pictures [B, 3, H, W] to their usual embedding [B, D].
        output: One output, or several, which come as a list.
        anatomy: None for a network that has no tokens.

    Raises:
        RecipeError: if the network does not have such an output.
    """

    def __init__(self, network: nn.Module, output: str | list[str], anatomy: Anatomy | None) -> None:
        super().__init__()
        self.network, self.output, self.anatomy = network, output, anatomy
        self._tokens: dict[int, Tensor] = {}
        for block in {self._place(one)[0] for one in self._names if one != EMBEDDING}:
            anatomy.blocks[block].register_forward_hook(partial(self._keep, block))  # type: ignore[union-attr]

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Encode pictures [B, 3, H, W]: [B, D] or [B, S, D], or a list of these."""
        embedding = self.network(images)
        outputs = [embedding if name == EMBEDDING else self._read(name) for name in self._names]
        self._tokens.clear()
        return outputs[0] if isinstance(self.output, str) else outputs

    @property
    def _names(self) -> list[str]:
        return [self.output] if isinstance(self.output, str) else self.output

    def _keep(self, block: int, module: nn.Module, inputs: Any, tokens: Tensor) -> None:
        self._tokens[block] = tokens

    def _place(self, output: str) -> tuple[int, str]:
        """Say which block, and which of its tokens, an output is."""
        if self.anatomy is None:
            raise RecipeError(f"this network has no tokens, so no output {output!r}", f"take {EMBEDDING}")
        match, count = GRAMMAR.fullmatch(output), len(self.anatomy.blocks)
        assert match
        block, form = int(match["block"] or count - 1), match["last"] or match["form"] or ""
        if block >= count:
            raise RecipeError(f"this network has no {output!r}", f"its blocks are 0 to {count - 1}")
        if form == "class" and not self.anatomy.has_class:
            raise RecipeError(f"this network has no class token, so no {output!r}", "take mean or patches")
        return block, form

    def _read(self, output: str) -> Tensor:
        block, form = self._place(output)
        assert self.anatomy
        tokens = self._tokens[block]  # [B, S, D]
        if output == form:
            tokens = self.anatomy.norm(tokens)
        if form == "class":
            return tokens[:, 0]
        patches = tokens[:, self.anatomy.extra :]
        return patches.mean(1) if form == "mean" else patches if form == "patches" else tokens
