"""Degraded pictures: golden tensors, and encoders that see them."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.data.targets.encoder_keys import find_encoders
from brainhive_cli.models import encoders
from brainhive_cli.models.encoders import build_fovea_mask, degrade, open_clip

ROUNDING = 1
"""Grey values: the published codes blur and resize by OpenCV, in fixed-point
numbers.
"""


@pytest.fixture
def reference(golden):
    """Golden tensors: a picture and its degradations."""
    return load_file(golden / "methods" / "blur.safetensors")


def noise(side_px, seed=0):
    """Draw a picture of noise."""
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3), np.uint8)
    )


def test_pictures_are_degraded_as_published(reference):
    picture = reference["picture"].numpy()
    compared = 0
    for name, expected in reference.items():
        kind, _, strength = name.removeprefix("expected.").rpartition("_")
        if not name.startswith("expected.") or not kind:
            continue
        number = (
            round(1 / float(strength)) if kind == "low_resolution" else int(strength)
        )
        degradation = f"{kind.replace('_', '-')}-{number}"
        degraded = np.asarray(
            degrade(Image.fromarray(picture), degradation, min(picture.shape[:2]))
        )
        assert np.abs(degraded.astype(int) - expected.numpy()).max() <= ROUNDING, (
            degradation
        )
        assert np.abs(degraded.astype(int) - picture).max() > 10 * ROUNDING
        compared += 1
    assert compared
    mask = build_fovea_mask(*reference["expected.mask"].shape)
    assert torch.allclose(mask, reference["expected.mask"], atol=1e-7, rtol=0)
    # the first pixel is farther, and no sharper for it
    assert mask[0, 0] == mask[-1, -1] == mask.min()


def test_kernels_count_pixels_of_the_networks_input():
    large = noise(8).resize((128, 128), Image.Resampling.NEAREST)
    small = noise(8)
    encoder = open_clip.Config(
        **{**dict(open_clip.TINY), "degrade": "gaussian-5"}
    ).prepare()
    undegraded = open_clip.TINY.prepare()
    sharp = open_clip.Config(
        **{**dict(open_clip.TINY), "degrade": "gaussian-1"}
    ).prepare()
    for picture in (large, small):
        assert torch.equal(sharp.preprocess(picture), undegraded.preprocess(picture))
        by_hand = undegraded.preprocess(degrade(picture, "gaussian-5", 16))
        assert torch.equal(encoder.preprocess(picture), by_hand)
        assert not torch.allclose(by_hand, undegraded.preprocess(picture), atol=0.1)
    pair = encoder.preprocess_all([large, large.rotate(90)])
    assert torch.equal(pair[1], encoder.preprocess(large.rotate(90)))
    assert "gaussian-5" in encoder.preprocessing
    assert encoder.weights == undegraded.weights


def test_each_degradation_of_a_list_makes_an_encoder_with_a_name():
    blurs = encoders.resolve(
        {"kind": "clip-rn50", "degrade": ["gaussian-1", "gaussian-63"]}
    ).store_configs
    assert [config.name for config in blurs] == [
        "clip-rn50-gaussian-1",
        "clip-rn50-gaussian-63",
    ]
    assert blurs[0].published_name == "clip-rn50-gaussian-1"
    undegraded = encoders.resolve("clip-rn50")
    assert blurs[0].network_key == undegraded.network_key
    assert blurs[0].static_shape == undegraded.static_shape == (1024,)
    configs_by_name = find_encoders(
        ["clip-rn50-gaussian-1", "clip-rn50-noise-25-view-2", "clip-rn50-blur-3"]
    )
    assert list(configs_by_name) == [
        "clip-rn50-gaussian-1",
        "clip-rn50-noise-25-view-2",
    ]
    assert configs_by_name["clip-rn50-gaussian-1"] == blurs[0]


def test_invalid_degradations_are_refused():
    for degradation in ("gaussian-4", "fovea-0", "blur-3"):
        with pytest.raises(RecipeError, match="degrad"):
            encoders.resolve({"kind": "clip-rn50", "degrade": degradation})
    encoder = open_clip.Config(
        **{**dict(open_clip.TINY), "degrade": "gaussian-33"}
    ).prepare()
    with pytest.raises(RecipeError, match=r"\b33 pixels .*\b16\b"):
        encoder.preprocess(noise(64))
    with pytest.raises(RecipeError, match=r"degrade .*captions"):
        encoders.resolve({"kind": "vd-text", "degrade": "gaussian-3"})
