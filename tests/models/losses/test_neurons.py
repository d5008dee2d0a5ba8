"""Losses and courses of NEURONS, compared with golden values."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes import parts
from brainhive_cli.models import Course, LossContext, Mixing, Wave, losses
from brainhive_cli.models.losses import (
    TINY,
    ClipConfig,
    DiceConfig,
    MixcoConfig,
    SoftClipConfig,
    compute_pair_weights,
)
from brainhive_cli.training.alignment.terms import Term
from brainhive_cli.training.alignment.training.objective import Objective

RELATIVE = 1e-5
ROUNDING = 1e-6
"""Of losses near 0, where cosines in float32 are divided by small temperatures."""
PLAIN = LossContext()


def golden_of(golden: Path, name: str) -> dict[str, Tensor]:
    return load_file(golden / "neurons" / f"{name}.safetensors")


def config_of(golden: Path, name: str) -> dict[str, Any]:
    """Read the sizes and temperatures of a golden file."""
    with safe_open(golden / "neurons" / f"{name}.safetensors", "pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
        return config


def right_of(found: dict[str, Tensor], name: str) -> float:
    """Return the correct value: `right.*` if the reference is wrong, else
    `expected.*`.
    """
    return found.get(f"right.{name}", found[f"expected.{name}"]).item()


def by_temperature(found: dict[str, Tensor], name: str) -> dict[float, float]:
    """Read the values of a loss, keyed by temperature."""
    start = f"expected.{name}_"
    values = {
        float(key.removeprefix(start)): each.item()
        for key, each in found.items()
        if start in key
    }
    assert values
    return values


def test_contrastive_losses_equal_the_reference(golden: Path) -> None:
    found = golden_of(golden, "losses")
    pair = found["input.preds"], found["input.targets"]

    mixing = Mixing(found["input.perm"], found["expected.betas_after"])
    temperature = config_of(golden, "losses")["temp_vision"]
    mixed = MixcoConfig(temperature=temperature).build()(*pair, LossContext(mixing))

    expected = right_of(found, "mixco_nce")
    assert mixed == pytest.approx(expected, rel=RELATIVE, abs=ROUNDING)
    for temperature, expected in by_temperature(found, "nce_temp").items():
        nce = ClipConfig(temperature=temperature).build()(*pair, PLAIN)
        assert nce == pytest.approx(expected, rel=RELATIVE, abs=ROUNDING)
    for temperature, expected in by_temperature(found, "softclip").items():
        soft = SoftClipConfig(temperature=temperature).build()(*pair, PLAIN)
        assert soft == pytest.approx(expected, rel=RELATIVE, abs=ROUNDING)


def test_a_fixed_point_of_the_permutation_keeps_its_target(golden: Path) -> None:
    """Golden values: `right.*`; in `expected.*` the reference loses the target."""
    found = golden_of(golden, "losses")
    mixing = Mixing(
        found["input.perm_fixed_point"], found["expected.betas_after_fixed_point"]
    )

    temperature = config_of(golden, "losses")["temp_vision"]
    mixed = MixcoConfig(temperature=temperature).build()(
        found["input.preds"], found["input.targets"], LossContext(mixing)
    )

    assert mixed == pytest.approx(
        found["right.mixco_nce_fixed_point"].item(), rel=RELATIVE
    )


PERMUTATIONS = pytest.mark.parametrize("ending", ["", "_fixed_point"])
"""Ends of the names of a permutation without fixed points, and of one with some."""


@PERMUTATIONS
def test_shares_are_the_references_for_its_random_numbers(
    golden: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    found = golden_of(golden, "losses")
    partner, betas = found[f"input.perm{ending}"], found["input.betas"]
    config = config_of(golden, "losses")
    # the reference mixes trials whose random number is below the threshold
    random = torch.where(found["input.select"], 0.0, 1.0)
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: partner)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: random)
    monkeypatch.setattr(losses, "draw_convex_weights", lambda *_: betas[:, None])

    mixing = Mixing.draw(
        len(betas), config["beta"], torch.Generator(), config["select_threshold"]
    )

    assert torch.equal(mixing.partner, partner)
    assert torch.equal(mixing.share, found[f"expected.betas_after{ending}"])


@PERMUTATIONS
def test_voxels_are_mixed_as_the_references(golden: Path, ending: str) -> None:
    found = golden_of(golden, "losses")
    share = found[f"expected.betas_after{ending}"]

    mixed = Mixing(found[f"input.perm{ending}"], share).mix(found["input.voxels"])

    expected = found[f"expected.mixed{ending}"]
    torch.testing.assert_close(mixed, expected, rtol=RELATIVE, atol=1e-6)


@PERMUTATIONS
def test_labels_of_mixed_signals_are_the_references(golden: Path, ending: str) -> None:
    """Golden values: `right.*` if a signal is its own partner. The reference then loses
    the target.
    """
    found = golden_of(golden, "losses")
    share = found[f"expected.betas_after{ending}"]
    mixing = Mixing(found[f"input.perm{ending}"], share)

    labels = compute_pair_weights(mixing, torch.eye(len(share)))

    published = found[f"expected.target_probs{ending}"]
    right = found.get(f"right.target_probs{ending}", published)
    torch.testing.assert_close(labels, right, rtol=RELATIVE, atol=0)


def test_each_frame_is_an_item_of_soft_clip() -> None:
    torch.manual_seed(0)
    predicted, target = torch.randn(2, 4, 3, 5, 6)
    mixing = Mixing(torch.tensor([2, 3, 0, 1]), torch.tensor([1.0, 0.3, 0.6, 0.0]))
    frames = Mixing(
        torch.tensor([6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]),
        mixing.share.repeat_interleave(3),
    )

    found = SoftClipConfig(items="frames").build()(
        predicted, target, LossContext(mixing)
    )
    flat = SoftClipConfig().build()(
        predicted.flatten(0, 1), target.flatten(0, 1), LossContext(frames)
    )

    assert torch.allclose(found, flat)
    with pytest.raises(BrainhiveError, match=r"\[12\]"):
        SoftClipConfig(items="frames").build()(
            predicted[:, :, 0, 0], target[:, :, 0, 0], PLAIN
        )


def test_masks_labels_captions_and_latents_equal_the_reference(golden: Path) -> None:
    decoder, labels, caption = (
        golden_of(golden, name)
        for name in ("text_driven_decoder", "classifier", "caption")
    )
    logits = decoder["expected.segmentation_reference"]
    size = tuple(logits.shape[-2:])
    masks = torch.nn.functional.interpolate(
        decoder["input.mask"].flatten(0, 1)[:, None], size
    )

    bce = parts.load("losses", "bce")
    values = {
        "dice": DiceConfig().build()(logits, masks, PLAIN),
        "bce": bce.Config().build()(
            labels["expected.logits"], labels["input.labels"], PLAIN
        ),
        "caption": TINY["cross-entropy"].build()(
            caption["expected.logits"], caption["input.tokens"].float(), PLAIN
        ),
    }

    assert values["dice"] == pytest.approx(
        decoder["expected.dice_reference"].item(), rel=RELATIVE
    )
    assert values["bce"] == pytest.approx(labels["expected.bce"].item(), rel=RELATIVE)
    assert values["caption"] == pytest.approx(
        caption["expected.cross_entropy"].item(), rel=RELATIVE
    )


def test_weights_rise_and_fall_step_by_step_as_the_references(golden: Path) -> None:
    expected, config = (
        golden_of(golden, "schedules")["expected.loss_weights"],
        config_of(golden, "schedules"),
    )
    # a wave of two fifths, every fifth
    fifth, steps = config["epochs"] // 5, config["iterations"]
    tasks = len(config["columns"][2:])
    waves = [
        Wave(base=1, peak=10, epochs=(n * fifth, (n + 2) * fifth)) for n in range(tasks)
    ]
    ones = {"a": torch.ones(1, 1)}

    for epoch, iteration, *weights in expected.tolist():
        context = LossContext(
            step=int(epoch) * steps + int(iteration), epoch=int(epoch), steps=steps
        )
        terms = [Term(prediction="a", loss="l1", weight=wave) for wave in waves]
        found = [
            Objective([term])(ones, {"a": torch.zeros(1, 1)}, context).item()
            for term in terms
        ]
        assert found == pytest.approx(weights, rel=1e-6)


def test_temperatures_are_the_references(golden: Path) -> None:
    found = golden_of(golden, "losses")
    (expected,) = (
        each
        for name, each in found.items()
        if name.startswith("expected.soft_temperatures_")
    )
    first, last = expected[0].item(), expected[-1].item()
    course = Course.model_validate(
        {
            "from": first,
            "to": last,
            "epochs": [0, len(expected) - 1],
            "course": "cosine",
        }
    )

    values = torch.tensor([course.value_at(epoch) for epoch in range(len(expected))])

    torch.testing.assert_close(values, expected, rtol=1e-5, atol=0)
