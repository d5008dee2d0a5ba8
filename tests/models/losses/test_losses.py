"""Losses, compared with slow and plain computations."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes import parts
from brainhive_cli.models.losses import ClipConfig, LossContext, Mixing, SoftClipConfig

KINDS = ("clip", "mixco", "soft_clip")
LOG_SCALE = 1.5
MIXING = Mixing(
    torch.tensor([1, 2, 0, 3, 5, 4]), torch.tensor([0.9, 0.4, 1.0, 0.3, 0.5, 0.0])
)
"""Six signals: one is its own partner, one is all itself, one is all its partner."""
EXACT = 1e-5
"""float32 against float64."""

Array = NDArray[np.float64]


@pytest.fixture
def tokens() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    signal = torch.randn(6, 5)
    return signal, signal + torch.randn(6, 5)


def compute(
    config: Any, tokens: tuple[Tensor, Tensor], mixing: Mixing | None = None
) -> float:
    scaled = config.model_copy(update={"initial_logit_scale": LOG_SCALE})
    return float(scaled.build()(*tokens, LossContext(mixing)).detach())


def cosine(one: Tensor, other: Tensor) -> Array:
    a, b = one.double().numpy(), other.double().numpy()
    return np.array([[u @ v / math.sqrt((u @ u) * (v @ v)) for v in b] for u in a])


def wanted(mixing: Mixing | None, count: int) -> Array:
    """Share of image j in signal i."""
    pairs = np.zeros((count, count))
    for i in range(count):
        share = 1.0 if mixing is None else float(mixing.share[i])
        pairs[i, i] += share
        if mixing is not None:
            pairs[i, int(mixing.partner[i])] += 1 - share
    return pairs


def test_mixed_signals_approach_both_images_by_their_shares(tokens: Any):
    logits, pairs = math.exp(LOG_SCALE) * cosine(*tokens), wanted(MIXING, 6)
    expected = 5 * (1 - (pairs * cosine(*tokens)).sum() / 6)
    for way, of in ((logits, pairs), (logits.T, pairs.T)):
        shares = np.exp(way) / np.exp(way).sum(1, keepdims=True)
        expected -= (of * np.log(shares)).sum() / 12

    assert compute(ClipConfig(cosine_weight=5), tokens, MIXING) == pytest.approx(
        expected, abs=EXACT
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_value_and_finite(kind: str, tokens: Any):
    loss = parts.load("losses", kind).TINY.build().double()
    signal, image = (token.double().requires_grad_() for token in tokens)
    if kind == "soft_clip":
        image = image.detach()  # its targets let no gradient through

    parameters = {name: value.detach() + 0.1 for name, value in loss.named_parameters()}

    def value(signal: Tensor, image: Tensor, *values: Tensor) -> Any:
        named = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(
            loss, named, (signal, image, LossContext(MIXING))
        )

    given = [value.requires_grad_() for value in parameters.values()]
    assert torch.autograd.gradcheck(value, (signal, image, *given))


def test_wrong_pairs_cost_more_and_sequences_count_as_one_vector(tokens: Any):
    """MindEye (arXiv 2305.18274) flattens its 257 tokens."""
    signal, image = tokens
    sequences = (torch.randn(6, 3, 5), torch.randn(6, 3, 5))
    for kind in KINDS:
        config = parts.load("losses", kind).TINY
        costs = [
            compute(config, (signal, other))
            for other in (signal, image, image.roll(1, 0))
        ]
        assert costs[0] < costs[1] < costs[2]
        flat = tuple(each.flatten(1) for each in sequences)
        assert compute(config, sequences) == compute(config, flat)


def test_soft_targets_are_no_path_for_the_gradient(tokens: Any):
    """With a gradient, images would become alike to make the target easy."""
    signal, image = tokens
    alike = (torch.from_numpy(cosine(image, image)) / 0.5).softmax(1)
    image = image.double().requires_grad_()

    config = SoftClipConfig(temperature=0.5)
    config.build()(signal.double(), image, LossContext()).backward()
    found, image.grad = image.grad, None
    logits = F.normalize(signal.double(), dim=1) @ F.normalize(image, dim=1).T / 0.5
    (
        -(alike * logits.log_softmax(1) + alike.T * logits.log_softmax(0)).sum() / 12
    ).backward()

    assert torch.allclose(found, image.grad)


def test_tokens_that_are_not_pairs_are_refused():
    for kind in KINDS:
        loss = parts.load("losses", kind).TINY.build()
        with pytest.raises(BrainhiveError, match=r"\[.*\] .*\[.*\]"):
            loss(torch.zeros(4, 8), torch.zeros(3, 8), LossContext())
