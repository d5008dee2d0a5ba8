"""Generated media in files: nothing is lost on the way to disk and back."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from brainhive_cli.data.media import media_files

RANDOM = torch.Generator().manual_seed(0)
CLIP = torch.rand(5, 3, 12, 16, generator=RANDOM)


def test_a_clip_keeps_all_its_frames(tmp_path):
    clip = CLIP[[0, 0, 1, 1, 1]]
    (pixels,) = media_files.to_bytes(clip[None])

    media_files.save(pixels, tmp_path / "clip.png")
    opened = media_files.read(tmp_path / "clip.png")

    assert pixels.shape == (5, 12, 16, 3) and np.array_equal(opened.frames, pixels)
    assert (media_files.to_media(opened) - clip).abs().max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(np.asarray(media_files.first_frame(opened)), pixels[0])


def test_a_picture_keeps_its_pixels(tmp_path):
    (pixels,) = media_files.to_bytes(CLIP[:1])

    media_files.save(pixels, tmp_path / "picture.png")
    opened = media_files.read(tmp_path / "picture.png")

    assert isinstance(opened, Image.Image) and np.array_equal(
        np.asarray(opened), pixels
    )
    assert (media_files.to_media(opened) - CLIP[0]).abs().max() <= 0.5 / 255 + 1e-6
    assert media_files.first_frame(opened) is opened


@pytest.mark.parametrize("size", [(37, 53), (500, 375)])
def test_squares_and_tensors_of_pictures_are_those_of_torchvision(size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    picture = Image.fromarray(pixels)
    true = TF.center_crop(TF.resize(picture, [32]), [32])

    square = media_files.crop_square(picture, 32)
    media = media_files.to_media(square)

    assert np.array_equal(np.asarray(square), np.asarray(true))
    assert torch.equal(media, TF.pil_to_tensor(true) / 255)
    # by which convolutions choose their way
    assert media.stride() == (TF.pil_to_tensor(true) / 255).stride()


def test_a_video_is_read_as_it_is_seen(tmp_path):
    av = pytest.importorskip("av")
    path, halves = tmp_path / "clip.mp4", np.zeros((2, 32, 48, 3), np.uint8)
    halves[:, :16] = 255  # white above black
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=8)
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV writes no rotation")
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.set_display_rotation(-90)
        for frame in halves:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        video.mux(stream.encode(None))

    frames = media_files.read(path).frames.astype(int)
    expected = np.rot90(halves, -1, axes=(1, 2))  # counter-clockwise
    assert frames.shape == expected.shape and np.abs(frames - expected).max() < 16
