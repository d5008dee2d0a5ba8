"""Heads, the named outputs of a brain model, and conditions of generators."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ConfigDict

from brainhive_cli.core.base import BrainhiveError, RecipeError
from brainhive_cli.core.files import foreign_code
from brainhive_cli.core.recipes import parts

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TOKEN_HEAD = "token"
"""Name of the head of a model with one token, such as BrainHiVE's."""
FUSED_TARGET = "fused"
"""Target of a head that predicts the output of the fuser."""
LATENT_SPACE_PREFIX = "latents:"
"""Prefix of the name of a latent space, which tells it from a digest of files."""


@dataclass(frozen=True)
class Head:
    """One output of a brain model.

    Attributes:
        shape: Shape without the batch, such as (D,), (S, D) or (C, H, W).
        target: Key of the predicted embeddings, or `FUSED_TARGET`.
        digest: Digest of the weights that made the targets, or name of their latent
            space. Empty if unknown.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    shape: tuple[int, ...]
    target: str = ""
    digest: str = ""

    @property
    def width(self) -> int:
        """Number of values of an item."""
        return math.prod(self.shape)


Heads = Mapping[str, Head]


@dataclass(frozen=True)
class Decoded:
    """The decoded heads of N signals.

    Attributes:
        tensors: Outputs [N, *shape], keyed by head.
        texts: N captions, keyed by head.
    """

    tensors: dict[str, Tensor]
    texts: dict[str, list[str]] = field(default_factory=dict)

    def __getitem__(self, rows: slice | Sequence[int]) -> Decoded:
        """Select rows of every head."""
        import torch

        numbers = list_row_numbers(rows, len(self))
        index = torch.as_tensor(numbers, dtype=torch.long)
        tensors = {
            name: tensor[index.to(tensor.device)]
            for name, tensor in self.tensors.items()
        }
        texts = {}
        for name, head_texts in self.texts.items():
            texts[name] = [head_texts[row] for row in numbers]
        return Decoded(tensors, texts)

    def __len__(self) -> int:
        """Number of decoded signals."""
        for tensor in self.tensors.values():
            return len(tensor)
        for texts in self.texts.values():
            return len(texts)
        return 0

    def to(self, device: torch.device | str) -> Decoded:
        """Move the tensors to a device."""
        tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return Decoded(tensors, self.texts)

    def float(self) -> Decoded:
        """Convert the tensors to float32."""
        tensors = {name: tensor.float() for name, tensor in self.tensors.items()}
        return Decoded(tensors, self.texts)

    @classmethod
    def join(cls, batches: Sequence[Decoded]) -> Decoded:
        """Concatenate batches with the same heads."""
        import torch

        tensors = {}
        for name in batches[0].tensors:
            tensors[name] = torch.cat([batch.tensors[name] for batch in batches])
        texts: dict[str, list[str]] = {}
        for name in batches[0].texts:
            texts[name] = []
            for batch in batches:
                texts[name].extend(batch.texts[name])
        return cls(tensors, texts)


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Conditions of B pictures or clips. A field is None without such a condition.

    Attributes:
        embeddings: Condition tokens [B, S, D].
        texts: B prompts, or their embeddings [B, S, D].
        images: Condition images [B, 3, H, W] in 0..1.
        start: Start of the sampling, with noise added: latents [B, C, h, w] of the
            generator's `encode`, or pictures [B, 3, H, W] in 0..1.
        masks: Masks [B, 1, H, W] in 0..1 of the area with these conditions.
        decoded: Decoded heads, for generators whose stages have their own priors.
    """

    embeddings: Tensor | None = None
    texts: Tensor | list[str] | None = None
    images: Tensor | None = None
    start: Tensor | None = None
    masks: Tensor | None = None
    decoded: Decoded | None = None

    def __getitem__(self, rows: slice | Sequence[int]) -> Conditioning:
        """Select rows of every condition."""
        numbers = list_row_numbers(rows, len(self))
        fields: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, list):
                fields[name] = [value[row] for row in numbers]
            else:
                fields[name] = None if value is None else value[numbers]
        return Conditioning(**fields)

    def __len__(self) -> int:
        """Number of rows. 0 without any condition."""
        for value in vars(self).values():
            if value is not None:
                return len(value)
        return 0


def list_row_numbers(rows: slice | Sequence[int], n_rows: int) -> list[int]:
    """List the row numbers of a slice or sequence, with which lists can be indexed."""
    if isinstance(rows, slice):
        return list(range(n_rows)[rows])
    return list(rows)


def check_head_names(names: Iterable[str]) -> None:
    """Raise an error for names that torch does not accept for modules.

    Such names contain a dot, or are attributes of a ModuleDict, such as `keys`.

    Raises:
        RecipeError: for the first of them.
    """
    for name in names:
        if not name or "." in name or _is_attribute_of_modules(name):
            raise RecipeError(
                f"no head can be called {name!r}",
                "letters, digits, - and _, as in image_tokens; not half, type or "
                "values, as in torch",
            )


def _is_attribute_of_modules(name: str) -> bool:
    """Return True if a ModuleDict has an attribute of this name."""
    # do not import torch for names that are certainly valid
    if not name.isidentifier() or name == TOKEN_HEAD or parts.is_kind("encoders", name):
        return False
    from torch import nn

    return hasattr(nn.ModuleDict(), name)


def split_heads(values: Tensor, heads: Heads) -> dict[str, Tensor]:
    """Split vectors into the outputs of heads, in the order of the heads.

    Args:
        values: Vectors [B, sum of the widths].
        heads: Heads.

    Returns:
        Outputs [B, *shape], keyed by head.
    """
    columns = values.split([head.width for head in heads.values()], -1)
    outputs = {}
    for (name, head), output in zip(heads.items(), columns, strict=True):
        is_vector = len(head.shape) <= 1
        outputs[name] = output if is_vector else output.unflatten(-1, head.shape)
    return outputs


def check_outputs(
    outputs: Any,
    heads: Heads,
    source: str,
    part: Any = None,
    n_signals: int | None = None,
) -> None:
    """Raise an error unless a value is the outputs of heads.

    Args:
        outputs: Tensors [B, *shape] keyed by head, or vectors [B, sum of the widths].
        heads: Expected heads.
        source: Description of the part that returned the value.
        part: The part, if its class is named in the error.
        n_signals: Expected batch size B, or None for any.

    Raises:
        BrainhiveError: if names, shapes or the batch size differ.
    """
    from torch import Tensor

    expected = {name: head.shape for name, head in heads.items()}
    width = sum(head.width for head in heads.values())
    description = type(outputs).__name__
    is_valid = False
    if isinstance(outputs, Tensor):
        description = f"{list(outputs.shape)}"  # `str` cannot be exported by torch 2.6
        is_valid = outputs.ndim == 2 and outputs.shape[1] == width
        is_valid = is_valid and n_signals in (None, outputs.shape[0])
    elif isinstance(outputs, Mapping):
        values = outputs.values()
        if all(isinstance(value, Tensor) for value in values):
            shapes = {name: tuple(value.shape[1:]) for name, value in outputs.items()}
            description = _list_shapes(shapes)
            is_valid = shapes == expected
            if n_signals is not None and any(
                value.shape[:1] != (n_signals,) for value in values
            ):
                description += f" of other than {n_signals} signals"
                is_valid = False

    if not is_valid:
        name = source if part is None else foreign_code.name_object(part, source)
        raise BrainhiveError(
            f"{name} gives {description}, the heads are {_list_shapes(expected)}",
            "return a dict with the tensor of each head, or a vector "
            f"[{n_signals or 'B'}, {width}]",
        )


def _list_shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    """List names and shapes, such as `token [1024]`. "nothing" without any."""
    texts = [f"{name} {list(shape)}" for name, shape in shapes.items()]
    return ", ".join(texts) or "nothing"


def flatten_vectors(values: Tensor, is_centred: bool = False) -> Tensor:
    """Flatten the outputs of a head to the vectors whose cosines retrieval ranks.

    Args:
        values: Outputs or targets [B, *shape] of a head.
        is_centred: If True, the mean of each vector is subtracted. Cosines are then
            Pearson correlations.

    Returns:
        Vectors [B, D].
    """
    if not is_centred:
        return values.flatten(1)
    vectors = values.float().flatten(1)
    return vectors - vectors.mean(-1, keepdim=True)


def refuse_other_target(name: str, head: Head, digest: str, source: str) -> None:
    """Raise an error if a head was trained for targets of other weights.

    A latent space and a digest of files cannot be compared.

    Args:
        name: Name of the head.
        head: Head.
        digest: Digest of the weights that make or decode the target, or name of their
            latent space. Empty if unknown.
        source: Source of these weights, for the error.

    Raises:
        BrainhiveError: if the digests can be compared, and differ.
    """
    if not head.digest or not digest:
        return
    is_latent_space = digest.startswith(LATENT_SPACE_PREFIX)
    if head.digest.startswith(LATENT_SPACE_PREFIX) != is_latent_space:
        return
    if head.digest != digest:
        raise BrainhiveError(
            f"the head {name} predicts {head.target} of {head.digest}, {source} is "
            f"of {digest}",
            "use the encoder or autoencoder that the head was trained with",
        )


def name_latent_space(autoencoder: Any) -> str:
    """Name the latent space of a diffusers autoencoder.

    The name is a digest of the scale, the shift and signs of the encoder's weights.
    Weights in half precision and fine-tuned decoders keep the name.
    """
    config = autoencoder.config
    state = autoencoder.state_dict()
    shift = config.get("shift_factor") or 0.0
    digest = hashlib.sha256(f"{config.scaling_factor} {shift}".encode())

    # the first and the last convolution of the encoder
    kernels = [
        name
        for name, weight in state.items()
        if name.startswith("encoder.") and weight.ndim == 4
    ]
    for name in (kernels[0], kernels[-1]):
        # Number of weights of a tensor whose signs identify it. Rounding to half
        # precision turns few weights into zero, but in a whole tensor some.
        is_positive = (state[name].flatten()[:2048] > 0).cpu().numpy()
        digest.update(np.packbits(is_positive).tobytes())
    return LATENT_SPACE_PREFIX + digest.hexdigest()[:16]  # 64 bits
