"""All losses on fixed predictions, compared with recorded values."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.models import Course, LossContext, Mixing, losses
from brainhive_cli.models.losses import (
    ClipConfig,
    DiceConfig,
    MixcoConfig,
    MmdConfig,
    SobelConfig,
    SoftClipConfig,
    SoftContConfig,
)
from tests.tools.network_digests import digest

pytestmark = pytest.mark.usefixtures("doubles")
MIXING = Mixing(
    torch.tensor([1, 2, 0, 3, 5, 4]),
    torch.tensor([0.9, 0.4, 1.0, 0.3, 0.5, 0.0], dtype=torch.float64),
)
CONTEXT = LossContext(epoch=3, stimuli=torch.tensor([7, 2, 7, 9, 2, 7]))
COURSE = Course(start=0.05, stop=0.4, epochs=(1, 6), course="cosine")
VECTORS: dict[str, Any] = {
    "bce": losses.TINY["bce"],
    "clip": ClipConfig(),
    "clip far": ClipConfig(cosine_weight=0.7),
    "clip of stimuli": ClipConfig(positives="stimulus"),
    "clip one way": ClipConfig(directions="to_target", normalise_signal=False),
    "clip softplus": ClipConfig(scale_by="softplus", learn_scale=False),
    "clip itself": ClipConfig(scale_by="itself"),
    "clip by temperature": ClipConfig(temperature=COURSE),
    "l1": losses.TINY["l1"],
    "mixco": MixcoConfig(),
    "mmd": MmdConfig(),
    "mse": losses.TINY["mse"],
    "soft-clip": SoftClipConfig(),
    "soft-clip of temperature": SoftClipConfig(temperature=COURSE),
    "soft-cont": SoftContConfig(),
    "soft-cont augmented": SoftContConfig(temperature=0.3, augmented="other"),
}
MAPS: dict[str, Any] = {
    "dice": DiceConfig(),
    "sobel": SobelConfig(),
    "soft-clip of frames": SoftClipConfig(items="frames", temperature=0.3),
}


def compare(config: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """Compute the loss, its gradient and the gradient of its scale, mixed or not."""
    target = torch.rand(6, *shape)
    other = {"other": target + 0.5 * torch.randn(6, *shape)}
    predicted = (1.5 * target + torch.randn(6, *shape)).requires_grad_()
    numbers = {}
    for name, mixing in (("plain", None), ("mixed", MIXING)):
        context = LossContext(mixing, epoch=3, targets=other, stimuli=CONTEXT.stimuli)
        loss = config.build()
        value = loss(predicted, target, context)
        value.backward()
        numbers[name] = [value.item(), *digest(predicted.grad)]
        scales = [p.grad for p in loss.parameters() if p.grad is not None]
        numbers[f"{name} scale"] = digest(scales)
        predicted.grad = None
    if hasattr(loss, "score_pairs"):
        numbers["pairs"] = digest(loss.score_pairs(predicted, target, context))
        numbers["scales"] = [
            float(torch.as_tensor(loss.scale(epoch)).detach()) for epoch in (0, 2, 5, 9)
        ]
    return numbers


@pytest.mark.parametrize("case", VECTORS)
def test_of_vectors(recorded, case: str) -> None:
    shapes, digits = {"vectors": (5,), "sequences": (3, 4)}, 6
    # which brings the other target to single precision
    if case.startswith("soft-cont"):
        torch.set_default_dtype(torch.float32)
        digits = 3
    recorded(
        digits, **{n: compare(VECTORS[case], shape) for n, shape in shapes.items()}
    )


@pytest.mark.parametrize("case", MAPS)
def test_of_maps(recorded, case: str) -> None:
    recorded(6, maps=compare(MAPS[case], (2, 5, 3)))


def test_of_ids(recorded) -> None:
    loss = losses.TINY["cross-entropy"].build()
    logits = torch.randn(3, 4, 7)
    ids = torch.tensor([[5, 2, 0, 0], [1, 6, 3, 2], [0, 0, 0, 0]])
    values = [loss(logits, rows, CONTEXT) for rows in (ids, ids.flip(0), 0 * ids)]
    recorded(6, values=torch.stack(values))
    for wrong in ((logits, ids[:, 1:], CONTEXT), (logits, ids, LossContext(MIXING))):
        with pytest.raises(BrainhiveError):
            loss(*wrong)


def test_of_mixing(recorded) -> None:
    numbers = {}
    for count, alpha, share in ((7, 0.2, 1.0), (6, 1.5, 0.5), (1, 1.0, 1.0)):
        random = torch.Generator().manual_seed(3)
        mixing = Mixing.draw(count, alpha, random, share)
        repeated = mixing.repeat(3)
        numbers[f"{count}"] = digest(
            [
                mixing.partner,
                mixing.share,
                repeated.partner,
                repeated.share,
                mixing.mix(torch.randn(count, 4)),
                repeated.mix(torch.randn(3 * count, 2)),
                torch.randn(2, generator=random),
            ]
        )
    recorded(5, **numbers)


@pytest.mark.parametrize(
    "keys",
    [
        {"temperature": {"from": 0.0, "to": 0.5}},
        {"temperature": {"from": 0.5, "to": 0.0}},
        {"temperature": 0.5, "learn_scale": False},
        {"temperature": 0.5, "initial_logit_scale": 2.0},
        {"temperature": 0.5, "scale_by": "softplus"},
    ],
)
def test_settings_without_effect_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises((BrainhiveError, ValidationError)):
        ClipConfig(**keys)


def test_targets_that_are_not_there_and_single_rows_are_refused() -> None:
    with pytest.raises(BrainhiveError) as caught:
        SoftContConfig(augmented="b").build()(
            torch.ones(2, 3),
            torch.ones(2, 3),
            LossContext(targets={"a": torch.ones(2, 3)}),
        )
    assert "a" in caught.value.hint
    with pytest.raises(BrainhiveError):
        MmdConfig().build()(torch.ones(1, 3), torch.ones(1, 3), CONTEXT)
    # a scalar a row is no vector
    with pytest.raises(BrainhiveError):
        losses.TINY["mse"].build()(torch.ones(3), torch.ones(3), CONTEXT)
