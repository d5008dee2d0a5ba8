"""Image metrics: the reference's values, and numbers that wrong variants do not
give.
"""

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
def reference(golden):
    """Values of the reference implementation for noisy pictures and feature vectors."""
    return load_file(golden / "image_metrics.safetensors")


def two_way(stimuli, reconstructions):
    return two_way_identification(
        standardise(stimuli),
        standardise(reconstructions),
        torch.arange(len(reconstructions)),
    )


def distance(stimuli, reconstructions):
    return correlation_distance(
        standardise(stimuli),
        standardise(reconstructions),
        torch.arange(len(reconstructions)),
    )


def gap(values, b):
    return float((values - b).abs().max())


def test_pixcorr_equals_the_reference_at_its_size_only(reference):
    image, reconstruction = reference["image"], reference["reconstruction"]

    assert gap(pixcorr(image, reconstruction), reference["pixcorr"]) < TOLERANCE
    assert (
        gap(
            pixcorr(image, reconstruction, side_px=image.shape[-1]),
            reference["pixcorr"],
        )
        > 100 * TOLERANCE
    )


def test_ssim_equals_the_reference_at_its_size_only(reference):
    image, reconstruction = reference["image"], reference["reconstruction"]

    assert gap(ssim(image, reconstruction), reference["ssim"]) < TOLERANCE
    assert (
        gap(ssim(image, reconstruction, side_px=None), reference["ssim"])
        > 100 * TOLERANCE
    )


@pytest.mark.parametrize("is_published", [False, True])
def test_ssim_is_that_of_scikit_image(is_published):
    """Tolerance: float32, which both compute in."""
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity

    stimuli = torch.rand(3, 3, 30, 41, generator=torch.Generator().manual_seed(0))
    reconstructions = 0.7 * stimuli + 0.3 * stimuli.flip(-1)
    greys = [
        rgb2gray(x.permute(0, 2, 3, 1).numpy()) for x in (stimuli, reconstructions)
    ]
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

    assert ssim(stimuli, reconstructions, None, is_published).tolist() == pytest.approx(
        expected, abs=TOLERANCE
    )


def test_two_way_equals_the_reference_by_column_and_not_by_row(reference):
    stimuli, reconstructions = (
        reference["feature_image"],
        reference["feature_reconstruction"],
    )

    assert two_way(stimuli, reconstructions).mean().item() == pytest.approx(
        reference["two_way"].item(), abs=TOLERANCE
    )
    standard = [standardise(x) for x in (stimuli, reconstructions)]
    batches = [
        two_way_identification(
            standard[0],
            standard[1][n : n + 5],
            torch.arange(len(reconstructions))[n : n + 5],
        )
        for n in range(0, len(reconstructions), 5)
    ]
    assert torch.cat(batches).mean().item() == pytest.approx(
        reference["two_way"].item(), abs=TOLERANCE
    )


def test_correlation_distance_equals_the_reference(reference):
    stimuli, reconstructions = (
        reference["feature_image"],
        reference["feature_reconstruction"],
    )

    assert (
        gap(distance(stimuli, reconstructions), reference["correlation_distance"])
        < TOLERANCE
    )
    assert (
        gap(
            distance(stimuli, reconstructions.roll(1, 0)),
            reference["correlation_distance"],
        )
        > 0.1
    )


BRAINHIVE_SIZES = [(500, 620), (1200, 1801)]
"""Height and width: smaller and larger than 512 px; with an odd margin too."""


def photograph(height, width):
    """Cut a photograph out of a picture of fine detail, brought to size."""
    from skimage import data

    return Image.fromarray(data.astronaut()).resize(
        (width, height), Image.Resampling.LANCZOS
    )


def as_the_reference_does(picture):
    """Resize the short side to 512 and crop the centre, with PIL alone."""
    short_side_px = min(picture.size)
    width, height = (int(512 * side_px / short_side_px) for side_px in picture.size)
    left_px, top = round((width - 512) / 2), round((height - 512) / 2)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left_px, top, left_px + 512, top + 512))


def as_tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("size", BRAINHIVE_SIZES)
def test_the_brainhive_protocol_resizes_to_512_and_crops(size):
    """Tolerance: PIL rounds to bytes after each of two passes, which is less than one
    level of 255.
    """
    picture = photograph(*size)

    prepared = prepare(as_tensor(picture), "brainhive")

    assert prepared.shape == (1, 3, 512, 512)
    assert gap(prepared, as_tensor(as_the_reference_does(picture))) < 1 / 255


def test_mindeye2_squeezes_the_whole_picture_into_256_px():
    picture_with_white_quarter = torch.zeros(2, 3, 300, 600)
    picture_with_white_quarter[..., :150] = 1.0

    prepared = prepare(picture_with_white_quarter, "mindeye2")

    assert prepared.shape == (2, 3, 256, 256)
    assert prepared.mean() == pytest.approx(0.25, abs=1e-3)
    # cropped away
    assert prepare(picture_with_white_quarter, "brainhive").mean() == pytest.approx(
        0, abs=1e-3
    )
