"""The outputs of a brain model, by name: their shapes, and what each is a prediction of."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict
from torch import Tensor, nn

from brainhive_cli.core import foreign_code
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.models.latent_space import PREFIX

TOKEN = "token"
"""The head of a model with one token, which is what BrainHiVE's models have."""
FUSED = "fused"
"""The target of a head that is compared with what the fuser makes of several embeddings."""


@dataclass(frozen=True)
class Head:
    """One output of a brain model.

    Attributes:
        shape: Of one item, without the batch: (D,), (S, D), (C, H, W), …
        target: Key of the embeddings that it predicts, or `FUSED`.
        digest: Identity of what made them, a latent space or weights; empty if nothing says.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    shape: tuple[int, ...]
    target: str = ""
    digest: str = ""

    @property
    def width(self) -> int:
        """How many numbers an item has."""
        return math.prod(self.shape)


Heads = Mapping[str, Head]


def check_names(names: Iterable[str]) -> None:
    """Refuse names by which torch could not keep the modules of heads: `a.b`, or `keys`, as a dict's method.

    Raises:
        RecipeError: naming the first of them.
    """
    for name in names:
        if not name or "." in name or hasattr(nn.ModuleDict(), name):
            raise RecipeError(
                f"no head can be called {name!r}", "letters, digits, - and _, as in image_tokens"
            )


def split(values: Tensor, heads: Heads) -> dict[str, Tensor]:
    """Cut vectors [B, sum of the widths] into the heads, in their order: [B, *shape] by name."""
    parts = values.split([head.width for head in heads.values()], dim=-1)
    return {
        name: part.unflatten(-1, head.shape) if len(head.shape) > 1 else part
        for (name, head), part in zip(heads.items(), parts, strict=True)
    }


def check(found: Any, heads: Heads, what: str, part: Any = None, count: int | None = None) -> None:
    """Refuse what is not the heads' outputs: [B, *shape] by name, or one vector [B, sum of the widths].

    Args:
        found: What a part returned.
        heads: What it should be.
        what: What returned it, in words.
        part: The part that returned it, if one did.
        count: B, where it is known.

    Raises:
        BrainhiveError: naming both shapes.
    """
    is_right, way = False, "give each head the shape of its target"
    if isinstance(found, Tensor):
        width = sum(head.width for head in heads.values())
        is_right = found.ndim == 2 and found.shape[1] == width and count in (None, len(found))
        seen, way = str([*found.shape]), f"return a vector [{count or 'B'}, {width}]"
    elif isinstance(found, Mapping) and all(isinstance(value, Tensor) for value in found.values()):
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in found.items()}
        has_all_rows = count is None or all(tensor.shape[:1] == (count,) for tensor in found.values())
        is_right = has_all_rows and shapes == {name: head.shape for name, head in heads.items()}
        seen = _listed(shapes) if has_all_rows else f"{_listed(shapes)} of other than {count} signals"
    else:
        seen, way = type(found).__name__, "return a tensor, or a dict with the tensor of each head"
    if not is_right:
        who = what if part is None else foreign_code.name_of(part, what)
        expected = _listed({name: head.shape for name, head in heads.items()})
        raise BrainhiveError(f"{who} gives {seen}, the heads are {expected}", way)


def comparable(values: Tensor, is_centred: bool = False) -> Tensor:
    """Flatten a head's outputs [B, *shape] to the vectors [B, D] whose cosines retrieval ranks.

    Args:
        values: Outputs or targets of one head.
        is_centred: Whether each vector's mean is taken away, so that cosines are correlations.
    """
    if not is_centred:
        return values.flatten(1)
    vectors = values.float().flatten(1)
    return vectors - vectors.mean(-1, keepdim=True)


def refuse_other_target(name: str, head: Head, digest: str, where: str) -> None:
    """Refuse a target, or what decodes it, that is not what the head was trained to predict.

    Args:
        name: Name of the head.
        head: The head.
        digest: Identity of what made the target, or of the autoencoder that is to decode it.
        where: What has that identity, as a user calls it.

    Raises:
        BrainhiveError: naming both; nothing is refused where one is not known, or only one is a latent space.
    """
    is_known = head.digest and digest and head.digest.startswith(PREFIX) == digest.startswith(PREFIX)
    if is_known and head.digest != digest:
        raise BrainhiveError(
            f"the head {name} predicts {head.target} of {head.digest}, {where} is of {digest}",
            "use the encoder or autoencoder that the head was trained with",
        )


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "nothing"
