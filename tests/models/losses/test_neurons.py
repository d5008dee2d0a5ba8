"""Losses and courses of NEURONS, compared with golden values."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

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


def golden_of(golden, name):
    return load_file(golden / "neurons" / f"{name}.safetensors")


def config_of(golden, name):
    """Read the sizes and temperatures of a golden file."""
    with safe_open(golden / "neurons" / f"{name}.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        return config


def right_of(golden_values, name):
    """Return the correct value: `right.*` if the reference is wrong, else
    `expected.*`.
    """
    return golden_values.get(f"right.{name}", golden_values[f"expected.{name}"]).item()


def by_temperature(golden_values, name):
    """Read the values of a loss, keyed by temperature."""
    start = f"expected.{name}_"
    values = {
        float(key.removeprefix(start)): value.item()
        for key, value in golden_values.items()
        if start in key
    }
    assert values
    return values


def test_contrastive_losses_equal_the_reference(golden):
    golden_values = golden_of(golden, "losses")
    predicted = golden_values["input.preds"]
    target = golden_values["input.targets"]

    mixing = Mixing(golden_values["input.perm"], golden_values["expected.betas_after"])
    temperature = config_of(golden, "losses")["temp_vision"]
    mixed = MixcoConfig(temperature=temperature).build()(
        predicted, target, LossContext(mixing)
    )

    expected = right_of(golden_values, "mixco_nce")
    assert mixed == pytest.approx(expected, rel=RELATIVE, abs=ROUNDING)
    for temperature, expected in by_temperature(golden_values, "nce_temp").items():
        nce = ClipConfig(temperature=temperature).build()(predicted, target, PLAIN)
        assert nce == pytest.approx(expected, rel=RELATIVE, abs=ROUNDING)
    for temperature, expected in by_temperature(golden_values, "softclip").items():
        soft = SoftClipConfig(temperature=temperature).build()(predicted, target, PLAIN)
        assert soft == pytest.approx(expected, rel=RELATIVE, abs=ROUNDING)


def test_a_fixed_point_of_the_permutation_keeps_its_target(golden):
    """Golden values: `right.*`; in `expected.*` the reference loses the target."""
    golden_values = golden_of(golden, "losses")
    mixing = Mixing(
        golden_values["input.perm_fixed_point"],
        golden_values["expected.betas_after_fixed_point"],
    )

    temperature = config_of(golden, "losses")["temp_vision"]
    mixed = MixcoConfig(temperature=temperature).build()(
        golden_values["input.preds"],
        golden_values["input.targets"],
        LossContext(mixing),
    )

    assert mixed == pytest.approx(
        golden_values["right.mixco_nce_fixed_point"].item(), rel=RELATIVE
    )


PERMUTATIONS = pytest.mark.parametrize("ending", ["", "_fixed_point"])
"""Ends of the names of permutations, without and with fixed points."""


@PERMUTATIONS
def test_shares_are_the_references_for_its_random_numbers(golden, monkeypatch, ending):
    golden_values = golden_of(golden, "losses")
    partner = golden_values[f"input.perm{ending}"]
    betas = golden_values["input.betas"]
    config = config_of(golden, "losses")
    # the reference mixes trials whose random number is below the threshold
    random = torch.where(golden_values["input.select"], 0.0, 1.0)
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: partner)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: random)
    monkeypatch.setattr(losses, "draw_convex_weights", lambda *_: betas[:, None])

    mixing = Mixing.draw(
        len(betas), config["beta"], torch.Generator(), config["select_threshold"]
    )

    assert torch.equal(mixing.partner, partner)
    assert torch.equal(mixing.share, golden_values[f"expected.betas_after{ending}"])


@PERMUTATIONS
def test_voxels_are_mixed_as_the_references(golden, ending):
    golden_values = golden_of(golden, "losses")
    share = golden_values[f"expected.betas_after{ending}"]

    mixed = Mixing(golden_values[f"input.perm{ending}"], share).mix(
        golden_values["input.voxels"]
    )

    expected = golden_values[f"expected.mixed{ending}"]
    torch.testing.assert_close(mixed, expected, rtol=RELATIVE, atol=1e-6)


@PERMUTATIONS
def test_labels_of_mixed_signals_are_the_references(golden, ending):
    """Golden values: `right.*` if a signal is its own partner. The reference then loses
    the target.
    """
    golden_values = golden_of(golden, "losses")
    share = golden_values[f"expected.betas_after{ending}"]
    mixing = Mixing(golden_values[f"input.perm{ending}"], share)

    labels = compute_pair_weights(mixing, torch.eye(len(share)))

    published = golden_values[f"expected.target_probs{ending}"]
    corrected = golden_values.get(f"right.target_probs{ending}", published)
    torch.testing.assert_close(labels, corrected, rtol=RELATIVE, atol=0)


def test_masks_labels_captions_and_latents_equal_the_reference(golden):
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


def test_weights_rise_and_fall_step_by_step_as_the_references(golden):
    expected = golden_of(golden, "schedules")["expected.loss_weights"]
    config = config_of(golden, "schedules")
    # a wave of two fifths, every fifth
    fifth = config["epochs"] // 5
    steps = config["iterations"]
    tasks = len(config["columns"][2:])
    waves = [
        Wave(base=1, peak=10, epochs=(n * fifth, (n + 2) * fifth)) for n in range(tasks)
    ]
    prediction = {"a": torch.ones(1, 1)}

    for epoch, iteration, *weights in expected.tolist():
        context = LossContext(
            step=int(epoch) * steps + int(iteration), epoch=int(epoch), steps=steps
        )
        terms = [Term(prediction="a", loss="l1", weight=wave) for wave in waves]
        loss_values = [
            Objective([term])(prediction, {"a": torch.zeros(1, 1)}, context).item()
            for term in terms
        ]
        assert loss_values == pytest.approx(weights, rel=1e-6)


def test_temperatures_are_the_references(golden):
    golden_values = golden_of(golden, "losses")
    (expected,) = (
        value
        for name, value in golden_values.items()
        if name.startswith("expected.soft_temperatures_")
    )
    start_value = expected[0].item()
    end_value = expected[-1].item()
    course = Course.model_validate(
        {
            "from": start_value,
            "to": end_value,
            "epochs": [0, len(expected) - 1],
            "course": "cosine",
        }
    )

    values = torch.tensor([course.value_at(epoch) for epoch in range(len(expected))])

    torch.testing.assert_close(values, expected, rtol=1e-5, atol=0)
