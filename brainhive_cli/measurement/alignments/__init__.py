"""Contract of alignments: maps of a new subject's tokens to those of training subjects."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError

Alignment = Callable[[Tensor], Tensor]
"""Maps tokens [N, D] of the new subject to tokens [N, D] of the same dtype on the same device."""


class AlignmentConfig(parts.Config):
    """Base of alignments' Configs."""

    is_paired: ClassVar[bool] = False
    """Whether it needs references of the same stimuli, row by row, and so the labels of the new subject."""

    def fit(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Fit the map to recordings of the new subject, in float64 on the CPU.

        Args:
            tokens: Of the new subject's calibration recordings [n, D]. Those of test recordings would make
                the result transductive.
            references: Tokens [m, D] of training subjects; if `is_paired`, tokens or targets [n, D] of the
                stimuli of `tokens`.

        Returns:
            The map.

        Raises:
            BrainhiveError: if the shapes do not go together.
        """
        are_pairs = len(tokens) == len(references) or not self.is_paired
        if not len(tokens) or not len(references) or tokens.shape[1] != references.shape[1] or not are_pairs:
            shapes = f"{list(tokens.shape)} and references {list(references.shape)}"
            needed = "one reference for each token" if self.is_paired else "at least one of each"
            raise BrainhiveError(f"alignment {self.kind}: tokens {shapes}", f"{needed}, of equal width")
        aligned = self.learn(in_double(tokens), in_double(references))
        return lambda rows: aligned(in_double(rows)).to(rows)

    def learn(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Fit the map in float64: what a part defines."""
        raise NotImplementedError


def in_double(tokens: Tensor) -> Tensor:
    """Copy tokens to the CPU in float64, which not every device has."""
    return tokens.detach().to("cpu", torch.float64)
