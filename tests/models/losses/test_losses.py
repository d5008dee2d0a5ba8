"""Every loss against a slow, plain computation, and what all of them must feel."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.losses import (
    TINY,
    ClipConfig,
    LossContext,
    MixcoConfig,
    Mixing,
    SoftClipConfig,
    harder,
)

KINDS = ("clip", "mixco", "soft_clip")
LOG_SCALE = 1.5
MIXING = Mixing(torch.tensor([1, 2, 0, 3, 5, 4]), torch.tensor([0.9, 0.4, 1.0, 0.3, 0.5, 0.0]))
"""Six signals: one is its own partner, one is all itself, one is all its partner."""
EXACT = 1e-5
"""float32 against float64."""

Array = NDArray[np.float64]


@pytest.fixture
def tokens() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    signal = torch.randn(6, 5)
    return signal, signal + torch.randn(6, 5)


def compute(config: Any, tokens: tuple[Tensor, Tensor], mixing: Mixing | None = None) -> float:
    scaled = config.model_copy(update={"initial_logit_scale": LOG_SCALE})
    return float(scaled.build()(*tokens, LossContext(mixing)).detach())


def cosine(one: Tensor, other: Tensor) -> Array:
    a, b = one.double().numpy(), other.double().numpy()
    return np.array([[u @ v / math.sqrt((u @ u) * (v @ v)) for v in b] for u in a])


def wanted(mixing: Mixing | None, count: int) -> Array:
    """How much of image j is in signal i."""
    pairs = np.zeros((count, count))
    for i in range(count):
        share = 1.0 if mixing is None else float(mixing.share[i])
        pairs[i, i] += share
        if mixing is not None:
            pairs[i, int(mixing.partner[i])] += 1 - share
    return pairs


def slow_contrast(logits: Array, targets: Array, hard_negative_beta: float = 0.0) -> float:
    """The cross-entropy of rows, term by term; a wrong candidate counts as often as it weighs."""
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        wrong = [j for j in range(len(row)) if target[j] == 0]
        strength = {j: math.exp(hard_negative_beta * row[j]) for j in wrong}
        weight = {j: s / (sum(strength.values()) / len(wrong)) for j, s in strength.items()}
        below = sum(weight.get(j, 1.0) * math.exp(value) for j, value in enumerate(row))
        for j, value in enumerate(row):
            total -= target[j] * math.log(weight.get(j, 1.0) * math.exp(value) / below) if target[j] else 0.0
    return total / len(logits)


def slow_clip(tokens: tuple[Tensor, Tensor], mixing: Mixing | None, hard_negative_beta: float = 0.0) -> float:
    logits, pairs = math.exp(LOG_SCALE) * cosine(*tokens), wanted(mixing, 6)
    return (
        slow_contrast(logits, pairs, hard_negative_beta)
        + slow_contrast(logits.T, pairs.T, hard_negative_beta)
    ) / 2


@pytest.mark.parametrize("mixing", [None, MIXING])
@pytest.mark.parametrize("hard_negative_beta", [0.0, 0.5, 2.0])
def test_clip_and_mixco_equal_the_slow_computation(
    tokens: Any, hard_negative_beta: float, mixing: Mixing | None
):
    expected = pytest.approx(slow_clip(tokens, mixing, hard_negative_beta), abs=EXACT)

    assert compute(ClipConfig(hard_negative_beta=hard_negative_beta), tokens, mixing) == expected
    assert compute(MixcoConfig(hard_negative_beta=hard_negative_beta), tokens, mixing) == expected


def test_mixed_signals_are_pulled_to_both_their_images_by_their_shares(tokens: Any):
    expected = slow_clip(tokens, MIXING) + 5 * (1 - (wanted(MIXING, 6) * cosine(*tokens)).sum() / 6)

    assert compute(ClipConfig(cosine_weight=5), tokens, MIXING) == pytest.approx(expected, abs=EXACT)


def test_hard_negatives_equal_the_papers_formula(tokens: Any):
    """Robinson et al. (arXiv 2010.04592), equation 4 without its correction for false negatives."""
    beta, logits = 0.7, math.exp(LOG_SCALE) * cosine(*tokens)
    total = 0.0
    for way in (logits, logits.T):
        for i, row in enumerate(way):
            positive, negative = math.exp(row[i]), np.exp(np.delete(row, i))
            importance = negative**beta
            reweighted = len(negative) * (importance * negative).sum() / importance.sum()
            total -= math.log(positive / (positive + reweighted))

    assert compute(ClipConfig(hard_negative_beta=beta), tokens) == pytest.approx(total / 12, abs=EXACT)


@pytest.mark.parametrize("mixing", [None, MIXING])
def test_soft_clip_equals_the_slow_computation(tokens: Any, mixing: Mixing | None):
    alike = np.exp(cosine(tokens[1], tokens[1]) / 0.4)
    alike /= alike.sum(1, keepdims=True)
    logits, pairs = math.exp(LOG_SCALE) * cosine(*tokens), wanted(mixing, 6)
    expected = (slow_contrast(logits, pairs @ alike) + slow_contrast(logits.T, alike @ pairs.T)) / 2

    found = compute(SoftClipConfig(target_temperature=0.4), tokens, mixing)

    assert found == pytest.approx(expected, abs=EXACT)
    assert abs(found - slow_clip(tokens, mixing)) > 0.1


def test_soft_clip_with_sharp_targets_is_clip(tokens: Any):
    sharp = SoftClipConfig(target_temperature=1e-4)

    for mixing in (None, MIXING):
        assert compute(sharp, tokens, mixing) == pytest.approx(
            compute(TINY["clip"], tokens, mixing), abs=EXACT
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_of_nothing_changes_nothing(kind: str, tokens: Any):
    config, alone = parts.load("losses", kind).TINY, Mixing(MIXING.partner, torch.ones(6))

    assert compute(config, tokens, alone) == pytest.approx(compute(config, tokens), abs=EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_signals_cost_less_where_their_mixing_is_known(kind: str, tokens: Any):
    image = tokens[1]
    config, mixed = parts.load("losses", kind).TINY, (MIXING.mix(image), image)

    assert compute(config, mixed, MIXING) < compute(config, mixed)


@pytest.mark.parametrize("mixing", [None, MIXING])
@pytest.mark.parametrize("kind", [*KINDS, "hard"])
def test_gradients_are_those_of_the_value_and_finite(kind: str, tokens: Any, mixing: Mixing | None):
    config = ClipConfig(hard_negative_beta=1) if kind == "hard" else parts.load("losses", kind).TINY
    loss = config.build().double()
    signal, image = (token.double().requires_grad_() for token in tokens)
    if kind == "soft_clip":
        image = image.detach()  # its targets let no gradient through

    parameters = {name: value.detach() + 0.1 for name, value in loss.named_parameters()}

    def value(signal: Tensor, image: Tensor, *values: Tensor) -> Any:
        named = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(loss, named, (signal, image, LossContext(mixing)))

    given = [value.requires_grad_() for value in parameters.values()]
    assert torch.autograd.gradcheck(value, (signal, image, *given))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("log_scale", [LOG_SCALE, math.log(100)])
@pytest.mark.parametrize("count", [1, 2])
def test_few_pairs_and_a_large_scale_give_finite_gradients(kind: str, log_scale: float, count: int):
    torch.manual_seed(0)
    config = parts.load("losses", kind).TINY.model_copy(update={"initial_logit_scale": log_scale})
    if kind == "clip":
        config = ClipConfig(initial_logit_scale=log_scale, hard_negative_beta=4, cosine_weight=1)
    tokens = [torch.randn(count, 4, requires_grad=True) for _ in range(2)]
    swapped = Mixing(torch.arange(count).flip(0), torch.full((count,), 0.5))

    for mixing in (None, swapped):
        config.build()(*tokens, LossContext(mixing)).backward()

    assert all(token.grad.isfinite().all() for token in tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_pairs_cost_more_and_the_order_of_pairs_nothing(kind: str, tokens: Any):
    signal, image = tokens
    config, order = parts.load("losses", kind).TINY, torch.tensor([3, 0, 5, 1, 4, 2])
    back = torch.argsort(order)
    moved = Mixing(back[MIXING.partner[order]], MIXING.share[order])

    costs = [compute(config, (signal, other)) for other in (signal, image, image.roll(1, 0))]
    assert costs[0] < costs[1] < costs[2]
    for mixing, same in ((None, None), (MIXING, moved)):
        permuted = compute(config, (signal[order], image[order]), same)
        assert permuted == pytest.approx(compute(config, tokens, mixing), abs=EXACT)


@pytest.mark.parametrize("kind", ["clip", "mixco", "soft_clip"])
def test_a_fixed_scale_counts_as_a_learned_one_does_but_has_no_gradient(kind: str, tokens: Any):
    part = parts.load("losses", kind)
    signal = tokens[0].requires_grad_()
    fixed, learned = (
        part.Config(initial_logit_scale=math.log(1 / 0.04), learn_scale=learn_scale).build()
        for learn_scale in (False, True)
    )

    values = [loss(*tokens, LossContext()) for loss in (fixed, learned)]
    sum(values).backward()

    assert values[0].item() == values[1].item()
    assert fixed.logit_scale.grad is None and learned.logit_scale.grad.any() and signal.grad.any()


def test_soft_targets_are_no_path_for_the_gradient(tokens: Any):
    """Else images become alike so that the target is easy."""
    signal, image = tokens
    alike = torch.from_numpy(np.exp(cosine(image, image)))
    alike /= alike.sum(1, keepdim=True)
    image = image.double().requires_grad_()

    config = SoftClipConfig(target_temperature=1, initial_logit_scale=0)
    config.build()(signal.double(), image, LossContext()).backward()
    found, image.grad = image.grad, None
    logits = F.normalize(signal.double(), dim=1) @ F.normalize(image, dim=1).T
    (-(alike * logits.log_softmax(1) + alike.T * logits.log_softmax(0)).sum() / 12).backward()

    assert torch.allclose(found, image.grad)


def test_hard_negatives_pull_the_gradient_to_the_nearest_wrong_image(tokens: Any):
    nearest = [np.delete(row, i).argmax() for i, row in enumerate(cosine(*tokens))]
    shares = []
    for hard_negative_beta in (0.0, 2.0):
        logits = torch.tensor(math.exp(LOG_SCALE) * cosine(*tokens)).requires_grad_()
        is_wrong = ~torch.eye(6, dtype=torch.bool)
        hard = harder(logits, is_wrong, hard_negative_beta, 1)
        hard.logsumexp(1).sum().backward()
        pushed = logits.grad[is_wrong].view(6, 5)
        shares.append((pushed[range(6), nearest] / pushed.sum(1)).mean())

    assert shares[1] > shares[0] + 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shapes", [((4, 8), (3, 8)), ((4, 8), (4, 7)), ((8,), (8,))])
def test_tokens_that_are_not_pairs_are_refused(kind: str, shapes: Any):
    with pytest.raises(BrainhiveError, match="not pairs"):
        parts.load("losses", kind).TINY.build()(*map(torch.zeros, shapes), LossContext())


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_of_tokens_counts_as_one_vector(kind: str):
    """MindEye (arXiv 2305.18274) flattens its 257 tokens."""
    torch.manual_seed(0)
    tokens = (torch.randn(6, 3, 5), torch.randn(6, 3, 5))
    config = parts.load("losses", kind).TINY

    assert compute(config, tokens) == compute(config, tuple(token.flatten(1) for token in tokens))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixing_of_another_batch_is_refused(kind: str):
    with pytest.raises(BrainhiveError, match="a mixing of 6 signals does not fit a batch of 4"):
        parts.load("losses", kind).TINY.build()(torch.ones(4, 3), torch.ones(4, 3), LossContext(MIXING))


@pytest.mark.parametrize("kind", [*KINDS, "hard"])
def test_a_linear_encoder_learns_to_find_pictures_it_never_saw(kind: str):
    """200 pictures of 8 features in 32 noisy channels; 56 more are the gallery, chance is 1/56."""
    torch.manual_seed(0)
    source = torch.Generator().manual_seed(0)
    image = torch.randn(256, 8)
    signal = image @ torch.randn(8, 32) + torch.randn(256, 32)
    config = ClipConfig(hard_negative_beta=0.5) if kind == "hard" else parts.load("losses", kind).TINY
    encoder, loss = torch.nn.Linear(32, 8), config.build()
    optimizer = torch.optim.Adam([*encoder.parameters(), *loss.parameters()], 0.02)
    for _ in range(100):
        mixing = Mixing.draw(200, config.mix_alpha, source) if config.mix_alpha else None
        seen = signal[:200] if mixing is None else mixing.mix(signal[:200])
        optimizer.zero_grad()
        loss(encoder(seen), image[:200], LossContext(mixing)).backward()
        optimizer.step()

    found = (F.normalize(encoder(signal[200:]), dim=1) @ F.normalize(image[200:], dim=1).T).argmax(1)
    assert (found == torch.arange(56)).float().mean() > 0.8


def test_only_mixco_mixes_by_default():
    alphas = {kind: parts.load("losses", kind).TINY.mix_alpha for kind in KINDS}

    assert alphas == {"clip": 0.0, "mixco": 0.15, "soft_clip": 0.0}
