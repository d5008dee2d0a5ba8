"""Metrics of clips, frame by frame and of their motion."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.demo import films
from brainhive_cli.measurement.metrics import image, video
from brainhive_cli.measurement.metrics.video import PARTS, end_point_error, frames, over_frames, psnr

RANDOM = torch.Generator().manual_seed(0)
SEEN = torch.rand(3, 4, 3, 20, 24, generator=RANDOM)
MADE = 0.5 * SEEN + 0.5 * torch.rand(3, 4, 3, 20, 24, generator=RANDOM)
OF_FRAMES = [name for name in PARTS if name.startswith("frame")]
A_BYTE = 2e-3
"""Half of 1/255: what rounding frames to bytes may move a correlation by, at most."""


@pytest.fixture(scope="module")
def reference(golden):
    return load_file(golden / "neurons/metrics.safetensors")


@pytest.mark.parametrize(
    ("name", "of_pictures"), [("frame_pixcorr", image.pixcorr), ("frame_ssim", image.ssim)]
)
def test_a_clips_value_is_the_mean_of_its_frames(name, of_pictures):
    part = PARTS[name]

    found = part.compare(part.features(SEEN), part.features(MADE), torch.arange(3))

    of_each = [of_pictures(SEEN[:, f], MADE[:, f], video.FRAME_PX) for f in range(4)]
    assert torch.allclose(found, torch.stack(of_each).mean(0), atol=A_BYTE)


@pytest.mark.parametrize("name", OF_FRAMES)
def test_each_clip_is_compared_with_its_own(name):
    part, own = PARTS[name], torch.tensor([2, 0])
    features = part.features(SEEN)
    best = 58.92 if name == "frame_psnr" else 1.0

    right = part.compare(features, features[own], own)
    wrong = part.compare(features, features[own], torch.tensor([0, 2]))

    assert right.tolist() == pytest.approx([best] * 2, abs=0.02)
    assert (wrong < 0.9 * best).all()


def test_frame_metrics_equal_the_reference(reference):
    """On pictures as they are; the right SSIM is scikit-image's of the grey picture in two dimensions."""
    pictures = (reference[f"input.image_{which}"].permute(2, 0, 1)[None] / 255 for which in "ab")
    seen, made = pictures

    assert psnr(seen, made).item() == pytest.approx(reference["expected.psnr"].item(), abs=1e-4)
    assert image.ssim(seen, made, None).item() == pytest.approx(reference["right.ssim"].item(), abs=1e-6)
    published = image.ssim(seen, made, None, is_published=True).item()
    assert published == pytest.approx(reference["expected.ssim_reference"].item(), abs=1e-6)
    clips = [(255 * each).round().byte()[:, None] for each in (seen, made)]  # of one frame
    found = over_frames(lambda a, b: image.ssim(a, b, None), *clips, torch.tensor([0]))
    assert found.item() == pytest.approx(reference["right.ssim"].item(), abs=1e-6)


def test_equal_frames_have_a_finite_ratio_below_that_of_any_other():
    other = SEEN[:, 0].clone()
    other[:, 0, 0, 0] += 2 / 255

    assert psnr(SEEN[:, 0], SEEN[:, 0]).tolist() == pytest.approx([58.92] * 3, abs=0.01)
    assert (psnr(SEEN[:, 0], other) <= psnr(SEEN[:, 0], SEEN[:, 0])).all()


def moving(step_px: int) -> torch.Tensor:
    """A smooth pattern on 64 px that moves to the right, [1, 3, 3, 64, 64] as bytes."""
    coarse = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    pattern = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1)
    return torch.stack([pattern.roll(step_px * n, -1) for n in range(3)], 1).mul(255).byte()


def test_the_error_of_motion_is_the_distance_of_the_steps():
    pytest.importorskip("cv2")
    clips, own = {step: moving(step) for step in (0, 2, -2)}, torch.tensor([0])
    errors = {step: end_point_error(clips[2], clip, own, side_px=64).item() for step, clip in clips.items()}

    assert errors[2] == 0
    assert errors[0] == pytest.approx(2, abs=0.5)  # a still: as far as the pattern moved
    assert errors[-2] == pytest.approx(4, abs=1)
    assert end_point_error(clips[2], clips[0], own, 128).item() == pytest.approx(2 * errors[0], rel=0.25)
    with pytest.raises(BrainhiveError, match="one frame have no motion"):
        end_point_error(clips[2][:, :1], clips[2][:, :1], own)


def test_without_opencv_the_error_of_motion_names_its_extra(monkeypatch):
    monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)

    assert "brainhive[video]" in video.find_missing_opencv().hint


def test_frames_are_kept_as_bytes_at_the_size_of_the_comparison():
    found = frames(SEEN)

    assert (found.dtype, found.shape) == (torch.uint8, (3, 4, 3, 256, 256))
    assert np.abs(frames(torch.ones(1, 1, 3, 9, 9)).numpy().astype(int) - 255).max() == 0


def test_the_direction_of_motion_is_that_of_what_moves_and_shuffled_clips_have_none():
    """Of drawn films, whose things go left, right, up or down; the noise is of a tenth of the range."""
    shown = films.films("test")[:40]
    clips = torch.stack([torch.from_numpy(film.frames()) for film in shown]).permute(0, 1, 4, 2, 3) / 255
    steps = torch.tensor([films.DIRECTIONS[film.direction] for film in shown]).double()
    noisy = (clips + 0.1 * torch.randn(clips.shape, generator=RANDOM)).clamp(0, 1)
    found, own = video.displacement(noisy), torch.arange(40)

    assert video.direction(steps, found, own).mean() > 0.97
    shuffled = [video.direction(steps, found.roll(n, 0), own).mean() for n in range(1, 40)]
    assert abs(torch.stack(shuffled).mean()) < 0.05
    still = clips[:, :1].expand(-1, 6, -1, -1, -1)
    assert video.direction(steps, video.displacement(still), own).abs().max() < 1e-3
