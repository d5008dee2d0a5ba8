"""Metrics of clips, frame by frame and of their motion."""

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.demo import films
from brainhive_cli.measurement.metrics import image, video
from brainhive_cli.measurement.metrics.video import (
    average_over_frames,
    end_point_error,
    psnr,
)

RANDOM = torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def reference(golden):
    return load_file(golden / "neurons/metrics.safetensors")


def test_frame_metrics_equal_the_reference(reference):
    """On pictures as they are; the right SSIM is scikit-image's of the grey picture in
    two dimensions.
    """
    pictures = (
        reference[f"input.image_{letter}"].permute(2, 0, 1)[None] / 255
        for letter in "ab"
    )
    stimulus, reconstruction = pictures

    assert psnr(stimulus, reconstruction).item() == pytest.approx(
        reference["expected.psnr"].item(), abs=1e-4
    )
    assert image.ssim(stimulus, reconstruction, None).item() == pytest.approx(
        reference["right.ssim"].item(), abs=1e-6
    )
    published = image.ssim(stimulus, reconstruction, None, is_published=True).item()
    assert published == pytest.approx(
        reference["expected.ssim_reference"].item(), abs=1e-6
    )
    # of a single frame
    clips = [
        (255 * picture).round().byte()[:, None]
        for picture in (stimulus, reconstruction)
    ]
    mean_ssim = average_over_frames(
        lambda true_frame, b: image.ssim(true_frame, b, None), *clips, torch.tensor([0])
    )
    assert mean_ssim.item() == pytest.approx(reference["right.ssim"].item(), abs=1e-6)


def moving(step_px):
    """A smooth pattern on 64 px that moves to the right, [1, 3, 3, 64, 64] as bytes."""
    coarse = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    pattern = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(
        0, 1
    )
    return (
        torch.stack([pattern.roll(step_px * n, -1) for n in range(3)], 1)
        .mul(255)
        .byte()
    )


def test_the_error_of_motion_is_the_distance_of_the_steps():
    pytest.importorskip("cv2")
    clips, row = {step: moving(step) for step in (0, 2, -2)}, torch.tensor([0])
    errors = {
        step: end_point_error(clips[2], clip, row, side_px=64).item()
        for step, clip in clips.items()
    }

    assert errors[2] == 0
    # a still: as far as the pattern moved
    assert errors[0] == pytest.approx(2, abs=0.5)
    assert errors[-2] == pytest.approx(4, abs=1)
    assert end_point_error(clips[2], clips[0], row, 128).item() == pytest.approx(
        2 * errors[0], rel=0.25
    )
    with pytest.raises(BrainhiveError) as caught:
        end_point_error(clips[2][:, :1], clips[2][:, :1], row)
    assert "epe" in caught.value.hint


def test_shuffled_clips_have_no_direction_of_motion():
    """Of drawn films, whose things go left, right, up or down; the noise is of a tenth
    of the range.
    """
    shown_films = films.list_films("test")[:40]
    clips = (
        torch.stack(
            [torch.from_numpy(film.draw_frames()) for film in shown_films]
        ).permute(0, 1, 4, 2, 3)
        / 255
    )
    steps = torch.tensor(
        [films.DIRECTIONS[film.direction] for film in shown_films]
    ).double()
    noisy = (clips + 0.1 * torch.randn(clips.shape, generator=RANDOM)).clamp(0, 1)
    displacements, rows = video.displacement(noisy), torch.arange(40)

    assert video.direction(steps, displacements, rows).mean() > 0.97
    shuffled = [
        video.direction(steps, displacements.roll(n, 0), rows).mean()
        for n in range(1, 40)
    ]
    assert abs(torch.stack(shuffled).mean()) < 0.05
    still_clips = clips[:, :1].expand(-1, 6, -1, -1, -1)
    assert (
        video.direction(steps, video.displacement(still_clips), rows).abs().max() < 1e-3
    )
