"""Linear discriminant analysis with shrinkage, which classifies signals."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brainhive_cli.core.base import BrainhiveError, Int64, RecipeError
from brainhive_cli.measurement import FeatureScaler
from brainhive_cli.models import Heads, SignalSpec, heads as outputs
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import map_by_subject
from brainhive_cli.models.backbones.ridge import TargetReader

MAX_FEATURES = 10_000
"""Largest number of features, whose covariance then takes 800 MB."""
NO_LABEL = "lda decides between categories, and {} is no label"


class Config(BackboneConfig):
    """Settings of scikit-learn's discriminant analysis, with Ledoit-Wolf shrinkage.

    Each subject has a classifier. Heads are labels with a number for each category. The
    keys of `train` have no effect.

    Source: Ledoit and Wolf 2004, A well-conditioned estimator for large-dimensional
    covariance matrices; Blankertz et al. 2011, Single-trial analysis and classification
    of ERP components.
    """

    cites = ("ledoit2004", "blankertz2011", "pedregosa2011")
    called = "Linear discriminant analysis with a shrunk covariance"
    takes_spec = True
    is_closed_form = True
    is_classifier = True

    def build(self, spec: SignalSpec, heads: Heads) -> "Discriminant":
        """Make the model, with weights of zero.

        Raises:
            RecipeError: if a head is no vector, or signals have too many features.
        """
        for name, head in heads.items():
            if len(head.shape) != 1:
                raise RecipeError(NO_LABEL.format(name), "encoders=[concepts]")
        n_features = max(spec.widths) * spec.samples
        if n_features > MAX_FEATURES:
            raise RecipeError(
                f"lda takes up to {MAX_FEATURES:,} numbers of a signal, not "
                f"{n_features:,}",
                "a region or window: signal.channels, signal.window_ms; or "
                "backbone.kind=ridge",
            )
        return Discriminant(spec, heads)


TINY = Config()


class Discriminant(nn.Module):
    """Linear classifiers of each subject and head, from F features to K categories.

    Attributes:
        maps: A Linear layer by the subject's number and by head.
    """

    def __init__(self, spec: SignalSpec, heads: Heads) -> None:
        super().__init__()
        self.heads = heads
        self.maps: Any = nn.ModuleDict()
        for subject, width in zip(spec.subjects, spec.widths, strict=True):
            n_features = width * spec.samples
            layers = nn.ModuleDict()
            for name, head in heads.items():
                layers[name] = nn.Linear(n_features, head.width)
            self.maps[str(subject)] = layers.requires_grad_(False)

    def forward(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> dict[str, Tensor]:
        """Score the categories of signals [B, C, T] of subjects [B], as [B, K] by head.

        Raises:
            BrainhiveError: for a subject that was not fitted.
        """
        maps = []
        for layers in self.maps.values():
            maps.append(partial(_score, list(layers.values())))
        scores = map_by_subject("lda", signal, subject_index, maps)
        return outputs.split_heads(scores, self.heads)

    def number_categories(self, targets: Mapping[str, Tensor]) -> dict[str, Int64]:
        """Convert one-hot labels [N, K] of signals into category numbers [N], by head.

        Raises:
            RecipeError: if a head is no label.
            BrainhiveError: if there is one category, or no signal more than categories.
        """
        numbers_of = {}
        for name, labels in targets.items():
            if (labels.count_nonzero(1) != 1).any():
                raise RecipeError(NO_LABEL.format(name), "encoders=[concepts]")
            numbers = labels.argmax(1).cpu().numpy()
            numbers_of[name] = numbers

            # limits of scikit-learn
            n_categories = len(np.unique(numbers))
            if n_categories == 1 or n_categories >= len(numbers):
                raise BrainhiveError(
                    f"lda is to tell {n_categories} categories apart by {len(numbers)} "
                    "training signals",
                    "more trials in training, of two categories or more",
                )
        return numbers_of

    @torch.no_grad()
    def fit(
        self, subject: int, signal: Tensor, targets: TargetReader, held_out: Tensor
    ) -> None:
        """Fit the classifiers of one subject.

        Args:
            subject: Number of the subject.
            signal: Training signals [N, C, T].
            targets: Reads the labels of a slice of the training signals.
            held_out: Without effect.

        Raises:
            RecipeError: if a head is no label.
            BrainhiveError: if there is one category, or no signal more than categories.
        """
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        # standardise the signals [N, F]
        exact = signal.flatten(1).cpu().double()
        scale = FeatureScaler.fit(exact)
        mean, spread = scale.mean.numpy(), scale.spread.numpy()
        flat = scale(exact).numpy()

        labels = targets(slice(0, len(flat)))
        for name, numbers in self.number_categories(labels).items():
            classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            classifier.fit(flat, numbers)
            weights = classifier.coef_
            offsets = classifier.intercept_
            # for two categories scikit-learn returns the difference of their scores
            if len(weights) == 1:
                weights = np.concatenate([-weights, weights]) / 2
                offsets = np.concatenate([-offsets, offsets]) / 2
            # apply to signals that are not standardised
            weights = weights / spread
            offsets = offsets - weights @ mean

            # categories without training signals get the lowest score
            linear = self.maps[str(subject)][name]
            linear.weight.zero_()
            linear.bias.fill_(float(offsets.min()) - 1e3)
            categories = classifier.classes_
            linear.weight[categories] = torch.from_numpy(weights).to(linear.weight)
            linear.bias[categories] = torch.from_numpy(offsets).to(linear.bias)


def _score(layers: Sequence[nn.Module], signal: Tensor) -> Tensor:
    """Return the scores of all heads in a row, for signals [B, C, T] of a subject."""
    flat = signal.flatten(1)
    scores = torch.cat([layer(flat) for layer in layers], 1)
    return scores.to(signal.dtype)
