"""Losses: how far predictions are from their targets, as scalars that training
lowers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, create_model, model_validator

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.sections import refuse_idle
from brainhive_cli.core.seeds import draw_convex_weights
from brainhive_cli.models.course import Course, value_at

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from brainhive_cli.models.loss_modules import ScaledLoss

EPSILON = 1e-6
"""In Dice's denominator, for a batch without any mask; under the root of an edge's
magnitude, so that its gradient is finite (kornia's).
"""
MMD_KERNEL_STDS = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Standard deviations of the kernels that MMD averages, in units of vectors, which keep
their length; SAMGA's.
"""
SOFT_LABEL_TEMPERATURE = 0.0075
"""Soft CLIP divides cosines among the targets by it before their softmax is the label;
MindEye's last.
"""
LABEL_SMOOTHING = 0.1
"""Share of a cross-entropy's target that all ids have in common; NEURONS'."""
PADDING_ID = 0
"""Id that a cross-entropy passes over: the padding of captions."""
Temperature = Annotated[
    PositiveFloat | Course | None,
    Field(
        description="What cosines are divided by, instead of a scale: a number, or "
        "{from, to, epochs: [a, b], course: linear|cosine}, by default "
        "over the epochs in which the term is active."
    ),
]


@dataclass(frozen=True)
class Mixing:
    """Each trial of a batch mixed with a partner from the same batch (mixup, arXiv
    1710.09412).

    Attributes:
        partner: [B] int64, the row each trial is mixed with.
        share: [B] in [0, 1], how much of the mixture is the trial itself.
    """

    partner: Tensor
    share: Tensor

    @classmethod
    def draw(
        cls, count: int, alpha: float, generator: torch.Generator, mixed: float = 1.0
    ) -> Mixing:
        """Draw partners as a permutation of `count` trials, and shares from Beta(alpha,
        alpha).

        A share `mixed` of the trials is mixed, each by chance; the others stay as they
        are. Everything lies on the generator's device.
        """
        import torch

        # a partner for each trial, and weights of the trial and its partner
        partner = torch.randperm(count, generator=generator, device=generator.device)
        # [B, 2]
        members = torch.ones(count, 2, dtype=torch.bool, device=generator.device)
        share = draw_convex_weights(members, alpha, generator)[:, 0]  # [B]

        # leave some trials as they are
        if mixed < 1:
            drawn = torch.rand(count, generator=generator, device=generator.device)
            share = share.masked_fill(drawn >= mixed, 1.0)
        return cls(partner, share)

    def repeat(self, items: int) -> Mixing:
        """Give the mixing of [B · items], where each trial has several items that are
        mixed as it is.
        """
        import torch

        # items of trial b are the rows from b · items on
        index = torch.arange(items, device=self.partner.device)
        partner = (self.partner[:, None] * items + index).flatten()  # [B · items]
        return Mixing(partner, self.share.repeat_interleave(items))

    def mix(self, values: Tensor) -> Tensor:
        """Mix [B, ...]: share · values + (1 - share) · values[partner]."""
        import torch

        # [B, 1, ...]
        share = self.share.to(values.dtype).view(-1, *[1] * (values.ndim - 1))
        return torch.lerp(values[self.partner], values, share)


@dataclass(frozen=True)
class LossContext:
    """Facts of the training step that a loss knows, apart from predictions and targets.

    Attributes:
        mixing: How the signals of the whole batch, over all processes, were mixed; None
            if they were not.
        step: Steps of the training that are done.
        epoch: Epochs of the training that are done.
        epochs: Epochs of the whole training.
        targets: All targets of the batch, [B, *shape] by name, for losses that compare
            with several.
        steps: Steps of an epoch.
        stimuli: [B] number of the stimulus of each row, over all processes; equal ones
            are one stimulus.
    """

    mixing: Mixing | None = None
    step: int = 0
    epoch: int = 0
    epochs: int = 1
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    steps: int = 1
    stimuli: Tensor | None = None


class LossConfig(parts.Config):
    """Base of losses' Configs; by default the loss is what `compare` returns: the
    distance by `measure`.
    """

    def build(self) -> nn.Module:
        """Make the loss."""
        from brainhive_cli.models.loss_modules import LossModule

        return LossModule(self)

    def compare(
        self, predicted: Tensor, target: Tensor, context: LossContext
    ) -> Tensor:
        """Compare predictions with targets, both [B, ...], as a scalar; those of mixed
        signals are mixed.

        Raises:
            BrainhiveError: if they cannot be compared.
        """
        refuse_other_shape(predicted, target)
        return self.measure(
            predicted, target if context.mixing is None else context.mixing.mix(target)
        )

    def measure(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Measure the mean distance of predictions from targets, both [B, ...]."""
        raise NotImplementedError


class SobelConfig(LossConfig):
    """Sobel loss: a predicted picture or latent should have the edges of its target.

    Mean absolute difference of edge maps (Sobel), over all values of a batch, as in
    MindEye1.
    """

    def measure(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Measure the distance of the edges of pictures or latents, both [B, C, H,
        W].
        """
        import torch.nn.functional as F

        return F.l1_loss(compute_edges(predicted), compute_edges(target))


class DiceConfig(LossConfig):
    """Dice loss: a predicted mask should cover its target, and nothing else.

    1 - 2 |P T| / (|P| + |T|) of the probabilities of logits P and targets T (V-Net,
    arXiv 1606.04797). Areas are summed over the whole batch, as in NEURONS.
    """

    cites = ("milletari2016",)

    def measure(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compute Dice loss of logits and masks of 0 and 1, both [B, ..., H, W]."""
        share = predicted.sigmoid()
        overlap = (share * target).sum()
        return 1 - 2 * overlap / (share.sum() + target.sum() + EPSILON)


def refuse_other_shape(predicted: Tensor, target: Tensor) -> None:
    """Refuse predictions that are not of their targets' shape, or have no other axis
    than the batch.

    Raises:
        BrainhiveError: naming both shapes.
    """
    if predicted.shape != target.shape or predicted.ndim < 2:
        raise BrainhiveError(
            f"predictions {list(predicted.shape)} and targets {list(target.shape)} "
            "are not pairs [B, ...]",
            "a head needs the shape of its target",
        )


def compute_edges(image: Tensor) -> Tensor:
    """Compute the magnitude of the Sobel gradient of [B, C, H, W], each channel by
    itself.

    Kernels are divided by 8, borders are replicated: equal to `kornia.filters.sobel`
    0.7.3.

    Raises:
        BrainhiveError: if it has another number of axes.
    """
    import torch
    import torch.nn.functional as F

    if image.ndim != 4:
        raise BrainhiveError(
            f"a Sobel loss takes [B, C, H, W], got {list(image.shape)}",
            "use the loss mse, or l1",
        )
    across = (
        torch.tensor(
            [[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]],
            device=image.device,
            dtype=image.dtype,
        )
        / 8
    )
    kernels = torch.stack([across, across.T])[:, None]  # [2, 1, 3, 3]
    # channels become rows of the batch, so that each is filtered by itself
    # [B·C, 1, H + 2, W + 2]
    padded = F.pad(image.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    magnitude = (F.conv2d(padded, kernels).square().sum(1) + EPSILON).sqrt()
    return magnitude.view(image.shape)


class MmdConfig(LossConfig):
    """Maximum mean discrepancy: predictions should be distributed as targets are,
    whichever belongs to which.

    The squared discrepancy under Gaussian kernels (Gretton et al. 2012), as SAMGA's
    (arXiv 2604.17782).
    """

    cites = ("gretton2012", "jiang2026")

    def compare(
        self, predicted: Tensor, target: Tensor, context: LossContext
    ) -> Tensor:
        """Estimate MMD² of predictions and targets, both [B, ...], without bias; 0
        where that is negative.

        Raises:
            BrainhiveError: if their shapes differ, or there is one row.
        """
        import torch

        refuse_other_shape(predicted, target)
        count = len(predicted)
        if count < 2:
            raise BrainhiveError(
                "mmd compares distributions, and the batch has one row",
                "a larger batch",
            )
        predicted = predicted.flatten(1)
        target = target.flatten(1)

        def kernel(one: Tensor, other: Tensor) -> Tensor:
            """Average the kernels of all pairs of rows [B, D]: [B, B]."""
            # |a - b|² = |a|² + |b|² - 2ab, which rounding can make negative
            lengths = one.square().sum(1)[:, None] + other.square().sum(1)
            squared = (lengths - 2 * one @ other.T).clamp(min=0)
            return torch.stack(
                [(-squared / (2 * width**2)).exp() for width in MMD_KERNEL_STDS]
            ).mean(0)

        # means over pairs of different rows within each side, less the mean between the
        # sides
        within = (kernel(rows, rows) for rows in (predicted, target))
        apart = sum(
            (pairs.sum() - pairs.trace()) / (count * (count - 1)) for pairs in within
        )
        return (apart - 2 * kernel(predicted, target).mean()).clamp(min=0)


def compare_ids(predicted: Tensor, target: Tensor, context: LossContext) -> Tensor:
    """Compare logits [B, L, K] with ids [B, L], as a scalar; 0 where all ids are
    padding.

    Raises:
        BrainhiveError: if they are not pairs, or signals are mixed.
    """
    import torch.nn.functional as F

    if predicted.shape[:-1] != target.shape:
        raise BrainhiveError(
            f"logits {list(predicted.shape)} are not one for each of the ids "
            f"{list(target.shape)}",
            "cross_entropy is for a head that writes token ids, as `caption` of "
            "the backbone neurons",
        )
    if context.mixing is not None:
        raise BrainhiveError(
            "ids cannot be mixed as signals are",
            "no term with mix_alpha in these epochs",
        )

    # mean over ids that are no padding
    ids = target.long()
    total = F.cross_entropy(
        predicted.flatten(0, -2),
        ids.flatten(),
        ignore_index=PADDING_ID,
        label_smoothing=LABEL_SMOOTHING,
        reduction="sum",
    )
    return total / (ids != PADDING_ID).sum().clamp(min=1)


class ScaledConfig(LossConfig):
    """The keys of a contrastive loss whose cosines are multiplied by a scale; its
    `contrast` is the loss.
    """

    no_effect_with_temperature: ClassVar[tuple[str, ...]] = (
        "initial_logit_scale",
        "learn_scale",
    )

    initial_logit_scale: float = Field(
        2.6592,
        description=(
            "Logarithm of the scale that training starts from: ln(1 / 0.07); CLIP's."
        ),
    )
    learn_scale: bool = Field(
        True,
        description="Whether training changes the scale. False keeps it: a fixed "
        "temperature (AlignVis has 0.04, the initial logit scale 3.2189).",
    )
    temperature: Temperature = None

    def build(self) -> ScaledLoss:
        """Make the loss."""
        from brainhive_cli.models.loss_modules import ScaledLoss

        return ScaledLoss(self)

    def compute_scale(self, parameter: Tensor) -> Tensor:
        """Return the scale by the parameter that training changes: its logarithm."""
        return parameter.exp()

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        # cosines are divided by it, so that neither end may be 0
        if isinstance(self.temperature, Course) and not (
            self.temperature.start and self.temperature.stop
        ):
            raise ValueError("a temperature is above 0")
        if self.temperature is not None:
            refuse_idle(self, self.no_effect_with_temperature, "with a temperature")
        return self


class ClipConfig(ScaledConfig):
    """The contrastive loss of CLIP: each prediction should find its target, each target
    its prediction.

    Symmetric cross-entropy of scaled cosine similarities (CLIP, arXiv 2103.00020).
    """

    cites: ClassVar[tuple[str, ...]] = ("radford2021",)
    no_effect_with_temperature = (*ScaledConfig.no_effect_with_temperature, "scale_by")

    cosine_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of 1 - cosine of each pair, which is added: retrieval "
        "needs only the right order, but a prior samples from where a "
        "token lies. BrainHiVE has none.",
    )
    hard_negative_beta: float = Field(
        0.0,
        ge=0,
        description="Wrong candidates weigh more the more similar they are: by "
        "exp(beta · logit), with mean 1 (beta of Robinson et al., arXiv "
        "2010.04592; both ways as in arXiv 2301.02280). 0: all the same. A "
        "picture that is twice in a batch counts as wrong too.",
    )
    normalise_signal: bool = Field(
        True,
        description="Whether predictions are brought to unit length, as targets are; "
        "UBP, NeuroBridge and SAMGA leave theirs as they are. Retrieval "
        "compares by cosines either way.",
    )
    scale_by: Literal["exp", "softplus", "itself"] = Field(
        "exp",
        description="What makes the scale of its logarithm, or of the parameter "
        "itself: softplus (UBP), or itself, so that ln(1 / 0.07) is the "
        "scale (ATM-S).",
    )
    positives: Literal["row", "stimulus"] = Field(
        "row",
        description="stimulus: all signals of a batch that were shown one stimulus are "
        "pairs, as those of several subjects; row: each has its own target "
        "alone, and the others' count as wrong.",
    )

    directions: Literal["both", "to_target"] = Field(
        "both",
        exclude_if=lambda value: value == "both",  # older runs do not name it
        description="Which searches are learned: of a prediction's target, and of a "
        "target's prediction; or the first alone (NeuralBench).",
    )

    def build(self) -> ScaledLoss:
        """Make the loss."""
        from brainhive_cli.models.loss_modules import ClipLoss

        return ClipLoss(self)

    def compute_scale(self, parameter: Tensor) -> Tensor:
        """Return the scale by the parameter that training changes."""
        import torch.nn.functional as F

        if self.scale_by == "exp":
            return super().compute_scale(parameter)
        return F.softplus(parameter) if self.scale_by == "softplus" else parameter

    def compute_pair_cosines(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compare each prediction [B, ...] with its own target: [B]."""
        return compute_cosines(predicted, target, not self.normalise_signal).diagonal()

    def contrast(
        self,
        predicted: Tensor,
        target: Tensor,
        context: LossContext,
        scale: Tensor | float,
    ) -> Tensor:
        """Average the cross-entropies of predictions and targets, pairs [B, ...], in
        both directions.

        A mixed signal is the pair of two targets, by their shares (MixCo; both ways as
        in MindEye).

        Raises:
            BrainhiveError: if they are not pairs.
        """
        # which targets belong to a prediction: its row's, or all of its stimulus
        stimuli = context.stimuli if self.positives == "stimulus" else None
        cosine = compute_cosines(predicted, target, not self.normalise_signal)  # [B, B]
        pairs = compute_pair_weights(context.mixing, cosine, stimuli)  # [B, B]

        # cross-entropies in both directions, and the distance of pairs
        logits = cosine * scale
        beta = self.hard_negative_beta
        to_target, to_prediction = (
            cross_entropy(
                weigh_hard_negatives(logits, pairs == 0, beta, dim), pairs, dim
            )
            for dim in (1, 0)
        )
        distance = 1 - (pairs * cosine).sum() / len(pairs)
        if self.directions == "both":
            to_target = (to_target + to_prediction) / 2
        return to_target + self.cosine_weight * distance


class MixcoConfig(ClipConfig):
    """MixCo: the contrastive loss on signals mixed in pairs, each of which should find
    both its targets.

    CLIP's loss with mixed signals (arXiv 2010.06300, for brain signals in MindEye,
    arXiv 2305.18274).
    """

    cites = ("kim2020", "scotti2023")

    mix_alpha: PositiveFloat = Field(
        0.15,
        description="Signals are mixed in pairs, with shares from Beta(alpha, alpha); "
        "MindEye's, which leaves half of them unmixed.",
    )
    mix_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the signals that are mixed; MindEye's is 0.5.",
    )


class SoftClipConfig(ScaledConfig):
    """Soft CLIP: each prediction should find its target, and other targets by how
    similar they are to it.

    CLIP's loss with the similarities among the targets as labels (MindEye, arXiv
    2305.18274).
    """

    cites = ("scotti2023",)

    temperature: Temperature = Field(
        None,
        description="What cosines of predictions and those among the targets are "
        "divided by, instead of a scale: MindEye's is {from: 0.004, to: 0.0075, "
        "course: cosine}, over the epochs in which the term is active. Without it, "
        "those among the targets are divided by 0.0075.",
    )
    items: Literal["signals", "frames"] = Field(
        "signals",
        description="frames: each frame of predictions [B, F, ...] is an item of its "
        "own, compared with those of the whole batch (NEURONS)",
    )

    def contrast(
        self,
        predicted: Tensor,
        target: Tensor,
        context: LossContext,
        scale: Tensor | float,
    ) -> Tensor:
        """Average the cross-entropies with soft labels of predictions and targets [B,
        ...], both ways.

        The label of a mixed signal is mixed from those of two targets.

        Raises:
            BrainhiveError: if they are not pairs [B, ...], or [B, F, ...] of frames.
        """
        # frames [B, F, ...] become items of the batch, [B · F, ...]
        mixing = context.mixing
        if self.items == "frames":
            mixing = None if mixing is None else mixing.repeat(predicted.shape[1])
            predicted = predicted.flatten(0, 1)
            target = target.flatten(0, 1)

        # compare the similarities of predictions and targets with those among the
        # targets
        logits = compute_cosines(predicted, target) * scale  # [B, B]
        softness = value_at(self.temperature or SOFT_LABEL_TEMPERATURE, context.epoch)
        # or targets would become similar so that the labels are easy
        fixed = target.detach()
        labels = (compute_cosines(fixed, fixed) / softness).softmax(1)
        to_target = cross_entropy(logits, mix_rows(labels, mixing), 1)
        to_prediction = cross_entropy(logits, mix_rows(labels.T, mixing), 0)
        return (to_target + to_prediction) / 2


class SoftContConfig(LossConfig):
    """Soft contrast of maps: each position of a predicted map should match those of an
    augmented picture's.

    The contrastive loss of MindEye1's low level (arXiv 2305.18274), on the maps of a
    picture encoder. Its labels are the similarities of the picture's positions and
    those of the augmented picture.
    """

    cites = ("scotti2023",)

    temperature: PositiveFloat = Field(
        0.075,
        description=(
            "What cosines are divided by, of predictions and of labels; MindEye1's."
        ),
    )
    augmented: str = Field(
        "",
        description=(
            "Target of the augmented picture, by its name; default: the picture's own."
        ),
    )

    def compare(
        self, predicted: Tensor, target: Tensor, context: LossContext
    ) -> Tensor:
        """Compare predictions [B, D], or maps [B, S, D] position by position, with
        targets, as a scalar.

        It is the mean of the cross-entropies with soft labels in both directions.

        Raises:
            BrainhiveError: if they are not pairs, or there is no such target.
        """
        # the augmented picture's target, by default the picture's own
        name = self.augmented
        if name and name not in context.targets:
            there = ", ".join(context.targets) or "none"
            raise BrainhiveError(
                f"soft_cont.augmented names the target {name!r}", f"there are: {there}"
            )
        augmented = context.targets[name] if name else target

        # every position of a map is an item, [B·S, D]
        items, pictures, views = (
            maps.flatten(0, -2) for maps in (predicted, target, augmented.float())
        )
        mixing = context.mixing and context.mixing.repeat(len(items) // len(predicted))

        # labels are the similarities of the picture's positions and the augmented
        # picture's [B·S, B·S], a prediction a row
        logits = compute_cosines(items, views) / self.temperature
        # a picture a row
        labels = compute_cosines(pictures.detach(), views.detach()) / self.temperature
        to_target = cross_entropy(logits, mix_rows(labels.softmax(1), mixing), 1)
        to_prediction = cross_entropy(logits, mix_rows(labels.softmax(0), mixing), 0)
        return (to_target + to_prediction) / 2


def compute_cosines(
    predicted: Tensor, target: Tensor, with_length: bool = False
) -> Tensor:
    """Compare every prediction with every target, both [B, ...]: [B, B], a prediction a
    row.

    With `with_length` predictions keep their length, and cosines are multiplied by it.

    Raises:
        BrainhiveError: if predictions and targets are not pairs.
    """
    import torch.nn.functional as F

    refuse_other_shape(predicted, target)
    predicted = predicted.flatten(1)
    target = target.flatten(1)
    direction = predicted if with_length else F.normalize(predicted, dim=-1)
    cosine = direction @ F.normalize(target, dim=-1).T
    # under autocast only the product is of less precision
    return cosine.to(predicted.dtype)


def compute_pair_weights(
    mixing: Mixing | None, cosine: Tensor, stimuli: Tensor | None = None
) -> Tensor:
    """Return how much of each target each signal of the batch holds: [B, B], rows sum
    to 1.

    With `stimuli` [B] all rows of a signal's stimulus are its targets, in equal shares.
    """
    import torch

    if stimuli is None:
        return mix_rows(
            torch.eye(len(cosine), dtype=cosine.dtype, device=cosine.device), mixing
        )
    is_same = (stimuli[:, None] == stimuli).to(cosine.dtype)  # [B, B]
    return mix_rows(is_same / is_same.sum(1, keepdim=True), mixing)


def mix_rows(weights: Tensor, mixing: Mixing | None) -> Tensor:
    """Mix the target weights of each signal, the rows [B, B], as the signals were
    mixed.
    """
    return weights if mixing is None else mixing.mix(weights)


def cross_entropy(logits: Tensor, weights: Tensor, dim: int) -> Tensor:
    """Compare the softmax over `dim` with target weights, both [B, B]: the sum over
    all, divided by B.
    """
    return -(weights * logits.log_softmax(dim)).sum() / len(logits)


def weigh_hard_negatives(
    logits: Tensor, is_wrong: Tensor, hard_negative_beta: float, dim: int
) -> Tensor:
    """Weigh the wrong candidates along `dim` by exp(beta · logit), with mean 1; all [B,
    B].

    A softmax over the result is the one in which each wrong candidate counts as often
    as it weighs.
    """
    import torch

    if not hard_negative_beta:
        return logits
    # pairs are masked, so that weights are normalised over wrong candidates
    similar = (hard_negative_beta * logits).masked_fill(
        ~is_wrong, torch.finfo(logits.dtype).min
    )
    log_weights = (
        similar
        - similar.logsumexp(dim, keepdim=True)
        + is_wrong.sum(dim, keepdim=True).log()
    )
    return torch.where(is_wrong, logits + log_weights, logits)


def _measure_by_torch(name: str, predicted: Tensor, target: Tensor) -> Tensor:
    """Measure a distance by the function of torch that has this name."""
    import torch.nn.functional as F

    distance: Callable[..., Tensor] = getattr(F, name)
    return distance(predicted, target)


def _make_keyless(about: str, **methods: Callable[..., Tensor]) -> LossConfig:
    """Make the TINY of a loss that has no keys: its Config's description, and `measure`
    or `compare`.
    """
    config = create_model(
        "Config", __base__=LossConfig, __module__=__name__, __doc__=about
    )
    for name, method in methods.items():
        setattr(config, name, staticmethod(method))
    return config()


TINY = {
    "bce": _make_keyless(
        "Binary cross-entropy: mean over all values of a batch, each a logit, with "
        "targets between 0 and 1.",
        measure=partial(_measure_by_torch, "binary_cross_entropy_with_logits"),
    ),
    "clip": ClipConfig(),
    "cross-entropy": _make_keyless(
        "Cross-entropy of token ids: each predicted distribution should have its "
        "target's id.\n"
        "\n"
        "Mean over all ids of a batch that are no padding; as of captions, in NEURONS.",
        compare=compare_ids,
    ),
    "dice": DiceConfig(),
    "l1": _make_keyless(
        "Mean absolute difference over all values of a batch: outliers count less "
        "than in mse.",
        measure=partial(_measure_by_torch, "l1_loss"),
    ),
    "mixco": MixcoConfig(),
    "mmd": MmdConfig(),
    "mse": _make_keyless(
        "Mean squared error: a prediction should have the values of its target.\n\n"
        "Mean squared difference over all values of a batch.",
        measure=partial(_measure_by_torch, "mse_loss"),
    ),
    "sobel": SobelConfig(),
    "soft-clip": SoftClipConfig(),
    "soft-cont": SoftContConfig(),
}
"""The parts of this shelf by kind, each small enough for tests."""
