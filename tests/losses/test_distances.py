"""Losses of latents (MSE, L1, Sobel), and MindEye's contrastive ones, against golden values."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.mixing import Mixing
from brainhive_cli.losses import LossContext, mixco, sobel, soft_clip

RELATIVE = 1e-4
"""Of the golden values, as their page says."""
DISTANCES = ("mse", "l1", "sobel")


@pytest.fixture
def havir(golden: Path) -> dict[str, Tensor]:
    """Golden values: losses of MindEye1 and kornia, as HAVIR's building blocks."""
    return load_file(golden / "havir" / "losses.safetensors")


def temperatures(havir: dict[str, Tensor], name: str) -> list[str]:
    """Temperatures that `out.<name>_t<temperature>` has."""
    start = f"out.{name}_t"
    found = [key.removeprefix(start) for key in havir if key.startswith(start)]
    return [text for text in found if text.replace(".", "").isdigit()]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("latent_mse", "mse"), ("latent_l1", "l1"), ("sobel_l1", "sobel"), ("sobel_mse", {"distance": "mse"})],
)
def test_distances_of_latents_equal_the_reference(havir, name, kind):
    config = sobel.Config(**kind) if isinstance(kind, dict) else parts.load("losses", kind).Config()

    value = config.build()(havir["in.latent_pred"], havir["in.latent_target"], LossContext())

    assert value == pytest.approx(havir[f"out.{name}"].item(), rel=RELATIVE)


def test_edges_equal_the_reference(havir):
    expected = havir["out.sobel_pred"]

    assert (sobel.edges(havir["in.latent_pred"]) - expected).abs().max() < RELATIVE * expected.max()


def test_soft_clip_equals_mindeyes(havir):
    found = temperatures(havir, "soft_clip")
    for text in found:
        scale = -math.log(float(text))  # the same temperature for logits and labels
        config = soft_clip.Config(
            initial_logit_scale=scale, learn_scale=False, target_temperature=float(text)
        )

        value = config.build()(havir["in.preds"], havir["in.targs"], LossContext())

        assert value == pytest.approx(havir[f"out.soft_clip_t{text}"].item(), rel=RELATIVE)
    assert found


def test_mixco_equals_mindeyes(havir):
    found = temperatures(havir, "mixco_nce")
    mixing = Mixing(havir["in.perm"], havir["in.betas"])
    for text in found:
        config = mixco.Config(initial_logit_scale=-math.log(float(text)), learn_scale=False)

        value = config.build()(havir["in.preds"], havir["in.targs"], LossContext(mixing))

        assert value == pytest.approx(havir[f"out.mixco_nce_t{text}"].item(), rel=RELATIVE)
    assert found


def test_a_signal_mixed_with_itself_keeps_its_target(havir):
    """MindEye's own code loses it."""
    mixing = Mixing(havir["in.perm_with_fixed_point"], havir["in.betas"])
    (name,) = [key for key in havir if key.startswith("out.mixco_nce") and key.endswith("fixed_point_right")]
    temperature = float(name.split("_t")[1].split("_")[0])
    config = mixco.Config(initial_logit_scale=-math.log(temperature), learn_scale=False)

    value = config.build()(havir["in.preds"], havir["in.targs"], LossContext(mixing))

    assert value == pytest.approx(havir[name].item(), rel=RELATIVE)


@pytest.mark.parametrize("kind", DISTANCES)
def test_targets_of_mixed_signals_are_mixed(kind):
    torch.manual_seed(0)
    target = torch.randn(4, 2, 5, 5)
    mixing = Mixing(torch.tensor([1, 0, 3, 2]), torch.tensor([0.2, 1.0, 0.5, 0.7]))
    loss = parts.load("losses", kind).TINY.build()

    assert loss(mixing.mix(target), target, LossContext(mixing)) == 0
    assert loss(mixing.mix(target), target, LossContext()) > 0.01


@pytest.mark.parametrize("kind", DISTANCES)
def test_predictions_of_another_shape_are_refused(kind):
    with pytest.raises(BrainhiveError, match="differ in shape"):
        parts.load("losses", kind).TINY.build()(torch.ones(4, 2, 5, 5), torch.ones(4, 2, 5, 4), LossContext())


def test_edges_of_vectors_are_refused():
    with pytest.raises(BrainhiveError, match=r"takes \[B, C, H, W\], got \[4, 3\]"):
        sobel.TINY.build()(torch.ones(4, 3), torch.ones(4, 3), LossContext())
