"""Ridge regression from the signals of all subjects to every head: one map, which fits
new subjects too.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.measurement.linear_maps import choose_penalty
from brainhive_cli.models import heads as outputs
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones.ridge import NUMBERS, TargetReader
from brainhive_cli.models.heads import Heads
from brainhive_cli.models.signal_spec import SignalSpec


class Config(BackboneConfig):
    """For signals whose sensors are the same in all subjects.

    W = W0 + (X^T X + alpha I)^-1 X^T (Y - X W0), where W0 is 0 or the map of the model
    that the training starts from; no part of `train` but `validation` has an effect.
    """

    cites = ("hoerl1970",)
    takes_spec = True
    is_closed_form = True
    continues = True

    alpha: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="Penalty of the squared distance to the map that the fit begins "
        "with, as scikit-learn's; auto: for each head by generalised "
        "cross-validation.",
    )
    intercept: bool = Field(
        True,
        description=(
            "Whether signals and targets are centred; if not, a signal of zero "
            "predicts zero."
        ),
    )

    def citations(self) -> tuple[str, ...]:
        """Add cross-validation of the penalty where it is used."""
        return (*self.cites, *(("golub1979",) if self.alpha == "auto" else ()))

    def build(self, spec: SignalSpec, heads: Heads) -> "SharedRidge":
        """Make the model, with weights of zero.

        Raises:
            BrainhiveError: if subjects differ in their number of sensors.
        """
        return SharedRidge(self, spec.channels * spec.samples, heads)


TINY = Config(alpha=1.0)
"""It has no size of its own."""


class SharedRidge(nn.Module):
    """A map [F, outputs] and biases [outputs] of all heads, which no gradient changes.

    Attributes:
        rows: Features [n, F + 1], the last of them 1, and residuals [n, outputs]; fewer
            rows than F.
        sums: Of more rows: products of features with features and with residuals, and
            squared residuals.
        count: Rows.
    """

    def __init__(self, config: Config, features: int, heads: Heads) -> None:
        super().__init__()
        self.heads = heads
        self.alpha = config.alpha
        self.intercept = config.intercept
        width = sum(head.width for head in heads.values())
        # [F, outputs]
        self.weight = nn.Parameter(torch.zeros(features, width), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.rows: list[tuple[Tensor, Tensor]] = []
        self.sums: list[Tensor] = []
        self.count = 0

    def forward(
        self, signal: Tensor, subject_index: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Predict every head, [B, *shape], from signals [B, C, T] of any subjects."""
        return outputs.split_heads(
            signal.flatten(1).to(self.weight) @ self.weight + self.bias, self.heads
        )

    @torch.no_grad()
    def fit(
        self, subject: int, signal: Tensor, targets: TargetReader, held_out: Tensor
    ) -> None:
        """Add the signals of one subject to the fit; `solve` ends it.

        Args:
            subject: Its number, which has no effect.
            signal: Training signals [N, C, T], in the order of the targets.
            targets: Targets of a slice of them.
            held_out: Other signals, which have no effect.
        """
        size, width = self.weight.shape
        initial = torch.cat([self.weight, self.bias[None]]).double()  # [F + 1, outputs]
        # as many rows of features and targets as fit into memory at once
        at_once = max(1, NUMBERS // (size + width))
        for start in range(0, len(signal), at_once):
            # what the initial map leaves unexplained
            rows = slice(start, min(start + at_once, len(signal)))
            # [n, F + 1]
            features = F.pad(signal[rows].flatten(1).double(), (0, 1), value=1.0)
            targets_of_head = targets(rows)
            target = torch.cat(
                [targets_of_head[name].flatten(1).double() for name in self.heads], 1
            )
            self.rows.append((features, target - features @ initial))
            self.count += len(features)

            # sums take less memory as soon as there are as many rows as features
            if self.count >= size:
                shapes = ((size + 1, size + 1), (size + 1, width), (width,))
                self.sums = self.sums or [features.new_zeros(shape) for shape in shapes]
                for features, residual in self.rows:
                    self.sums[0].addmm_(features.T, features)
                    self.sums[1].addmm_(features.T, residual)
                    self.sums[2] += residual.square().sum(0)
                self.rows = []

    @torch.no_grad()
    def solve(self) -> None:
        """Set the map to that of all signals since the last solution, and forget
        them.
        """
        # centred products: of features with features, or of fewer signals with signals
        count = self.count
        is_dual = not self.sums
        if is_dual:
            features, residual = (
                torch.cat(parts) for parts in zip(*self.rows, strict=True)
            )
            features = features[:, :-1]
            mean = self.intercept * features.mean(0)
            offset = self.intercept * residual.mean(0)
            features = features - mean
            cross = residual - offset
            gram = features @ features.T
            squares = cross.square().sum(0)
        else:
            gram, cross, squares = self.sums
            mean = self.intercept * gram[-1, :-1] / count
            offset = self.intercept * cross[-1] / count
            gram = gram[:-1, :-1] - count * torch.outer(mean, mean)
            cross = cross[:-1] - count * torch.outer(mean, offset)
            squares = squares - count * offset.square()

        # cross-validation: centring takes one degree of freedom, and features beyond
        # the signals have none
        if self.alpha == "auto":
            values, vectors = torch.linalg.eigh(gram)
            values = values.clamp(min=0)
            rotated = (vectors.T @ cross).square()  # [K, outputs]
            if is_dual:
                rotated = rotated * values[:, None]
                absent = len(self.weight) - count
                values = F.pad(values, (0, absent))
                rotated = F.pad(rotated, (0, 0, 0, absent))

        # each head with its own penalty
        changes = []
        start = 0
        for head in self.heads.values():
            columns = slice(start, start := start + head.width)
            alpha = self.alpha
            if alpha == "auto":
                freedom = max(1, count - self.intercept)
                alpha = choose_penalty(
                    values, rotated[:, columns], squares[columns], freedom
                )
            penalised = gram + alpha * torch.eye(
                len(gram), dtype=gram.dtype, device=gram.device
            )
            changes.append(torch.linalg.solve(penalised, cross[:, columns]))
        change = torch.cat(changes, 1)
        if is_dual:
            change = features.T @ change  # [F, outputs]

        # the new map, and nothing of the signals
        self.weight.add_(change)
        self.bias.add_(offset - mean @ change)  # mean signals predict mean targets
        self.rows = []
        self.sums = []
        self.count = 0
