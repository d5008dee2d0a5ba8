"""Metrics of clips, frame by frame."""

import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.metrics import image, video
from brainhive_cli.metrics.video import PARTS

RANDOM = torch.Generator().manual_seed(0)
SEEN = torch.rand(3, 4, 3, 20, 24, generator=RANDOM)
MADE = 0.5 * SEEN + 0.5 * torch.rand(3, 4, 3, 20, 24, generator=RANDOM)


@pytest.mark.parametrize(
    ("name", "of_pictures"), [("frame_pixcorr", image.pixcorr), ("frame_ssim", image.ssim)]
)
def test_a_clips_value_is_the_mean_of_its_frames(name, of_pictures):
    part = PARTS[name]

    found = part.compare(part.features(SEEN), part.features(MADE), torch.arange(3))

    frames = [of_pictures(SEEN[:, f], MADE[:, f], video.FRAME_PX) for f in range(4)]
    assert torch.allclose(found, torch.stack(frames).mean(0), atol=1e-6)


@pytest.mark.parametrize("name", PARTS)
def test_each_clip_is_compared_with_its_own(name):
    part, own = PARTS[name], torch.tensor([2, 0])
    features = part.features(SEEN)

    assert torch.allclose(part.compare(features, features[own], own), torch.ones(2, dtype=torch.float64))
    assert (part.compare(features, features[own], torch.tensor([0, 2])) < 0.9).all()


def test_clips_of_other_lengths_are_refused_with_both():
    with pytest.raises(BrainhiveError, match="clips of 4 frames cannot be compared with clips of 3"):
        PARTS["frame_ssim"].compare(SEEN, MADE[:, :3], torch.arange(3))
