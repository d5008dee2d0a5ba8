"""Conditions of a generator, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from brainhive_cli.models.heads import Decoded


@dataclass(frozen=True, eq=False)
class Conditioning:
    """The conditions of B pictures or clips; a field is None where a prior gives no such condition.

    Attributes:
        embeddings: Condition tokens [B, S, D].
        texts: B prompts, or their embeddings [B, S, D].
        images: Condition images [B, 3, H, W] in 0..1.
        start: What sampling starts from instead of noise alone: latents [B, C, h, w] as the generator's
            `encode` gives them, or pictures [B, 3, H, W] in 0..1.
        masks: Where conditions hold, [B, 1, H, W] in 0..1.
        decoded: The heads that this was made from, for generators whose stages have priors of their own.
    """

    embeddings: Tensor | None = None
    texts: Tensor | list[str] | None = None
    images: Tensor | None = None
    start: Tensor | None = None
    masks: Tensor | None = None
    decoded: Decoded | None = None

    def __getitem__(self, rows: slice | Sequence[int]) -> "Conditioning":
        """Take some rows of every condition."""
        chosen: dict[str, Any] = {}
        for name, value in vars(self).items():
            # lists cannot be indexed by a list of rows
            if isinstance(value, list) and not isinstance(rows, slice):
                chosen[name] = [value[row] for row in rows]
            elif isinstance(value, Tensor) and not isinstance(rows, slice):
                chosen[name] = value[list(rows)]  # a tuple would index several dimensions
            else:
                # no condition, or a slice of a list or tensor
                chosen[name] = None if value is None else value[rows]
        return Conditioning(**chosen)

    def __len__(self) -> int:
        """Number of rows; 0 where there is no condition at all."""
        return next((len(value) for value in vars(self).values() if value is not None), 0)
