"""Linear discriminant analysis with shrinkage: which category a signal is of, in closed
form.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.models import heads as outputs
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import map_by_subject
from brainhive_cli.models.backbones.ridge import TargetReader
from brainhive_cli.models.heads import Heads
from brainhive_cli.models.signal_spec import SignalSpec

MAX_FEATURES = 10_000
"""Numbers of a signal whose covariance is estimated: 10,000 take 800 MB."""
NO_LABEL = "lda decides between categories, and {} is no label"


class Config(BackboneConfig):
    """scikit-learn's discriminant analysis of each subject, with the covariance shrunk
    by Ledoit and Wolf.

    Heads are labels, one number a category. Nothing is tuned; no part of `train` has an
    effect.

    Source: Ledoit and Wolf 2004, A well-conditioned estimator for large-dimensional
    covariance matrices; Blankertz et al. 2011, Single-trial analysis and classification
    of ERP components.
    """

    cites = ("ledoit2004", "blankertz2011", "pedregosa2011")
    takes_spec = True
    is_closed_form = True
    is_classifier = True

    def build(self, spec: SignalSpec, heads: Heads) -> "Discriminant":
        """Make the model, with weights of zero.

        Raises:
            RecipeError: if a head is no vector, or signals are too large.
        """
        if odd := [name for name, head in heads.items() if len(head.shape) != 1]:
            raise RecipeError(NO_LABEL.format(odd[0]), "encoders=[concepts]")
        # the covariance [F, F] grows with the square of a signal's F numbers
        size = max(spec.widths) * spec.samples
        if size > MAX_FEATURES:
            raise RecipeError(
                f"lda takes up to {MAX_FEATURES:,} numbers of a signal, not {size:,}",
                "a region or window: signal.channels, signal.window_ms; or "
                "backbone.kind=ridge",
            )
        return Discriminant(spec, heads)


TINY = Config()


class Discriminant(nn.Module):
    """Weights [F, K] and offsets [K] of each subject and head."""

    def __init__(self, spec: SignalSpec, heads: Heads) -> None:
        super().__init__()
        self.heads = heads
        self.maps: Any = nn.ModuleDict()
        for subject, width in zip(spec.subjects, spec.widths, strict=True):
            layers = {
                name: nn.Linear(width * spec.samples, head.width)
                for name, head in heads.items()
            }
            self.maps[str(subject)] = nn.ModuleDict(layers).requires_grad_(False)

    def forward(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> dict[str, Tensor]:
        """Score every category, [B, K] by head, of signals [B, C, T] of subjects [B].

        Raises:
            BrainhiveError: for a subject that was not fitted.
        """
        maps = [partial(_score, [*layers.values()]) for layers in self.maps.values()]
        return outputs.split_heads(
            map_by_subject("lda", signal, subject_index, maps), self.heads
        )

    def number_categories(self, targets: Mapping[str, Tensor]) -> dict[str, Int64]:
        """Number the categories of training signals, [N] by head, from their labels
        [N, K].

        Raises:
            RecipeError: if a head is no label.
            BrainhiveError: if signals are of one category, or no more than these.
        """
        numbers_of = {}
        for name, labels in targets.items():
            # labels are one-hot
            if (labels.count_nonzero(1) != 1).any():
                raise RecipeError(NO_LABEL.format(name), "encoders=[concepts]")
            numbers = numbers_of[name] = labels.argmax(1).cpu().numpy()
            # scikit-learn needs two classes, and more signals than classes
            if not 1 < (categories := len(np.unique(numbers))) < len(numbers):
                raise BrainhiveError(
                    f"lda is to tell {categories} categories apart by {len(numbers)} "
                    "training signals",
                    "more trials in training, of two categories or more",
                )
        return numbers_of

    @torch.no_grad()
    def fit(
        self, subject: int, signal: Tensor, targets: TargetReader, held_out: Tensor
    ) -> None:
        """Fit one subject: training signals [N, C, T], and what gives their labels [N,
        K] by head.

        Raises:
            BrainhiveError: as `number_categories` does.
        """
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        # standardise a copy of the signals [N, F]
        flat = np.array(signal.flatten(1).cpu(), np.float64)
        mean, spread = flat.mean(0), flat.std(0)
        spread[spread == 0] = 1
        flat -= mean
        flat /= spread
        labels = targets(slice(0, len(flat)))
        for name, numbers in self.number_categories(labels).items():
            # fit, and write the fit as a linear map of raw signals
            fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            fitted.fit(flat, numbers)
            weights, offsets = fitted.coef_, fitted.intercept_
            # of two categories, scikit-learn gives the difference
            if len(weights) == 1:
                weights, offsets = (
                    np.concatenate([-weights, weights]) / 2,
                    np.concatenate([-offsets, offsets]) / 2,
                )
            weights = weights / spread
            offsets = offsets - weights @ mean

            # rows of categories that occur; the others never win
            linear = self.maps[str(subject)][name]
            linear.weight.zero_()
            # categories without training trials come last
            linear.bias.fill_(float(offsets.min()) - 1e3)
            linear.weight[fitted.classes_] = torch.from_numpy(weights).to(linear.weight)
            linear.bias[fitted.classes_] = torch.from_numpy(offsets).to(linear.bias)


def _score(layers: Sequence[nn.Module], signal: Tensor) -> Tensor:
    """Score the categories of all heads, one after another, of signals [B, C, T]."""
    return torch.cat([layer(signal.flatten(1)) for layer in layers], 1).to(signal.dtype)
