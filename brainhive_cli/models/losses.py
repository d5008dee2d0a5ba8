"""Losses between the predictions of a brain model and their targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from brainhive_cli.core.base import BrainhiveError, draw_convex_weights
from brainhive_cli.core.recipes import parts, refuse_idle
from brainhive_cli.models.course import Course, value_at

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from brainhive_cli.models.loss_modules import ScaledLoss

EPSILON = 1e-6
"""Added to Dice's denominator for a batch without masks, and to the squared magnitude
of an edge to keep its gradient finite (as in kornia).
"""
Temperature = Annotated[
    PositiveFloat | Course | None,
    Field(
        description="Divisor of the cosines, in place of a scale: a number, or "
        "{from, to, epochs: [a, b], course: linear|cosine}, by default over the epochs "
        "in which the term is active."
    ),
]


@dataclass(frozen=True)
class Mixing:
    """Mixtures of each trial of a batch with a partner (mixup, arXiv 1710.09412).

    Attributes:
        partner: Row [B] of the partner of each trial, int64.
        share: Share [B] of the trial itself in its mixture, in [0, 1].
    """

    partner: Tensor
    share: Tensor

    @classmethod
    def draw(
        cls,
        n_trials: int,
        alpha: float,
        generator: torch.Generator,
        mixed_share: float = 1.0,
    ) -> Mixing:
        """Draw partners as a permutation, and shares from Beta(alpha, alpha).

        Args:
            n_trials: Number B of trials.
            alpha: Parameter of the beta distribution.
            generator: Random numbers. The tensors are on its device.
            mixed_share: Probability that a trial is mixed.
        """
        import torch

        device = generator.device
        partner = torch.randperm(n_trials, generator=generator, device=device)
        # weights [B, 2] of the trial and its partner
        members = torch.ones(n_trials, 2, dtype=torch.bool, device=device)
        share = draw_convex_weights(members, alpha, generator)[:, 0]  # [B]

        # leave some trials unmixed
        if mixed_share < 1:
            draws = torch.rand(n_trials, generator=generator, device=device)
            share = share.masked_fill(draws >= mixed_share, 1.0)
        return cls(partner, share)

    def repeat(self, n_items: int) -> Mixing:
        """Return the mixing of rows [B · n_items], with several items for each trial.

        Args:
            n_items: Number of items of a trial, which are mixed like the trial.
        """
        import torch

        # the items of trial b begin at row b · n_items
        offsets = torch.arange(n_items, device=self.partner.device)
        partner = (self.partner[:, None] * n_items + offsets).flatten()
        return Mixing(partner, self.share.repeat_interleave(n_items))

    def mix(self, values: Tensor) -> Tensor:
        """Mix values [B, ...]: share · values + (1 - share) · values[partner]."""
        import torch

        n_inner_axes = values.ndim - 1
        share = self.share.to(values.dtype).view(-1, *[1] * n_inner_axes)
        return torch.lerp(values[self.partner], values, share)


@dataclass(frozen=True)
class LossContext:
    """State of the training step, apart from predictions and targets.

    Attributes:
        mixing: Mixing of the signals of the batch, over all processes, or None.
        step: Number of completed steps of the training.
        epoch: Number of completed epochs of the training.
        epochs: Number of epochs of the training.
        targets: All targets [B, *shape] of the batch, keyed by name.
        steps: Number of steps of an epoch.
        stimuli: Number [B] of the stimulus of each row, over all processes. Rows of the
            same stimulus have the same number.
    """

    mixing: Mixing | None = None
    step: int = 0
    epoch: int = 0
    epochs: int = 1
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    steps: int = 1
    stimuli: Tensor | None = None


class LossConfig(parts.Config):
    """Base class of the Configs of losses.

    `build` makes a module that calls `compare`, which calls `measure`. A subclass
    overrides one of the three.
    """

    def build(self) -> nn.Module:
        """Build the loss module."""
        from brainhive_cli.models.loss_modules import LossModule

        return LossModule(self)

    def compare(
        self, predicted: Tensor, target: Tensor, context: LossContext
    ) -> Tensor:
        """Compute the loss, a scalar. Targets are mixed like the signals.

        Args:
            predicted: Predictions [B, ...].
            target: Targets [B, ...].
            context: State of the training step.

        Raises:
            BrainhiveError: if the shapes differ.
        """
        require_same_shape(predicted, target)
        if context.mixing is not None:
            target = context.mixing.mix(target)
        return self.measure(predicted, target)

    def measure(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compute the mean distance between predictions and targets, both [B, ...]."""
        raise NotImplementedError


class BceConfig(LossConfig):
    """Binary cross-entropy: mean over all values of a batch.

    Predictions are logits, and targets are between 0 and 1.
    """

    called = "binary cross-entropy"

    def measure(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compute the binary cross-entropy of logits [B, ...]."""
        import torch.nn.functional as F

        return F.binary_cross_entropy_with_logits(predicted, target)


class L1Config(LossConfig):
    """Mean absolute error of all values of a batch: outliers count less than in mse."""

    called = "the mean absolute error"

    def measure(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compute the mean absolute difference of values [B, ...]."""
        import torch.nn.functional as F

        return F.l1_loss(predicted, target)


class MseConfig(LossConfig):
    """Mean squared error of all values of a batch."""

    called = "the mean squared error"

    def measure(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compute the mean squared difference of values [B, ...]."""
        import torch.nn.functional as F

        return F.mse_loss(predicted, target)


class SobelConfig(LossConfig):
    """Sobel loss: a predicted picture or latent should have the edges of its target.

    Mean absolute difference between edge maps, as in MindEye1.
    """

    def measure(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compute the mean absolute difference of the edges of maps [B, C, H, W]."""
        import torch.nn.functional as F

        return F.l1_loss(compute_edges(predicted), compute_edges(target))


class DiceConfig(LossConfig):
    """Dice loss: a predicted mask should cover its target, and nothing else.

    1 - 2 |P T| / (|P| + |T|) of predicted probabilities P and targets T (V-Net, arXiv
    1606.04797). Areas are summed over the batch, as in NEURONS.
    """

    cites = ("milletari2016",)

    def measure(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compute the Dice loss of logits and masks of 0 and 1, both [B, ..., H, W]."""
        probabilities = predicted.sigmoid()
        overlap = (probabilities * target).sum()
        return 1 - 2 * overlap / (probabilities.sum() + target.sum() + EPSILON)


def require_same_shape(predicted: Tensor, target: Tensor) -> None:
    """Raise an error unless predictions and targets have the same shape [B, ...].

    Raises:
        BrainhiveError: if the shapes differ, or there is no axis after the batch.
    """
    if predicted.shape != target.shape or predicted.ndim < 2:
        raise BrainhiveError(
            f"predictions {list(predicted.shape)} and targets {list(target.shape)} "
            "are not pairs [B, ...]",
            "a head needs the shape of its target",
        )


def compute_edges(image: Tensor) -> Tensor:
    """Compute the magnitude of the Sobel gradient of each channel.

    Equal to `kornia.filters.sobel` 0.7.3: kernels are divided by 8, and borders are
    replicated.

    Args:
        image: Pictures or latents [B, C, H, W].

    Returns:
        Magnitudes [B, C, H, W].

    Raises:
        BrainhiveError: if the number of axes is not 4.
    """
    import torch
    import torch.nn.functional as F

    if image.ndim != 4:
        raise BrainhiveError(
            f"a Sobel loss takes [B, C, H, W], got {list(image.shape)}",
            "use the loss mse, or l1",
        )
    kernel = torch.tensor(
        [[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=image.device, dtype=image.dtype
    )
    kernel = kernel / 8
    kernels = torch.stack([kernel, kernel.T])[:, None]  # [2, 1, 3, 3]
    # a channel is a row of the batch, so that each is filtered by itself
    channels = image.flatten(0, 1)[:, None]
    padded = F.pad(channels, (1, 1, 1, 1), mode="replicate")  # [B·C, 1, H + 2, W + 2]
    magnitude = (F.conv2d(padded, kernels).square().sum(1) + EPSILON).sqrt()
    return magnitude.view(image.shape)


class MmdConfig(LossConfig):
    """Maximum mean discrepancy: predictions should be distributed like the targets.

    Pairs do not matter. The squared discrepancy under Gaussian kernels (Gretton et al.
    2012), as in SAMGA (arXiv 2604.17782).
    """

    cites = ("gretton2012", "jiang2026")
    called = "the maximum mean discrepancy"

    def compare(
        self, predicted: Tensor, target: Tensor, context: LossContext
    ) -> Tensor:
        """Compute the unbiased estimate of MMD². Negative estimates become 0.

        Args:
            predicted: Predictions [B, ...].
            target: Targets [B, ...].
            context: Without effect.

        Raises:
            BrainhiveError: if the shapes differ, or the batch has a single row.
        """
        require_same_shape(predicted, target)
        n_rows = len(predicted)
        if n_rows < 2:
            raise BrainhiveError(
                "mmd compares distributions, but the batch has one row",
                "use a larger batch",
            )
        predicted = predicted.flatten(1)
        target = target.flatten(1)

        # means over pairs of different rows of predictions, and of targets
        n_pairs = n_rows * (n_rows - 1)
        kernel = compute_mmd_kernel(predicted, predicted)
        predicted_mean = (kernel.sum() - kernel.trace()) / n_pairs
        kernel = compute_mmd_kernel(target, target)
        target_mean = (kernel.sum() - kernel.trace()) / n_pairs
        cross_mean = compute_mmd_kernel(predicted, target).mean()
        return (predicted_mean + target_mean - 2 * cross_mean).clamp(min=0)


def compute_mmd_kernel(a: Tensor, b: Tensor) -> Tensor:
    """Average the Gaussian kernels of MMD between all rows of two tensors.

    Args:
        a: Vectors [N, D].
        b: Vectors [M, D].

    Returns:
        Kernels [N, M].
    """
    import torch

    # |a - b|² = |a|² + |b|² - 2ab, which rounding can make negative; an offset that
    # both share would be most of the lengths
    centre = b.mean(0)
    a, b = a - centre, b - centre
    squared_lengths = a.square().sum(1)[:, None] + b.square().sum(1)
    squared_distances = (squared_lengths - 2 * a @ b.T).clamp(min=0)
    kernels = []
    # Standard deviations of the Gaussian kernels that MMD averages (SAMGA). Vectors
    # are not normalised.
    for std in (0.1, 0.2, 0.5, 1.0, 2.0):
        kernels.append((-squared_distances / (2 * std**2)).exp())
    return torch.stack(kernels).mean(0)


class CrossEntropyConfig(LossConfig):
    """Cross-entropy of token ids, such as captions: the predicted id should be right.

    Mean over all ids of a batch except padding, as in NEURONS.
    """

    called = "cross-entropy"

    def compare(
        self, predicted: Tensor, target: Tensor, context: LossContext
    ) -> Tensor:
        """Compute the mean cross-entropy. It is 0 if all ids are padding.

        Args:
            predicted: Logits [B, L, K] of K ids.
            target: Ids [B, L].
            context: State of the training step.

        Raises:
            BrainhiveError: if the shapes do not match, or signals are mixed.
        """
        import torch.nn.functional as F

        if predicted.shape[:-1] != target.shape:
            raise BrainhiveError(
                f"logits {list(predicted.shape)} do not match the ids "
                f"{list(target.shape)}",
                "use cross_entropy only for a head that predicts token ids, such as "
                "`caption` of the backbone neurons",
            )
        if context.mixing is not None:
            raise BrainhiveError(
                "signals are mixed, but ids cannot be mixed",
                "use no term with mix_alpha in these epochs",
            )

        ids = target.long()
        # Id that a cross-entropy ignores: the padding of captions.
        padding_id = 0
        total = F.cross_entropy(
            predicted.flatten(0, -2),
            ids.flatten(),
            ignore_index=padding_id,
            # Share of a cross-entropy's target that is spread over all ids (NEURONS).
            label_smoothing=0.1,
            reduction="sum",
        )
        return total / (ids != padding_id).sum().clamp(min=1)


class ScaledConfig(LossConfig):
    """Base class of contrastive losses, whose cosines are multiplied by a scale.

    A subclass has a method `contrast`, which computes the loss.
    """

    no_effect_with_temperature: ClassVar[tuple[str, ...]] = (
        "initial_logit_scale",
        "learn_scale",
    )

    initial_logit_scale: float = Field(
        2.6592,
        description=("Logarithm of the initial scale; ln(1 / 0.07) is CLIP's."),
    )
    learn_scale: bool = Field(
        True,
        description="If true, training changes the scale. False keeps a fixed "
        "temperature (0.04 in AlignVis, which is the initial logit scale 3.2189).",
    )
    temperature: Temperature = None

    def build(self) -> ScaledLoss:
        """Build the loss module."""
        from brainhive_cli.models.loss_modules import ScaledLoss

        return ScaledLoss(self)

    def compute_scale(self, parameter: Tensor) -> Tensor:
        """Return the scale of a learned parameter, which is its logarithm."""
        return parameter.exp()

    @model_validator(mode="after")
    def _check_temperature(self) -> Self:
        # cosines are divided by the temperature
        temperature = self.temperature
        if isinstance(temperature, Course) and 0 in (
            temperature.start,
            temperature.stop,
        ):
            raise ValueError("a temperature is above 0")
        if self.temperature is not None:
            refuse_idle(self, self.no_effect_with_temperature, "with a temperature")
        return self


class ClipConfig(ScaledConfig):
    """The contrastive loss of CLIP: predictions and targets should find each other.

    Symmetric cross-entropy of scaled cosine similarities (CLIP, arXiv 2103.00020).
    """

    cites: ClassVar[tuple[str, ...]] = ("radford2021",)
    called = "CLIP's contrastive loss"
    no_effect_with_temperature = (
        "initial_logit_scale",
        "learn_scale",
        "scale_by",
    )

    cosine_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of the added mean of 1 - cosine over the pairs. Retrieval "
        "needs only the right order, but a prior also depends on the position of the "
        "token. 0 in BrainHiVE.",
    )
    normalise_signal: bool = Field(
        True,
        description="If true, predictions are scaled to unit length, as targets always "
        "are. False in UBP, NeuroBridge and SAMGA. Retrieval always compares by "
        "cosines.",
    )
    scale_by: Literal["exp", "softplus", "itself"] = Field(
        "exp",
        description="Function from the learned parameter to the scale: exp, softplus "
        "(UBP), or itself, where ln(1 / 0.07) is the scale (ATM-S).",
    )
    positives: Literal["row", "stimulus"] = Field(
        "row",
        description="Right targets of a signal. row: only its own. stimulus: the "
        "targets of all signals of the batch with the same stimulus, such as signals "
        "of several subjects.",
    )

    directions: Literal["both", "to_target"] = Field(
        "both",
        exclude_if=lambda value: value == "both",  # older runs lack the key
        description="both: predictions find targets, and targets find predictions. "
        "to_target: only the first (NeuralBench).",
    )

    def build(self) -> ScaledLoss:
        """Build the loss module."""
        from brainhive_cli.models.loss_modules import ClipLoss

        return ClipLoss(self)

    def compute_scale(self, parameter: Tensor) -> Tensor:
        """Return the scale of a learned parameter."""
        import torch.nn.functional as F

        match self.scale_by:
            case "exp":
                return parameter.exp()
            case "softplus":
                return F.softplus(parameter)
        return parameter

    def compute_pair_cosines(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compute the cosine [B] of each prediction [B, ...] and its own target."""
        return compute_cosines(predicted, target, not self.normalise_signal).diagonal()

    def contrast(
        self,
        predicted: Tensor,
        target: Tensor,
        context: LossContext,
        scale: Tensor | float,
    ) -> Tensor:
        """Average the cross-entropies from predictions to targets and back.

        A mixed signal has two targets, weighted by their shares (MixCo; in both
        directions as in MindEye).

        Args:
            predicted: Predictions [B, ...].
            target: Targets [B, ...].
            context: State of the training step.
            scale: Factor of the cosines.

        Raises:
            BrainhiveError: if the shapes differ.
        """
        stimuli = context.stimuli if self.positives == "stimulus" else None
        cosine = compute_cosines(predicted, target, not self.normalise_signal)
        pairs = compute_pair_weights(context.mixing, cosine, stimuli)  # [B, B]

        # cross-entropies in both directions, and the distance of pairs
        logits = cosine * scale
        to_target = cross_entropy(logits, pairs, 1)
        to_prediction = cross_entropy(logits, pairs, 0)
        distance = 1 - (pairs * cosine).sum() / len(pairs)
        if self.directions == "both":
            to_target = (to_target + to_prediction) / 2
        return to_target + self.cosine_weight * distance


class MixcoConfig(ClipConfig):
    """MixCo: the loss of CLIP on mixed signals, which should find both their targets.

    Source: arXiv 2010.06300; for brain signals MindEye, arXiv 2305.18274.
    """

    cites = ("kim2020", "scotti2023")
    called = "the contrastive loss of mixed signals (MixCo)"

    mix_alpha: PositiveFloat = Field(
        0.15,
        description="Parameter of Beta(alpha, alpha), from which the shares of two "
        "mixed signals are drawn; 0.15 in MindEye, which mixes half of the signals.",
    )
    mix_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the signals that are mixed; 0.5 in MindEye.",
    )


class SoftClipConfig(ScaledConfig):
    """Soft CLIP: predictions should find targets by their similarity to the right one.

    The loss of CLIP with similarities among targets as labels (MindEye, arXiv
    2305.18274).
    """

    cites = ("scotti2023",)
    called = "the contrastive loss with soft labels (SoftCLIP)"

    temperature: Temperature = Field(
        None,
        description="Divisor of the cosines of predictions and of the cosines among "
        "targets, in place of a scale. In MindEye {from: 0.004, to: 0.0075, course: "
        "cosine}, over the epochs in which the term is active. Without it, the cosines "
        "among targets are divided by 0.0075.",
    )
    items: Literal["signals", "frames"] = Field(
        "signals",
        description="Compared items. signals: predictions [B, ...]. frames: the frames "
        "of predictions [B, F, ...] of the whole batch (NEURONS).",
    )

    def contrast(
        self,
        predicted: Tensor,
        target: Tensor,
        context: LossContext,
        scale: Tensor | float,
    ) -> Tensor:
        """Average the cross-entropies with soft labels, in both directions.

        The label of a mixed signal is mixed from the labels of both targets.

        Args:
            predicted: Predictions [B, ...], or [B, F, ...] of frames.
            target: Targets, in the shape of `predicted`.
            context: State of the training step.
            scale: Factor of the cosines of predictions.

        Raises:
            BrainhiveError: if the shapes differ.
        """
        # frames become items of the batch, [B · F, ...]
        mixing = context.mixing
        if self.items == "frames":
            if mixing is not None:
                mixing = mixing.repeat(predicted.shape[1])
            predicted = predicted.flatten(0, 1)
            target = target.flatten(0, 1)

        logits = compute_cosines(predicted, target) * scale  # [B, B]
        # Default divisor of the cosines among targets before the softmax that makes the
        # labels of soft CLIP: the final one of MindEye.
        temperature = self.temperature or 0.0075
        label_temperature = value_at(temperature, context.epoch)
        # without a gradient, or targets would become similar to make the labels easy
        fixed_target = target.detach()
        similarities = compute_cosines(fixed_target, fixed_target)
        labels = (similarities / label_temperature).softmax(1)
        to_target = cross_entropy(logits, mix_rows(labels, mixing), 1)
        to_prediction = cross_entropy(logits, mix_rows(labels.T, mixing), 0)
        return (to_target + to_prediction) / 2


class SoftContConfig(LossConfig):
    """Soft contrast of maps: positions should match an augmented picture's.

    The contrastive loss of MindEye1's low level (arXiv 2305.18274) on the maps of a
    picture encoder. Labels are the similarities between the positions of the picture
    and of the augmented picture.
    """

    cites = ("scotti2023",)

    temperature: PositiveFloat = Field(
        0.075,
        description=("Divisor of the cosines of predictions and labels; MindEye1's."),
    )
    augmented: str = Field(
        "",
        description=(
            "Name of the target of the augmented picture; by default the target itself."
        ),
    )

    def compare(
        self, predicted: Tensor, target: Tensor, context: LossContext
    ) -> Tensor:
        """Average the cross-entropies with soft labels, in both directions.

        Args:
            predicted: Predictions [B, D], or maps [B, S, D] of S positions.
            target: Targets, in the shape of `predicted`.
            context: State of the training step.

        Raises:
            BrainhiveError: if the shapes differ, or the augmented target is absent.
        """
        name = self.augmented
        if name and name not in context.targets:
            names = ", ".join(context.targets) or "none"
            raise BrainhiveError(
                f"soft_cont.augmented names the target {name!r}", f"there are: {names}"
            )
        augmented = context.targets[name] if name else target

        # each position of a map is an item [D]
        predicted_items = predicted.flatten(0, -2)
        target_items = target.flatten(0, -2)
        augmented_items = augmented.float().flatten(0, -2)
        mixing = context.mixing
        if mixing is not None:
            mixing = mixing.repeat(len(predicted_items) // len(predicted))

        logits = compute_cosines(predicted_items, augmented_items) / self.temperature
        similarities = compute_cosines(target_items.detach(), augmented_items.detach())
        similarities = similarities / self.temperature  # [B·S, B·S]
        labels = mix_rows(similarities.softmax(1), mixing)
        to_target = cross_entropy(logits, labels, 1)
        labels = mix_rows(similarities.softmax(0), mixing)
        to_prediction = cross_entropy(logits, labels, 0)
        return (to_target + to_prediction) / 2


def compute_cosines(
    predicted: Tensor, target: Tensor, with_length: bool = False
) -> Tensor:
    """Compute the cosines between all predictions and all targets.

    Args:
        predicted: Predictions [B, ...].
        target: Targets [B, ...].
        with_length: If True, cosines are multiplied by the lengths of the predictions.

    Returns:
        Cosines [B, B], with a row for each prediction.

    Raises:
        BrainhiveError: if the shapes differ.
    """
    import torch.nn.functional as F

    require_same_shape(predicted, target)
    predicted = predicted.flatten(1)
    target = target.flatten(1)
    vectors = predicted if with_length else F.normalize(predicted, dim=-1)
    cosine = vectors @ F.normalize(target, dim=-1).T
    # autocast lowers the precision of the product only
    return cosine.to(predicted.dtype)


def compute_pair_weights(
    mixing: Mixing | None, cosine: Tensor, stimuli: Tensor | None = None
) -> Tensor:
    """Compute the weight of each target for each signal of a batch.

    Args:
        mixing: Mixing of the signals, or None.
        cosine: Cosines [B, B], for the size, dtype and device.
        stimuli: Number [B] of the stimulus of each row. All rows of the same stimulus
            are then targets, with equal weights. None if a signal has only its own.

    Returns:
        Weights [B, B] with a row for each signal. The sum of a row is 1.
    """
    import torch

    if stimuli is None:
        weights = torch.eye(len(cosine), dtype=cosine.dtype, device=cosine.device)
    else:
        is_same = (stimuli[:, None] == stimuli).to(cosine.dtype)  # [B, B]
        weights = is_same / is_same.sum(1, keepdim=True)
    return mix_rows(weights, mixing)


def mix_rows(weights: Tensor, mixing: Mixing | None) -> Tensor:
    """Mix the target weights [B, B] of each signal as the signals were mixed."""
    return weights if mixing is None else mixing.mix(weights)


def cross_entropy(logits: Tensor, weights: Tensor, dim: int) -> Tensor:
    """Compute the cross-entropy of the softmax over `dim`, divided by the batch size.

    Args:
        logits: Logits [B, B].
        weights: Target weights [B, B].
        dim: Dimension of the candidates.
    """
    return -(weights * logits.log_softmax(dim)).sum() / len(logits)


TINY = {
    "bce": BceConfig(),
    "clip": ClipConfig(),
    "cross-entropy": CrossEntropyConfig(),
    "dice": DiceConfig(),
    "l1": L1Config(),
    "mixco": MixcoConfig(),
    "mmd": MmdConfig(),
    "mse": MseConfig(),
    "sobel": SobelConfig(),
    "soft-clip": SoftClipConfig(),
    "soft-cont": SoftContConfig(),
}
"""Losses by kind, each small enough for tests."""
