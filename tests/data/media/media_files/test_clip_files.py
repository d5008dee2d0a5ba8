"""Clips in videos, animated pictures and folders of frames, with their rates."""

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.media import BadPicture, media_files
from brainhive_cli.data.media.media_files import (
    read_animation,
    read_frame_folder,
    write_video,
)
from tests.worlds.clips import draw_clip, save_animation, save_frames


def test_a_video_keeps_frames_and_rate_and_pads_odd_sides(tmp_path):
    pytest.importorskip("av")
    side_px = 31
    frames = draw_clip(0, side_px)

    write_video(frames, tmp_path / "clip.mp4", 3.0)
    clip = media_files.read(tmp_path / "clip.mp4")

    assert clip.rate_hz == pytest.approx(3)
    assert clip.frames.shape == (6, 32, 32, 3)
    # the codec is lossy
    assert np.abs(clip.frames[:, :side_px, :side_px].astype(int) - frames).mean() < 8
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(BadPicture, match=r"clip\.mp4"):
        media_files.read(tmp_path / "clip.mp4")


def test_frames_that_a_writer_merged_are_counted_again(tmp_path):
    frames = draw_clip(0)
    frames[2:5] = frames[2]
    save_animation(tmp_path / "clip.gif", frames, rate_hz=4)

    animation = read_animation(tmp_path / "clip.gif")

    assert len(animation.frames) == 6
    assert animation.rate_hz == pytest.approx(4)
    assert (animation.frames[2:5] == animation.frames[2]).all()


def test_frames_of_a_folder_are_in_the_order_of_their_numbers(tmp_path):
    frames = np.stack(
        [np.full((4, 4, 3), 10 * number, np.uint8) for number in range(12)]
    )
    save_frames(tmp_path / "clip", frames)

    clip = media_files.read(tmp_path / "clip")

    assert np.array_equal(clip.frames, frames)
    assert clip.rate_hz is None
    Image.new("RGB", (5, 4)).save(tmp_path / "clip" / "12.png")
    with pytest.raises(BrainhiveError, match=r"clip.*\[\(4, 4\), \(4, 5\)\]"):
        read_frame_folder(tmp_path / "clip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BrainhiveError, match="empty"):
        read_frame_folder(tmp_path / "empty")
