"""Ridge regression with a map that all subjects share, new subjects included."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.measurement import Products
from brainhive_cli.models import Heads, SignalSpec, heads as outputs
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones.ridge import MAX_TARGET_NUMBERS, TargetReader


class Config(BackboneConfig):
    """Settings of a ridge for subjects with equal sensors.

    W = W0 + (X^T X + alpha I)^-1 X^T (Y - X W0), where W0 is the map of the model that
    the training starts from, or 0. The only other key of `train` with an effect is
    `validation`.
    """

    cites = ("hoerl1970",)
    called = "Ridge regression shared by all subjects"
    takes_spec = True
    is_closed_form = True
    continues = True

    alpha: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="Penalty of the squared distance to the initial map, as in "
        "scikit-learn. auto chooses it for each head by generalised cross-validation.",
    )
    intercept: bool = Field(
        True,
        description=(
            "If true, signals and targets are centred. If false, a signal of zeros "
            "predicts zeros."
        ),
    )

    def citations(self) -> tuple[str, ...]:
        """List the papers of the ridge, and of cross-validation if it is used."""
        papers = list(self.cites)
        if self.alpha == "auto":
            papers.append("golub1979")
        return tuple(papers)

    def build(self, spec: SignalSpec, heads: Heads) -> "SharedRidge":
        """Make the model, with weights of zero.

        Raises:
            BrainhiveError: if subjects differ in their number of sensors.
        """
        return SharedRidge(self, spec.channels * spec.samples, heads)


TINY = Config(alpha=1.0)
"""Default settings, as the ridge has no size of its own."""


class SharedRidge(nn.Module):
    """Linear map of all subjects to all heads, fitted without gradients.

    Attributes:
        weight: Weights [F, outputs].
        bias: Biases [outputs].
        rows: Features [n, F + 1], whose last is 1, and residuals [n, outputs] of the
            training signals so far, if they are fewer than F.
        sums: Sums over the signals if they are more: products of features with
            features and with residuals, and squares of residuals.
        count: Number of training signals so far.
    """

    def __init__(self, config: Config, features: int, heads: Heads) -> None:
        super().__init__()
        self.heads = heads
        self.alpha = config.alpha
        self.intercept = config.intercept
        width = sum(head.width for head in heads.values())
        self.weight = nn.Parameter(torch.zeros(features, width), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.rows: list[tuple[Tensor, Tensor]] = []
        self.sums: list[Tensor] = []
        self.count = 0

    def forward(
        self, signal: Tensor, subject_index: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Predict every head, [B, *shape], from signals [B, C, T] of any subjects."""
        flat = signal.flatten(1).to(self.weight)
        return outputs.split_heads(flat @ self.weight + self.bias, self.heads)

    @torch.no_grad()
    def fit(
        self, subject: int, signal: Tensor, targets: TargetReader, held_out: Tensor
    ) -> None:
        """Add the signals of one subject to the fit. `solve` completes the fit.

        Args:
            subject: Without effect.
            signal: Training signals [N, C, T].
            targets: Reads the targets of a slice of the training signals.
            held_out: Without effect.
        """
        n_features, width = self.weight.shape
        initial = torch.cat([self.weight, self.bias[None]]).double()  # [F + 1, outputs]
        block_size = max(1, MAX_TARGET_NUMBERS // (n_features + width))
        for start in range(0, len(signal), block_size):
            # residuals of the initial map
            rows = slice(start, min(start + block_size, len(signal)))
            flat = signal[rows].flatten(1).double()
            features = F.pad(flat, (0, 1), value=1.0)  # [n, F + 1]
            targets_by_head = targets(rows)
            target = torch.cat(
                [targets_by_head[name].flatten(1).double() for name in self.heads], 1
            )
            self.rows.append((features, target - features @ initial))
            self.count += len(features)

            # sums take less memory than rows if there are more rows than features
            if self.count >= n_features:
                if not self.sums:
                    self.sums = [
                        features.new_zeros(n_features + 1, n_features + 1),
                        features.new_zeros(n_features + 1, width),
                        features.new_zeros(width),
                    ]
                for features, residual in self.rows:
                    self.sums[0].addmm_(features.T, features)
                    self.sums[1].addmm_(features.T, residual)
                    self.sums[2] += residual.square().sum(0)
                self.rows = []

    @torch.no_grad()
    def solve(self) -> None:
        """Add the solution for all signals since the last call to the map.

        The signals are then forgotten.
        """
        if self.sums:
            gram, cross, squares = self.sums
            mean = self.intercept * gram[-1, :-1] / self.count
            offset = self.intercept * cross[-1] / self.count
            products = Products.from_gram(
                gram=gram[:-1, :-1] - self.count * torch.outer(mean, mean),
                cross=cross[:-1] - self.count * torch.outer(mean, offset),
                squares=squares - self.count * offset.square(),
                mean=offset,
                freedom=max(1, self.count - self.intercept),
            )
        else:
            features = torch.cat([features for features, _ in self.rows])[:, :-1]
            residuals = [residual for _, residual in self.rows]
            products = Products.from_samples(features, residuals, self.intercept)
            mean = products.feature_mean
            offset = products.mean

        # solve each head with its penalty
        changes = []
        start = 0
        for head in self.heads.values():
            alpha = None if self.alpha == "auto" else self.alpha
            changes.append(products.solve(alpha, slice(start, start + head.width)))
            start += head.width
        change = products.basis @ torch.cat(changes, 1)  # [F, outputs]

        self.weight.add_(change)
        self.bias.add_(offset - mean @ change)  # mean signals predict mean targets
        self.rows = []
        self.sums = []
        self.count = 0
