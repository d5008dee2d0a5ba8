"""All losses on fixed predictions, compared with recorded values."""

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
from tests.worlds.number_rows import weighted_means

pytestmark = pytest.mark.usefixtures("doubles")
MIXING = Mixing(
    torch.tensor([1, 2, 0, 3, 5, 4]),
    torch.tensor([0.9, 0.4, 1.0, 0.3, 0.5, 0.0], dtype=torch.float64),
)
CONTEXT = LossContext(epoch=3, stimuli=torch.tensor([7, 2, 7, 9, 2, 7]))
COURSE = Course(start=0.05, stop=0.4, epochs=(1, 6), course="cosine")
SEQUENCES = {
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
}
MAPS = {
    "dice": DiceConfig(),
    "sobel": SobelConfig(),
    "soft-clip of frames": SoftClipConfig(items="frames", temperature=0.3),
}


def compute_row(config, shape):
    """Compute a loss and its gradients, for plain and for mixed signals [6, *shape].

    The gradients are with respect to the predictions and a learned scale.
    """
    target = torch.rand(6, *shape)
    other_targets = {"other": target + 0.5 * torch.randn(6, *shape)}
    predicted = (1.5 * target + torch.randn(6, *shape)).requires_grad_()
    row = []
    for mixing in (None, MIXING):
        context = LossContext(
            mixing, epoch=3, targets=other_targets, stimuli=CONTEXT.stimuli
        )
        loss = config.build()
        value = loss(predicted, target, context)
        value.backward()
        scales = [p.grad for p in loss.parameters() if p.grad is not None]
        row += [value.item()] + weighted_means([predicted.grad, scales])
        predicted.grad = None
    if hasattr(loss, "score_pairs"):
        row += weighted_means(loss.score_pairs(predicted, target, context))
        for epoch in (0, 2, 5, 9):
            row.append(float(torch.as_tensor(loss.scale(epoch)).detach()))
    return row


def test_of_sequences(recorded):
    rows = {}
    for case, config in SEQUENCES.items():
        torch.manual_seed(0)
        rows[case] = compute_row(config, (3, 4))
    recorded(6, **rows)


def test_of_augmented_pictures(recorded):
    # the loss brings the other target to single precision
    torch.set_default_dtype(torch.float32)
    configs = {
        "by itself": SoftContConfig(),
        "by another target": SoftContConfig(temperature=0.3, augmented="other"),
    }
    rows = {}
    for case, config in configs.items():
        torch.manual_seed(0)
        rows[case] = compute_row(config, (3, 4))
    recorded(3, **rows)


def test_of_maps(recorded):
    rows = {}
    for case, config in MAPS.items():
        torch.manual_seed(0)
        rows[case] = compute_row(config, (2, 5, 3))
    recorded(6, **rows)


def test_of_ids(recorded):
    loss = losses.TINY["cross-entropy"].build()
    logits = torch.randn(3, 4, 7)
    ids = torch.tensor([[5, 2, 0, 0], [1, 6, 3, 2], [0, 0, 0, 0]])
    values = [loss(logits, rows, CONTEXT) for rows in (ids, ids.flip(0), 0 * ids)]
    recorded(6, values=torch.stack(values))
    for arguments in (
        (logits, ids[:, 1:], CONTEXT),
        (logits, ids, LossContext(MIXING)),
    ):
        with pytest.raises(BrainhiveError):
            loss(*arguments)


def test_of_mixing(recorded):
    rows = {}
    for count, alpha, share in ((7, 0.2, 1.0), (6, 1.5, 0.5), (1, 1.0, 1.0)):
        random = torch.Generator().manual_seed(3)
        mixing = Mixing.draw(count, alpha, random, share)
        repeated = mixing.repeat(3)
        tensors = [
            mixing.partner,
            mixing.share,
            repeated.partner,
            repeated.share,
            mixing.mix(torch.randn(count, 4)),
            repeated.mix(torch.randn(3 * count, 2)),
            # the generator has moved on
            torch.randn(2, generator=random),
        ]
        rows[f"{count} signals"] = weighted_means(tensors)
    recorded(5, **rows)


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
def test_settings_without_effect_are_refused(keys):
    with pytest.raises((BrainhiveError, ValidationError)):
        ClipConfig(**keys)


def test_targets_that_are_not_there_and_single_rows_are_refused():
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
