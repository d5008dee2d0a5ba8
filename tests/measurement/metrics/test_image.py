"""Image metrics: the reference's values, and numbers that wrong variants do not give."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.measurement.metrics.image import (
    correlation_distance,
    pixcorr,
    prepare,
    resize,
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
    return two_way_identification(standardise(true), standardise(made), torch.arange(len(made)))


def distance(true: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    return correlation_distance(standardise(true), standardise(made), torch.arange(len(made)))


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def test_pixcorr_equals_the_reference_at_its_size_only(reference):
    image, made = reference["image"], reference["reconstruction"]

    assert gap(pixcorr(image, made), reference["pixcorr"]) < TOLERANCE
    assert gap(pixcorr(image, made, side_px=image.shape[-1]), reference["pixcorr"]) > 100 * TOLERANCE


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
    paper = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    paper["channel_axis"] = -1 if is_published else None
    expected = [structural_similarity(*pair, **paper) for pair in zip(*greys, strict=True)]

    assert ssim(true, made, None, is_published).tolist() == pytest.approx(expected, abs=TOLERANCE)


def test_ssim_gives_the_published_value_of_a_noisy_photograph():
    """Reference: scikit-image's own test against the original implementation, 0.35796 (noise of sigma 20)."""
    from skimage import data

    camera = data.camera()
    noise = np.random.RandomState(5).normal(0, 20, camera.shape)
    noisy = np.clip(camera + noise, 0, 255).astype(camera.dtype)
    true, made = (torch.from_numpy(x / 255.0).float().expand(1, 3, -1, -1) for x in (camera, noisy))

    assert ssim(true, made, side_px=None).item() == pytest.approx(0.35796, abs=1e-5)
    assert ssim(true, made).item() != pytest.approx(0.35796, abs=2e-2)


def test_two_way_equals_the_reference_by_column_and_not_by_row(reference):
    true, made = reference["feature_image"], reference["feature_reconstruction"]

    assert two_way(true, made).mean().item() == pytest.approx(reference["two_way"].item(), abs=TOLERANCE)
    assert two_way(made, true).mean().item() != pytest.approx(reference["two_way"].item(), abs=1e-3)


def test_correlation_distance_equals_the_reference(reference):
    true, made = reference["feature_image"], reference["feature_reconstruction"]

    assert gap(distance(true, made), reference["correlation_distance"]) < TOLERANCE
    assert gap(distance(true, made.roll(1, 0)), reference["correlation_distance"]) > 0.1


def test_two_way_of_the_pictures_themselves_is_perfect_and_of_one_picture_chance():
    features = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))

    assert (two_way(features, features) == 1).all()
    assert two_way(features, features[:1].expand(30, -1)).mean().item() == pytest.approx(0.5)


def test_constant_reconstructions_score_nothing():
    features, constant = torch.randn(5, 20), torch.full((5, 20), 0.3)
    grey, picture = torch.full((2, 3, 8, 8), 0.3), torch.rand(2, 3, 8, 8)

    assert (two_way(features, constant) == 0).all()
    assert pixcorr(picture, grey).abs().max() < TOLERANCE


@pytest.mark.parametrize("size", [(500, 333), (300, 1000), (640, 480)])
def test_white_pictures_of_any_size_are_pictures_of_one_colour(size):
    """In float32, resizing makes white 1.0000002 and a little uneven."""
    white, picture = prepare(torch.ones(1, 3, *size)), torch.rand(1, 3, 256, 256)

    assert ssim(white, white).item() == 1
    assert pixcorr(white, white).item() == pixcorr(white, picture).item() == 0
    assert pixcorr(picture, 1 - picture).item() == pytest.approx(-1)


BRAINHIVE_SIZES = [(500, 500), (500, 620), (800, 800), (1000, 800), (1200, 1200), (1200, 1801), (64, 48)]
"""Height and width: smaller and larger than 512 px, square and not; with an odd margin too."""


def photograph(height: int, width: int) -> Image.Image:
    """Cut a photograph out of a picture of fine detail, brought to size."""
    from skimage import data

    return Image.fromarray(data.astronaut()).resize((width, height), Image.Resampling.LANCZOS)


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
def test_the_brainhive_protocol_resizes_the_short_side_to_512_and_crops(size):
    """Tolerance: PIL rounds to bytes after each of two passes, which is less than one level of 255."""
    picture = photograph(*size)

    found = prepare(as_tensor(picture), "brainhive")

    assert found.shape == (1, 3, 512, 512)
    assert gap(found, as_tensor(as_the_reference_does(picture))) < 1 / 255


@pytest.mark.parametrize("side_px", [500, 800, 1200])
def test_ssim_by_the_brainhive_protocol_is_that_of_pictures_of_512_px(side_px):
    """Computed apart with PIL and scikit-image; a step at 256 px raises it by more than .05."""
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity

    seen = photograph(side_px, side_px + 100)
    grain = np.random.default_rng(0).normal(0, 40, (512, 512, 3))
    made = Image.fromarray((np.array(as_the_reference_does(seen)) + grain).clip(0, 255).astype(np.uint8))

    def grey(picture: Image.Image) -> np.ndarray:
        return rgb2gray(np.array(picture.resize((425, 425), Image.Resampling.BILINEAR)))

    paper = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = structural_similarity(grey(as_the_reference_does(seen)), grey(made), **paper)

    true, drawn = (prepare(as_tensor(picture), "brainhive") for picture in (seen, made))
    assert ssim(true, drawn).item() == pytest.approx(expected, abs=2e-3)  # PIL's bytes
    assert torch.equal(drawn, as_tensor(made))  # a reconstruction is compared as it is
    assert ssim(resize(true, 256), resize(drawn, 256)).item() > expected + 0.05


def test_mindeye2_squeezes_the_whole_picture_into_256_px():
    left = torch.zeros(2, 3, 300, 600)
    left[..., :150] = 1.0

    found = prepare(left, "mindeye2")

    assert found.shape == (2, 3, 256, 256)
    assert found.mean() == pytest.approx(0.25, abs=1e-3)
    assert prepare(left, "brainhive").mean() == pytest.approx(0, abs=1e-3)  # cropped away


def test_pictures_that_shrink_are_smoothed():
    noise = torch.rand(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(0))
    assert prepare(noise).std() < 0.08  # 0.14 of four pixels each, as without antialiasing


def test_pictures_of_the_size_stay_as_they_are():
    picture = torch.rand(1, 3, 32, 32)
    assert resize(picture, 32).data_ptr() == picture.data_ptr()


def test_features_that_cannot_be_compared_are_refused():
    with pytest.raises(BrainhiveError, match="not finite"):
        distance(torch.zeros(2, 4), torch.full((2, 4), torch.nan))
