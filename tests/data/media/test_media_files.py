"""Files of pictures and clips keep pixels, frames and rates."""

import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.media import BadPicture, media_files

RANDOM = torch.Generator().manual_seed(0)
CLIP = torch.rand(5, 3, 12, 16, generator=RANDOM)


def test_a_clip_keeps_all_its_frames(tmp_path):
    clip = CLIP[[0, 0, 1, 1, 1]]
    (pixels,) = media_files.to_bytes(clip[None])

    media_files.save(pixels, tmp_path / "clip.png")
    opened = media_files.read(tmp_path / "clip.png")

    assert pixels.shape == (5, 12, 16, 3)
    assert np.array_equal(opened.frames, pixels)
    assert (media_files.to_media(opened) - clip).abs().max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(np.asarray(media_files.get_first_frame(opened)), pixels[0])


def test_a_picture_keeps_its_pixels(tmp_path):
    (pixels,) = media_files.to_bytes(CLIP[:1])

    media_files.save(pixels, tmp_path / "picture.png")
    picture = media_files.read(tmp_path / "picture.png")

    assert isinstance(picture, Image.Image)
    assert np.array_equal(np.asarray(picture), pixels)
    assert (media_files.to_media(picture) - CLIP[0]).abs().max() <= 0.5 / 255 + 1e-6
    assert media_files.get_first_frame(picture) is picture


@pytest.mark.parametrize("size", [(37, 53), (500, 375)])
def test_crops_and_tensors_of_pictures_equal_torchvision(size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    picture = Image.fromarray(pixels)
    true_center_crop = TF.center_crop(TF.resize(picture, [32]), [32])

    square = media_files.crop_square(picture, 32)
    media = media_files.to_media(square)

    assert np.array_equal(np.asarray(square), np.asarray(true_center_crop))
    assert torch.equal(media, TF.pil_to_tensor(true_center_crop) / 255)
    # convolutions choose their algorithm by strides
    assert media.stride() == (TF.pil_to_tensor(true_center_crop) / 255).stride()


def test_a_rotated_video_is_read_upright(tmp_path):
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
    assert frames.shape == expected.shape
    assert np.abs(frames - expected).max() < 16


def write_halves(path):
    """Write a video of white above black."""
    pytest.importorskip("av")
    halves = np.zeros((2, 32, 48, 3), np.uint8)
    halves[:, :16] = 255
    media_files.write_video(halves, path, 8)
    return halves


@pytest.mark.parametrize(
    ("quarters", "matrix"),
    [(1, (0, -1, 1, 0)), (2, (-1, 0, 0, -1)), (3, (0, 1, -1, 0))],
)
def test_a_video_is_turned_as_its_file_says(tmp_path, quarters, matrix):
    """Phones turn their videos by the matrix in the header of the track."""
    path = tmp_path / "clip.mp4"
    halves = write_halves(path)
    content = path.read_bytes()
    # the matrix [3, 3] of fixed-point numbers is 40 bytes behind the box's version
    offset = content.index(b"tkhd") + 4 + 40
    scale_x, b, c, d = (number << 16 for number in matrix)
    turned = struct.pack(">9i", scale_x, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:offset] + turned + content[offset + 36 :])

    frames = media_files.read(path).frames.astype(int)

    expected = np.rot90(halves, quarters, axes=(1, 2))
    assert frames.shape == expected.shape
    assert np.abs(frames - expected).max() < 16


def test_outlines_of_masks_are_two_pixels_wide_and_inside():
    frames = np.full((2, 20, 20, 3), 100, np.uint8)
    masks = np.zeros((2, 10, 10), bool)
    masks[0, 2:8, 3:9] = True
    # the edge of the picture has no outline
    masks[1, :6, 4:] = True

    outline_masks = media_files.outline_masks(frames, masks, 20)

    expected = frames.copy()
    expected[0, 4:16, 6:18] = media_files.OUTLINE
    expected[0, 6:14, 8:16] = 100
    expected[1, :12, 8:] = media_files.OUTLINE
    expected[1, :10, 10:] = 100
    assert np.array_equal(outline_masks, expected)
    sized = media_files.outline_masks(frames, None, 12)
    assert sized.shape == (2, 12, 12, 3)
    assert (sized == 100).all()
    # fewer masks than frames are not drawn
    assert (media_files.outline_masks(frames, masks[:1], 20) == 100).all()


def test_an_animation_for_browsers_keeps_frames_and_rate(tmp_path):
    levels = np.array([30, 120, 200, 250], np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (4, 16, 24, 3))

    media_files.write_animation(np.ascontiguousarray(frames), tmp_path / "c.webp", 8.0)
    clip = media_files.read(tmp_path / "c.webp")

    assert clip.rate_hz == 8
    assert clip.frames.shape == frames.shape
    assert np.abs(clip.frames.astype(int) - frames).max() <= 6
    with Image.open(tmp_path / "c.webp") as file:
        assert file.info["loop"] == 0


@pytest.mark.parametrize(("rate_hz", "found_hz"), [(None, 8), (4.0, 4)])
def test_a_clip_is_saved_at_its_rate_or_that_of_browsers(tmp_path, rate_hz, found_hz):
    (pixels,) = media_files.to_bytes(CLIP[None])
    media_files.save(pixels, tmp_path / "clip.png", rate_hz)
    assert media_files.read(tmp_path / "clip.png").rate_hz == found_hz


def test_a_picture_is_a_clip_of_one_frame_without_a_rate():
    picture = Image.fromarray(media_files.to_bytes(CLIP[0]))
    clip = media_files.to_clip(picture)
    assert clip.rate_hz is None
    assert media_files.to_clip(clip) is clip
    assert np.array_equal(clip.frames, np.asarray(picture)[None])


def test_frames_of_uneven_durations_are_repeated_or_refused(tmp_path):
    frames = [Image.new("RGB", (4, 4), (60 * number, 0, 0)) for number in range(3)]

    def save(*durations_ms):
        frames[0].save(
            tmp_path / "clip.gif",
            save_all=True,
            append_images=frames[1:],
            duration=list(durations_ms),
        )
        return media_files.read_animation(tmp_path / "clip.gif")

    # 210 ms are three frames of 70 ms
    clip = save(60, 210, 120)
    levels = [int(frame[0, 0, 0]) // 50 for frame in clip.frames]
    assert levels in ([0, 1, 1, 1, 1, 2, 2], [0, 1, 1, 1, 2, 2])
    assert clip.rate_hz == pytest.approx(
        1000 / np.mean([60, 210 / levels.count(1), 60])
    )
    assert save(0, 0, 0).rate_hz is None
    # GIF rounds durations to 10 ms
    assert save(50, 60, 50).rate_hz == pytest.approx(1000 / np.mean([50, 60, 50]))
    with pytest.raises(BrainhiveError):
        save(100, 150, 100)


def test_only_files_of_several_frames_are_animated(tmp_path):
    still_path, moving = tmp_path / "still.gif", tmp_path / "moving.GIF"
    frames = [Image.new("L", (4, 4), level) for level in (0, 200)]
    frames[0].save(still_path)
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    (tmp_path / "moving.bin").write_bytes(moving.read_bytes())
    animated = [
        file.name for file in tmp_path.iterdir() if media_files.is_animated(file)
    ]
    assert animated == ["moving.GIF"]


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile film.mp4\n",
        "#EXTM3U\n#EXTINF:1,\nfilm.mp4\n#EXT-X-ENDLIST\n",
    ],
)
def test_no_playlist_is_opened_as_a_video(tmp_path, playlist):
    pytest.importorskip("av")
    frames = np.zeros((24, 32, 32, 3), np.uint8)
    media_files.write_video(frames, tmp_path / "film.mp4", 24.0)
    for ending in media_files.VIDEOS:
        path = tmp_path / f"list{ending}"
        path.write_text(playlist)
        with pytest.raises(BadPicture):
            media_files.read(path)
        with pytest.raises(BadPicture):
            media_files.count_frames(path)
        with pytest.raises(BadPicture):
            media_files.read_frames(path, [0])


def test_frames_of_a_long_video_are_read_by_their_number(tmp_path):
    # two key frames, 250 frames apart, at x264's defaults
    levels = np.arange(300) % 50 * 5
    frames = np.broadcast_to(levels[:, None, None, None], (300, 32, 32, 3))
    pytest.importorskip("av")
    path = tmp_path / "film.mp4"
    media_files.write_video(frames.astype(np.uint8), path, 24.0, crf=5)
    assert media_files.count_frames(path) == 300
    loaded_frames = media_files.read_frames(path, [3, 255, 299])
    assert np.abs(loaded_frames.mean((1, 2, 3)) - levels[[3, 255, 299]]).max() < 3
    with pytest.raises(BadPicture):
        media_files.read_frames(path, [299, 300])


def test_a_pipe_is_refused_as_a_video_before_it_blocks(tmp_path):
    pytest.importorskip("av")
    path = tmp_path / "film.mp4"
    os.mkfifo(path)
    with pytest.raises(BadPicture, match=r"film\.mp4"):
        media_files.read_video(path)
