"""What was decoded from brain signals: tensors and texts by head, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Decoded:
    """The decoded heads of N signals.

    Attributes:
        tensors: [N, *shape] by head.
        texts: N texts by head, where a head is a caption.
    """

    tensors: dict[str, Tensor]
    texts: dict[str, list[str]] = field(default_factory=dict)

    def __getitem__(self, rows: slice | Sequence[int]) -> "Decoded":
        """Take some rows of every head."""
        chosen = range(len(self))[rows] if isinstance(rows, slice) else rows
        index = torch.as_tensor(list(chosen), dtype=torch.long)
        return Decoded(
            {name: tensor[index.to(tensor.device)] for name, tensor in self.tensors.items()},
            {name: [texts[row] for row in chosen] for name, texts in self.texts.items()},
        )

    def __len__(self) -> int:
        """How many signals were decoded."""
        columns: list[Tensor | list[str]] = [*self.tensors.values(), *self.texts.values()]
        return len(columns[0]) if columns else 0

    def to(self, device: torch.device | str) -> "Decoded":
        """Move the tensors to a device."""
        return Decoded({name: tensor.to(device) for name, tensor in self.tensors.items()}, self.texts)

    def float(self) -> "Decoded":
        """Give the tensors in float32."""
        return Decoded({name: tensor.float() for name, tensor in self.tensors.items()}, self.texts)

    @classmethod
    def join(cls, parts: Sequence["Decoded"]) -> "Decoded":
        """Put parts with the same heads one after another."""
        return cls(
            {name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors},
            {name: [text for part in parts for text in part.texts[name]] for name in parts[0].texts},
        )
