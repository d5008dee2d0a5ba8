"""Image metrics: the reference's values, and numbers that wrong variants do not give."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.errors import BrainhiveError
from brainhive_cli.metrics.image import correlation_distance, pixcorr, prepare, ssim, two_way

TOLERANCE = 1e-6
"""The brief of the golden values."""


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, torch.Tensor]:
    """Values of the reference implementation for six noisy pictures and twelve feature vectors."""
    return load_file(shared / "golden" / "image_metrics.safetensors")


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def test_pixcorr_equals_the_reference_at_its_size_only(golden):
    image, made = golden["image"], golden["reconstruction"]

    assert gap(pixcorr(image, made), golden["pixcorr"]) < TOLERANCE
    assert gap(pixcorr(image, made, side_px=64), golden["pixcorr"]) > 100 * TOLERANCE


def test_ssim_equals_the_reference_at_its_size_only(golden):
    image, made = golden["image"], golden["reconstruction"]

    assert gap(ssim(image, made), golden["ssim"]) < TOLERANCE
    assert gap(ssim(image, made, side_px=None), golden["ssim"]) > 100 * TOLERANCE


def test_ssim_gives_the_published_value_of_a_noisy_photograph():
    """Reference: scikit-image's own test against the original implementation, 0.35796 (noise of sigma 20)."""
    from skimage import data

    camera = data.camera()
    noise = np.random.RandomState(5).normal(0, 20, camera.shape)
    noisy = np.clip(camera + noise, 0, 255).astype(camera.dtype)
    true, made = (torch.from_numpy(x / 255.0).float().expand(1, 3, -1, -1) for x in (camera, noisy))

    assert ssim(true, made, side_px=None).item() == pytest.approx(0.35796, abs=1e-5)
    assert ssim(true, made).item() != pytest.approx(0.35796, abs=2e-2)


def test_two_way_equals_the_reference_by_column_and_not_by_row(golden):
    true, made = golden["feature_image"], golden["feature_reconstruction"]

    assert two_way(true, made).mean().item() == pytest.approx(golden["two_way"].item(), abs=TOLERANCE)
    assert two_way(made, true).mean().item() != pytest.approx(golden["two_way"].item(), abs=1e-3)


def test_correlation_distance_equals_the_reference(golden):
    true, made = golden["feature_image"], golden["feature_reconstruction"]

    assert gap(correlation_distance(true, made), golden["correlation_distance"]) < TOLERANCE
    assert gap(correlation_distance(true, made.roll(1, 0)), golden["correlation_distance"]) > 0.1


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


def test_the_brainhive_protocol_crops_where_mindeye2_does_not():
    image = torch.zeros(1, 3, 640, 700)
    image[..., 64:576, 94:606] = 1.0  # the central 512 px

    assert prepare(image, "brainhive").min() == 1
    assert prepare(image, "mindeye2").min() == 0
    assert prepare(image, "mindeye2").shape == prepare(image, "brainhive").shape == (1, 3, 256, 256)
    small = torch.rand(1, 3, 64, 64)
    assert torch.equal(prepare(small, "brainhive"), prepare(small, "mindeye2"))


def test_pictures_that_shrink_are_smoothed():
    noise = torch.rand(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(0))
    assert prepare(noise).std() < 0.08  # 0.14 of four pixels each, as without antialiasing


def test_an_unknown_protocol_is_refused():
    with pytest.raises(BrainhiveError, match="no image protocol called 'fid'"):
        prepare(torch.zeros(1, 3, 8, 8), "fid")


@pytest.mark.parametrize("metric", [pixcorr, ssim])
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (torch.zeros(3, 8, 8), r"must be \[2, 3, H, W\], got \[3, 8, 8\]"),
        (torch.zeros(3, 3, 8, 8), r"must be \[2, 3, H, W\], got \[3, 3, 8, 8\]"),
        (torch.zeros(2, 1, 8, 8), r"must be \[2, 3, H, W\]"),
        (torch.full((2, 3, 8, 8), 255.0), r"must be in 0\.\.1"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"must be in 0\.\.1"),
        (torch.full((2, 3, 8, 8), torch.nan), r"must be in 0\.\.1"),
    ],
)
def test_pictures_that_cannot_be_compared_are_refused(metric, made, message):
    with pytest.raises(BrainhiveError, match=message):
        metric(torch.zeros(2, 3, 8, 8), made)


def test_a_picture_without_its_axis_of_items_is_told_what_to_be():
    with pytest.raises(BrainhiveError, match=r"image must be \[N, 3, H, W\], got \[3, 8, 8\]"):
        pixcorr(torch.zeros(3, 8, 8), torch.zeros(3, 8, 8))


def test_features_that_cannot_be_compared_are_refused():
    with pytest.raises(BrainhiveError, match="differ in shape"):
        two_way(torch.zeros(2, 4), torch.zeros(2, 5))
    with pytest.raises(BrainhiveError, match="not finite"):
        correlation_distance(torch.zeros(2, 4), torch.full((2, 4), torch.nan))
    with pytest.raises(BrainhiveError, match="at least two"):
        two_way(torch.zeros(1, 4), torch.zeros(1, 4))
