"""Ridge: the linear map of tokens to references of the same stimuli, shrunk towards the identity."""

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from brainhive_cli.measurement.alignments import Alignment, AlignmentConfig


class Config(AlignmentConfig):
    """I + (X^T X + penalty I)^-1 X^T (Y - X); for hundreds of pairs, as every entry of the map is free."""

    is_paired = True

    penalty: PositiveFloat = Field(
        5.0, description="pull towards the identity; of tokens of length 1, the weight of so many pairs"
    )

    def learn(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Solve the normal equations, by pairs or by dimensions, whichever are fewer."""
        # the change is X^T `weights`, with the smaller one of the two products of tokens
        count, width = tokens.shape
        difference = references - tokens
        if count < width:
            gram = tokens @ tokens.T + self.penalty * torch.eye(count, dtype=tokens.dtype)
            weights = torch.linalg.solve(gram, difference)  # [n, D]
            return lambda rows: rows + (rows @ tokens.T) @ weights
        gram = tokens.T @ tokens + self.penalty * torch.eye(width, dtype=tokens.dtype)
        change = torch.linalg.solve(gram, tokens.T @ difference)  # [D, D]
        return lambda rows: rows + rows @ change


TINY = Config(penalty=1.0)
