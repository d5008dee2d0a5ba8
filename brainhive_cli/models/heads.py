"""Heads, the named outputs of a brain model: what each predicts, what was decoded,
conditions of it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ConfigDict

from brainhive_cli.core import foreign_code, parts
from brainhive_cli.core.errors import BrainhiveError, RecipeError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TOKEN_HEAD = "token"
"""The head of a model with one token, which is what BrainHiVE's models have."""
FUSED_TARGET = "fused"
"""The target of a head that is compared with what the fuser makes of several
embeddings.
"""

LATENT_SPACE_PREFIX = "latents:"
"""Before the name of a latent space, so that it is not compared with a digest of
files.
"""
N_SIGNS = 2048
"""Signs that are read of a tensor: rounding to half precision moves few weights to
zero, among all some.
"""


@dataclass(frozen=True)
class Head:
    """One output of a brain model.

    Attributes:
        shape: Of one item, without the batch: (D,), (S, D), (C, H, W), …
        target: Key of the embeddings that it predicts, or `FUSED`.
        digest: Identity of what made them, a latent space or weights; empty if nothing
            says.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    shape: tuple[int, ...]
    target: str = ""
    digest: str = ""

    @property
    def width(self) -> int:
        """Count of numbers of an item."""
        return math.prod(self.shape)


Heads = Mapping[str, Head]


@dataclass(frozen=True)
class Decoded:
    """The decoded heads of N signals.

    Attributes:
        tensors: [N, *shape] by head.
        texts: N texts by head, where a head is a caption.
    """

    tensors: dict[str, Tensor]
    texts: dict[str, list[str]] = field(default_factory=dict)

    def __getitem__(self, rows: slice | Sequence[int]) -> Decoded:
        """Take some rows of every head."""
        import torch

        # row numbers, since lists of texts cannot be indexed by a list
        numbers = [*range(len(self))[rows]] if isinstance(rows, slice) else [*rows]
        index = torch.as_tensor(numbers, dtype=torch.long)
        return Decoded(
            {
                name: tensor[index.to(tensor.device)]
                for name, tensor in self.tensors.items()
            },
            {
                name: [texts[row] for row in numbers]
                for name, texts in self.texts.items()
            },
        )

    def __len__(self) -> int:
        """Count of decoded signals."""
        columns: list[Tensor | list[str]] = [
            *self.tensors.values(),
            *self.texts.values(),
        ]
        return len(columns[0]) if columns else 0

    def to(self, device: torch.device | str) -> Decoded:
        """Move the tensors to a device."""
        return Decoded(
            {name: tensor.to(device) for name, tensor in self.tensors.items()},
            self.texts,
        )

    def float(self) -> Decoded:
        """Give the tensors in float32."""
        return Decoded(
            {name: tensor.float() for name, tensor in self.tensors.items()}, self.texts
        )

    @classmethod
    def join(cls, parts: Sequence[Decoded]) -> Decoded:
        """Put parts with the same heads one after another."""
        import torch

        return cls(
            {
                name: torch.cat([part.tensors[name] for part in parts])
                for name in parts[0].tensors
            },
            {
                name: [text for part in parts for text in part.texts[name]]
                for name in parts[0].texts
            },
        )


@dataclass(frozen=True, eq=False)
class Conditioning:
    """The conditions of B pictures or clips; a field is None where a prior gives no
    such condition.

    Attributes:
        embeddings: Condition tokens [B, S, D].
        texts: B prompts, or their embeddings [B, S, D].
        images: Condition images [B, 3, H, W] in 0..1.
        start: What sampling starts from instead of noise alone: latents [B, C, h, w] as
            the generator's `encode` gives them, or pictures [B, 3, H, W] in 0..1.
        masks: Where conditions hold, [B, 1, H, W] in 0..1.
        decoded: The heads that this was made from, for generators whose stages have
            priors of their own.
    """

    embeddings: Tensor | None = None
    texts: Tensor | list[str] | None = None
    images: Tensor | None = None
    start: Tensor | None = None
    masks: Tensor | None = None
    decoded: Decoded | None = None

    def __getitem__(self, rows: slice | Sequence[int]) -> Conditioning:
        """Take some rows of every condition."""
        # row numbers, since lists of texts cannot be indexed by a list
        numbers = [*range(len(self))[rows]] if isinstance(rows, slice) else [*rows]
        chosen: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, list):
                chosen[name] = [value[row] for row in numbers]
            else:
                chosen[name] = None if value is None else value[numbers]
        return Conditioning(**chosen)

    def __len__(self) -> int:
        """Number of rows; 0 where there is no condition at all."""
        return next(
            (len(value) for value in vars(self).values() if value is not None), 0
        )


def check_head_names(names: Iterable[str]) -> None:
    """Refuse names by which torch could not keep the modules of heads: `a.b`, or
    `keys`, as a dict's method.

    Raises:
        RecipeError: naming the first of them.
    """
    for name in names:
        # ModuleDict refuses its attributes' names, and torch joins names by dots
        if not name or "." in name or _is_attribute_of_modules(name):
            raise RecipeError(
                f"no head can be called {name!r}",
                "letters, digits, - and _, as in image_tokens; not half, type or "
                "values, as in torch",
            )


def _is_attribute_of_modules(name: str) -> bool:
    # names with a dash, and those of shipped encoders, need no torch
    if not name.isidentifier() or name == TOKEN_HEAD or parts.is_kind("encoders", name):
        return False
    from torch import nn

    return hasattr(nn.ModuleDict(), name)


def split_heads(values: Tensor, heads: Heads) -> dict[str, Tensor]:
    """Cut vectors [B, sum of the widths] into the heads, in their order: [B, *shape] by
    name.
    """
    parts = values.split([head.width for head in heads.values()], -1)
    # vectors stay as they are, other heads get their axes back
    return {
        name: part.unflatten(-1, head.shape) if len(head.shape) > 1 else part
        for (name, head), part in zip(heads.items(), parts, strict=True)
    }


def check_outputs(
    outputs: Any, heads: Heads, what: str, part: Any = None, count: int | None = None
) -> None:
    """Refuse what is not the heads' outputs: [B, *shape] by name, or one vector [B, sum
    of the widths].

    Args:
        outputs: What a part returned.
        heads: What they should be.
        what: What returned them, in words.
        part: The part that returned them, if one did.
        count: B, where it is known.

    Raises:
        BrainhiveError: naming both shapes.
    """
    from torch import Tensor

    # a vector is cut into heads by their widths; of tensors by name, names, shapes and
    # rows must all agree
    expected = {name: head.shape for name, head in heads.items()}
    width = sum(h.width for h in heads.values())
    if isinstance(outputs, Tensor):
        actual = str([*outputs.shape])
        is_right = (
            outputs.ndim == 2
            and outputs.shape[1] == width
            and count in (None, outputs.shape[0])
        )
    elif isinstance(outputs, Mapping) and all(
        isinstance(value, Tensor) for value in outputs.values()
    ):
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in outputs.items()}
        has_all_rows = count is None or all(
            tensor.shape[:1] == (count,) for tensor in outputs.values()
        )
        actual = _list_shapes(shapes) + (
            "" if has_all_rows else f" of other than {count} signals"
        )
        is_right = has_all_rows and shapes == expected
    else:
        actual = type(outputs).__name__
        is_right = False

    # name the part that returned it, and both shapes
    if not is_right:
        who = what if part is None else foreign_code.name_object(part, what)
        raise BrainhiveError(
            f"{who} gives {actual}, the heads are {_list_shapes(expected)}",
            "return a dict with the tensor of each head, or a vector "
            f"[{count or 'B'}, {width}]",
        )


def _list_shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    return (
        ", ".join(f"{name} {[*shape]}" for name, shape in shapes.items()) or "nothing"
    )


def flatten_vectors(values: Tensor, is_centred: bool = False) -> Tensor:
    """Flatten a head's outputs [B, *shape] to the vectors [B, D] whose cosines
    retrieval ranks.

    Args:
        values: Outputs or targets of one head.
        is_centred: Whether each vector's mean is taken away, so that cosines are
            correlations.
    """
    if not is_centred:
        return values.flatten(1)
    # cosines of centred vectors are Pearson correlations
    vectors = values.float().flatten(1)
    return vectors - vectors.mean(-1, keepdim=True)


def refuse_other_target(name: str, head: Head, digest: str, where: str) -> None:
    """Refuse a target, or what decodes it, that is not what the head was trained to
    predict.

    Args:
        name: Name of the head.
        head: The head.
        digest: Identity of what made the target, or of the autoencoder that is to
            decode it.
        where: What has that identity, as a user calls it.

    Raises:
        BrainhiveError: naming both; nothing is refused where one is not known, or only
            one is a latent space.
    """
    # a latent space's name and a digest of files cannot be compared
    is_known = (
        head.digest
        and digest
        and head.digest.startswith(LATENT_SPACE_PREFIX)
        == digest.startswith(LATENT_SPACE_PREFIX)
    )
    if is_known and head.digest != digest:
        raise BrainhiveError(
            f"the head {name} predicts {head.target} of {head.digest}, {where} is "
            f"of {digest}",
            "use the encoder or autoencoder that the head was trained with",
        )


def name_latent_space(autoencoder: Any) -> str:
    """Name the space of a diffusers autoencoder's latents, by its scale and signs of
    its encoder's weights.

    Rounding keeps signs, so weights in half precision have the same name; so has a
    fine-tuned decoder.
    """
    config = autoencoder.config
    state = autoencoder.state_dict()
    # scale and shift decide what latents mean, as the weights do
    digest = hashlib.sha256(
        f"{config.scaling_factor} {config.get('shift_factor') or 0.0}".encode()
    )
    # convolutions of the encoder, of which the first and the last are read
    kernels = [
        name
        for name, weight in state.items()
        if name.startswith("encoder.") and weight.ndim == 4
    ]
    for name in (kernels[0], kernels[-1]):
        # signs survive rounding to half precision
        is_positive = (state[name].flatten()[:N_SIGNS] > 0).cpu().numpy()
        digest.update(np.packbits(is_positive).tobytes())
    return LATENT_SPACE_PREFIX + digest.hexdigest()[:16]  # 64 bits
