"""Distances and contrastive losses of MindEye1, compared with golden values."""

import re

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes import parts
from brainhive_cli.models.losses import (
    TINY,
    ClipConfig,
    LossContext,
    MixcoConfig,
    Mixing,
    SoftClipConfig,
    SoftContConfig,
    compute_cosines,
    compute_edges,
)

RELATIVE = 1e-4
"""Of the golden values, as their page says."""


@pytest.fixture
def havir(golden):
    """Golden values: losses of MindEye1 and kornia, as HAVIR's building blocks."""
    return load_file(golden / "havir" / "losses.safetensors")


def temperatures(havir, name):
    """List the temperatures in the names `out.<name>_t<temperature>`."""
    start = f"out.{name}_t"
    suffixes = [key.removeprefix(start) for key in havir if key.startswith(start)]
    return [text for text in suffixes if text.replace(".", "").isdigit()]


def test_distances_of_latents_and_edges_equal_the_reference(havir):
    configs = {
        name: parts.load("losses", name).Config() for name in ("mse", "l1", "sobel")
    }
    config_by_value = {
        "latent_mse": configs["mse"],
        "latent_l1": configs["l1"],
        "sobel_l1": configs["sobel"],
    }
    for name, config in config_by_value.items():
        value = config.build()(
            havir["in.latent_pred"], havir["in.latent_target"], LossContext()
        )
        assert value == pytest.approx(havir[f"out.{name}"].item(), rel=RELATIVE), name
    expected = havir["out.sobel_pred"]

    assert (
        compute_edges(havir["in.latent_pred"]) - expected
    ).abs().max() < RELATIVE * expected.max()


def test_soft_clip_equals_mindeyes(havir):
    temperature_texts = temperatures(havir, "soft_clip")
    for text in temperature_texts:
        # the same for logits and labels
        config = SoftClipConfig(temperature=float(text))

        value = config.build()(havir["in.preds"], havir["in.targs"], LossContext())

        assert value == pytest.approx(
            havir[f"out.soft_clip_t{text}"].item(), rel=RELATIVE
        )
    assert temperature_texts


def published_mixco(havir, partner, share, temperature):
    """MindEye1's mixco_nce, which writes the partner's share over a signal's own if it
    is its own partner.
    """
    predicted, target = (
        F.normalize(havir[name], dim=-1) for name in ("in.preds", "in.targs")
    )
    logits = predicted @ target.T / temperature
    labels = torch.diag(share)
    labels[torch.arange(len(partner)), partner] = 1 - share
    losses = [-(labels * logits.log_softmax(dim)).sum() / len(labels) for dim in (1, 0)]
    return float(sum(losses) / 2)


@pytest.mark.parametrize("permutation", ["perm", "perm_with_fixed_point"])
def test_mixco_equals_mindeye_and_allows_a_signal_as_own_partner(havir, permutation):
    """Golden values: `out.mixco_nce_tX`; with a fixed point `…_reference_defect` and
    `…_right`.

    Either permutation may have fixed points, where MindEye's own code loses the target.
    """
    partner = havir[f"in.{permutation}"]
    share = havir["in.betas"]
    is_fixed = partner == torch.arange(len(partner))
    ending = "_fixed_point_right" if permutation == "perm_with_fixed_point" else ""
    stored = [
        re.fullmatch(rf"out\.mixco_nce_t([\d.]+){ending}", name) for name in havir
    ]
    compared = [match for match in stored if match]
    assert compared
    assert is_fixed.any() or not ending
    for match in compared:
        name = match[0]
        temperature = float(match[1])
        published = published_mixco(havir, partner, share, temperature)
        corrected = published_mixco(
            havir, partner, share.where(~is_fixed, 0), temperature
        )

        value = MixcoConfig(temperature=temperature).build()(
            havir["in.preds"], havir["in.targs"], LossContext(Mixing(partner, share))
        )

        assert published == pytest.approx(
            havir[name.replace("_right", "_reference_defect")].item(), rel=RELATIVE
        )
        assert value == pytest.approx(corrected, rel=RELATIVE)
        if ending:
            assert value == pytest.approx(havir[name].item(), rel=RELATIVE)


CLOSE = 1e-5
"""Relative. The losses of both directions and of a single direction differ by 1.5e-4,
and float32 sums in another order by 3e-6.
"""


def only_temperature(havir, pattern):
    """Return the name and temperature of the only value that matches a pattern."""
    matches = [re.fullmatch(pattern, name) for name in havir]
    (match,) = [match for match in matches if match]
    return match[0], float(match[1])


def test_clip_of_signals_that_are_not_mixed_equals_mindeyes(havir):
    name, temperature = only_temperature(havir, r"out\.nce_t([\d.]+)_unmixed")

    loss = ClipConfig(temperature=temperature).build()
    value = loss(havir["in.preds"], havir["in.targs"], LossContext())

    assert value == pytest.approx(havir[name].item(), rel=CLOSE)


def test_mixco_in_one_direction_equals_mindeyes(havir):
    name, temperature = only_temperature(
        havir, r"out\.mixco_nce_t([\d.]+)_one_direction"
    )
    context = LossContext(Mixing(havir["in.perm"], havir["in.betas"]))

    loss = MixcoConfig(temperature=temperature, directions="to_target").build()
    value = loss(havir["in.preds"], havir["in.targs"], context)

    assert value == pytest.approx(havir[name].item(), rel=CLOSE)


def test_rows_of_cosines_are_the_first_of_both_unlike_mindeyes(havir):
    """Golden values: MindEye1's cosines of (preds, targs) have targs as rows."""
    predicted = havir["in.preds"]
    target = havir["in.targs"]

    rows_are_targets = havir["out.cosine_fwd_argument_order_preds_targs"]
    rows_are_predictions = havir["out.cosine_bwd_argument_order_targs_preds"]

    cosines = compute_cosines(target, predicted)
    torch.testing.assert_close(cosines, rows_are_targets, rtol=0, atol=1e-6)
    cosines = compute_cosines(predicted, target)
    torch.testing.assert_close(cosines, rows_are_predictions, rtol=0, atol=1e-6)


def test_signals_are_mixed_as_mindeyes(havir):
    mixing = Mixing(havir["in.perm"], havir["in.betas"])

    assert torch.allclose(
        mixing.mix(havir["in.voxels"]), havir["out.voxels_mixed"], atol=1e-6
    )


def test_the_contrast_of_maps_equals_mindeyes(havir):
    temperature_texts = temperatures(havir, "soft_cont")
    for text in temperature_texts:
        config = SoftContConfig(temperature=float(text), augmented="augmented")
        context = LossContext(targets={"augmented": havir["in.targs_augmented"]})

        value = config.build()(havir["in.preds"], havir["in.targs"], context)

        assert value == pytest.approx(
            havir[f"out.soft_cont_t{text}"].item(), rel=RELATIVE
        )
    assert temperature_texts
    assert TINY["soft-cont"].temperature == 0.075


def test_targets_are_mixed_and_other_shapes_are_refused():
    torch.manual_seed(0)
    target = torch.randn(4, 2, 5, 5)
    mixing = Mixing(torch.tensor([1, 0, 3, 2]), torch.tensor([0.2, 1.0, 0.5, 0.7]))
    for kind in ("mse", "l1", "sobel"):
        loss = parts.load("losses", kind).TINY.build()
        assert loss(mixing.mix(target), target, LossContext(mixing)) == 0
        assert loss(mixing.mix(target), target, LossContext()) > 0.01
        with pytest.raises(BrainhiveError, match=r"\[.*\] .*\[.*\]"):
            loss(target, target[..., 1:], LossContext())
    with pytest.raises(BrainhiveError, match=r"\[4, 3\]"):
        TINY["sobel"].build()(torch.ones(4, 3), torch.ones(4, 3), LossContext())
