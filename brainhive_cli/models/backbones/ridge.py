"""Ridge regression from a subject's signals to every head, fitted in closed form."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core.base import BrainhiveError, RecipeError, count_free_bytes
from brainhive_cli.measurement import (
    Components,
    OutputSums,
    choose_penalty,
    count_fit_bytes,
    shrink,
)
from brainhive_cli.models import Heads, SignalSpec, heads as outputs
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import map_by_subject

MAX_TARGET_NUMBERS = 1 << 26
"""Largest number of target values in memory at once."""
TargetReader = Callable[[slice], dict[str, Tensor]]
"""Function that returns the targets [n, *shape], by head, of a slice of the signals."""


class Config(BackboneConfig):
    """Settings of Brain-Diffuser's ridge regression (arXiv 2303.05334).

    Each subject and head has a ridge from signals to targets of any shape. Only the
    key `validation` of `train` has an effect.
    """

    cites = ("hoerl1970",)
    called = "Ridge regression for each subject"
    takes_spec = True
    is_closed_form = True

    alpha: float | dict[str, float] | Literal["auto"] = Field(
        60_000.0,
        description="Penalty of the squared weights as in scikit-learn, or a penalty "
        "for each head. auto chooses each by generalised cross-validation. "
        "Brain-Diffuser takes 60000 for image and 100000 for text tokens, of z-scored "
        "voxels.",
    )
    components: int | None = Field(
        None,
        gt=0,
        le=2**20,
        description="Number of principal components of the training signals. The ridge "
        "is exact if this is at least the number of training signals. Fewer components "
        "of more than 5,000 signals of more than 5,000 numbers are approximated by a "
        "randomised SVD. Default: all, with weights [V, outputs] instead of "
        "[components, outputs].",
    )
    standardise: bool = Field(
        True,
        description="If true, scale each output so that its predictions have the "
        "standard deviation of its target. The deviation is measured on held-out "
        "stimuli if there are any, else on training stimuli. Brain-Diffuser takes the "
        "test pictures.",
    )

    def citations(self) -> tuple[str, ...]:
        """List the papers of the ridge, and of the options in use."""
        papers = list(self.cites)
        if self.alpha == "auto":
            papers.append("golub1979")
        if self.standardise:
            papers.append("ozcelik2023")
        return tuple(papers)

    def build(self, spec: SignalSpec, heads: Heads) -> "Ridge":
        """Make the model, with weights of zero.

        Raises:
            RecipeError: if `alpha` names other heads, or is not positive.
        """
        if self.alpha == "auto":
            return Ridge(self, {}, spec, heads)
        if isinstance(self.alpha, dict):
            alpha = self.alpha
        else:
            alpha = dict.fromkeys(heads, self.alpha)
        if alpha.keys() != heads.keys() or min(alpha.values()) <= 0:
            raise RecipeError(
                f"backbone.alpha is {alpha}, and needs to be above 0 for each head",
                f"heads: {', '.join(heads)}",
            )
        return Ridge(self, alpha, spec, heads)


TINY = Config(alpha=1.0)
"""Default settings, as the ridge has no size of its own."""


class Ridge(nn.Module):
    """Ridges of all subjects.

    Args:
        config: Settings.
        alpha: Penalty by head. The penalties of other heads are chosen by
            cross-validation.
        spec: Signals.
        heads: Heads.

    Attributes:
        maps: A `RidgeMap` for each subject, by the subject's number.
    """

    def __init__(
        self, config: Config, alpha: dict[str, float], spec: SignalSpec, heads: Heads
    ) -> None:
        super().__init__()
        self.heads = heads
        self.alpha = alpha
        self.standardise = config.standardise
        self.maps: Any = nn.ModuleDict()
        for subject, width in zip(spec.subjects, spec.widths, strict=True):
            self.maps[str(subject)] = RidgeMap(
                width * spec.samples, config.components, heads
            )

    def forward(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> dict[str, Tensor]:
        """Predict every head, [B, *shape], from signals [B, C, T] of subjects [B].

        Raises:
            BrainhiveError: for a subject that was not fitted.
        """
        maps = list(self.maps.values())
        predicted = map_by_subject("ridge", signal, subject_index, maps)
        return outputs.split_heads(predicted.to(signal.dtype), self.heads)

    @torch.no_grad()
    def fit(
        self, subject: int, signal: Tensor, targets: TargetReader, held_out: Tensor
    ) -> None:
        """Fit the map of one subject, in one pass over the targets.

        Args:
            subject: Number of the subject.
            signal: Training signals [N, C, T].
            targets: Reads the targets of a slice of the training signals.
            held_out: Signals [M, C, T] whose predictions give the standard deviation of
                the outputs. If M < 2, the training signals do.

        Raises:
            BrainhiveError: if the fit needs more memory than is free.
        """
        n_signals = len(signal)
        width = signal[0].numel()
        ridge: RidgeMap = self.maps[str(subject)]
        needed_gb = count_fit_bytes(n_signals, width, ridge.count) / 1e9
        free_gb = count_free_bytes(signal.device) / 1e9
        if needed_gb > free_gb:
            raise BrainhiveError(
                f"a ridge on {n_signals:,} signals of {width:,} numbers takes "
                f"{needed_gb:.1f} GB of memory, and {free_gb:.1f} GB are free",
                "fewer backbone.components, signal.channels or a shorter "
                "signal.window_ms",
            )

        # project the signals to components, and the targets to these, block by block
        components = Components.fit(signal.flatten(1), ridge.count)
        ridge.mean.copy_(components.mean)
        basis = components.basis.to(ridge.mean)
        rank = len(components.singular)
        sums = {}
        for name, weight in ridge.weight.items():
            sums[name] = OutputSums(components.scores, weight[:rank])
        n_outputs = sum(head.width for head in self.heads.values())
        block_size = max(1, MAX_TARGET_NUMBERS // n_outputs)
        for start in range(0, n_signals, block_size):
            rows = slice(start, min(start + block_size, n_signals))
            for name, target in targets(rows).items():
                sums[name].add(target.flatten(1).float())

        # shrink the weights [K, outputs] of each head by its penalty
        singular = components.singular
        if len(held_out) > 1:
            held_out_scores = (held_out.flatten(1).to(basis) - ridge.mean) @ basis
        for name, output_sums in sums.items():
            weight = output_sums.rotated
            alpha = self.alpha.get(name)
            if alpha is None:
                alpha = choose_penalty(
                    singular,
                    weight,
                    output_sums.squares,
                    freedom=max(1, n_signals - 1),  # centring takes one degree
                    n_features=width,
                )
            weight *= shrink(singular, alpha)[:, None]
            ridge.bias[name].copy_(output_sums.mean)

            # scale the predictions to the standard deviation of the targets
            if self.standardise:
                if len(held_out) > 1:
                    spread = (held_out_scores @ weight).std(0, correction=0)
                else:
                    # the scores are orthonormal, so the weights give the variance
                    scaled_weight = singular[:, None].to(weight) * weight
                    spread = scaled_weight.square().sum(0).div(n_signals).sqrt()
                target_spread = output_sums.squares.div(n_signals).sqrt()
                # constant outputs stay constant
                weight *= torch.where(spread > 0, target_spread / spread, 1)

        # store the basis, or weights [V, outputs]
        if ridge.is_reduced:
            ridge.basis[:, :rank] = basis
        else:
            for weight in ridge.weight.values():
                weight.copy_(basis @ weight[:rank])


class RidgeMap(nn.Module):
    """Linear map of one subject, from centred signals to components to all heads.

    Args:
        width: Number V of values per signal.
        components: Number K of components, or None for weights [V, outputs] without
            components.
        heads: Heads.
    """

    def __init__(self, width: int, components: int | None, heads: Heads) -> None:
        super().__init__()
        self.count = min(components or width, width)
        self.mean = nn.Parameter(torch.zeros(width))
        self.is_reduced = components is not None
        if self.is_reduced:
            self.basis = nn.Parameter(torch.zeros(width, self.count))

        weights = {}
        biases = {}
        for name, head in heads.items():
            weights[name] = torch.zeros(self.count, head.width)
            biases[name] = torch.zeros(head.width)
        self.weight = nn.ParameterDict(weights)
        self.bias = nn.ParameterDict(biases)
        self.names = list(heads)  # ParameterDict sorts its keys
        self.requires_grad_(False)

    def forward(self, signal: Tensor) -> Tensor:
        """Map signals [B, C, T] to the outputs [B, outputs] of all heads in a row."""
        features = signal.flatten(1).to(self.mean) - self.mean
        if self.is_reduced:
            features = features @ self.basis
        predictions = []
        for name in self.names:
            predictions.append(features @ self.weight[name] + self.bias[name])
        return torch.cat(predictions, 1)
