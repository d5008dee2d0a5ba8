"""Image metrics: the reference's values, and numbers that wrong variants do not
give.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from brainhive_cli.measurement.metrics.image import (
    correlation_distance,
    pixcorr,
    prepare,
    ssim,
    standardise,
    two_way_identification,
)

TOLERANCE = 1e-6
"""Of float32 sums in another order."""


@pytest.fixture(scope="module")
def reference(golden: Path) -> dict[str, torch.Tensor]:
    """Values of the reference implementation for noisy pictures and feature vectors."""
    return load_file(golden / "image_metrics.safetensors")


def two_way(true: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    return two_way_identification(
        standardise(true), standardise(made), torch.arange(len(made))
    )


def distance(true: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    return correlation_distance(
        standardise(true), standardise(made), torch.arange(len(made))
    )


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def test_pixcorr_equals_the_reference_at_its_size_only(reference):
    image, made = reference["image"], reference["reconstruction"]

    assert gap(pixcorr(image, made), reference["pixcorr"]) < TOLERANCE
    assert (
        gap(pixcorr(image, made, side_px=image.shape[-1]), reference["pixcorr"])
        > 100 * TOLERANCE
    )


def test_ssim_equals_the_reference_at_its_size_only(reference):
    image, made = reference["image"], reference["reconstruction"]

    assert gap(ssim(image, made), reference["ssim"]) < TOLERANCE
    assert gap(ssim(image, made, side_px=None), reference["ssim"]) > 100 * TOLERANCE


@pytest.mark.parametrize("is_published", [False, True])
def test_ssim_is_that_of_scikit_image(is_published):
    """Tolerance: float32, which both compute in."""
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity

    true = torch.rand(3, 3, 30, 41, generator=torch.Generator().manual_seed(0))
    made = 0.7 * true + 0.3 * true.flip(-1)
    greys = [rgb2gray(x.permute(0, 2, 3, 1).numpy()) for x in (true, made)]
    paper = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 1.0,
    }
    paper["channel_axis"] = -1 if is_published else None
    expected = [
        structural_similarity(*pair, **paper) for pair in zip(*greys, strict=True)
    ]

    assert ssim(true, made, None, is_published).tolist() == pytest.approx(
        expected, abs=TOLERANCE
    )


def test_two_way_equals_the_reference_by_column_and_not_by_row(reference):
    true, made = reference["feature_image"], reference["feature_reconstruction"]

    assert two_way(true, made).mean().item() == pytest.approx(
        reference["two_way"].item(), abs=TOLERANCE
    )
    standard = [standardise(x) for x in (true, made)]
    batches = [
        two_way_identification(
            standard[0], standard[1][n : n + 5], torch.arange(len(made))[n : n + 5]
        )
        for n in range(0, len(made), 5)
    ]
    assert torch.cat(batches).mean().item() == pytest.approx(
        reference["two_way"].item(), abs=TOLERANCE
    )


def test_correlation_distance_equals_the_reference(reference):
    true, made = reference["feature_image"], reference["feature_reconstruction"]

    assert gap(distance(true, made), reference["correlation_distance"]) < TOLERANCE
    assert gap(distance(true, made.roll(1, 0)), reference["correlation_distance"]) > 0.1


BRAINHIVE_SIZES = [(500, 620), (1200, 1801)]
"""Height and width: smaller and larger than 512 px; with an odd margin too."""


def photograph(height: int, width: int) -> Image.Image:
    """Cut a photograph out of a picture of fine detail, brought to size."""
    from skimage import data

    return Image.fromarray(data.astronaut()).resize(
        (width, height), Image.Resampling.LANCZOS
    )


def as_the_reference_does(picture: Image.Image) -> Image.Image:
    """Resize the short side to 512 and crop the centre, with PIL alone."""
    short = min(picture.size)
    width, height = (int(512 * side / short) for side in picture.size)
    left, top = round((width - 512) / 2), round((height - 512) / 2)
    whole = picture.resize((width, height), Image.Resampling.BILINEAR)
    return whole.crop((left, top, left + 512, top + 512))


def as_tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("size", BRAINHIVE_SIZES)
def test_the_brainhive_protocol_resizes_to_512_and_crops(size):
    """Tolerance: PIL rounds to bytes after each of two passes, which is less than one
    level of 255.
    """
    picture = photograph(*size)

    found = prepare(as_tensor(picture), "brainhive")

    assert found.shape == (1, 3, 512, 512)
    assert gap(found, as_tensor(as_the_reference_does(picture))) < 1 / 255


def test_mindeye2_squeezes_the_whole_picture_into_256_px():
    left = torch.zeros(2, 3, 300, 600)
    left[..., :150] = 1.0

    found = prepare(left, "mindeye2")

    assert found.shape == (2, 3, 256, 256)
    assert found.mean() == pytest.approx(0.25, abs=1e-3)
    # cropped away
    assert prepare(left, "brainhive").mean() == pytest.approx(0, abs=1e-3)
