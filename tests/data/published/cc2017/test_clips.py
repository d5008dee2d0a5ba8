"""Clips of cc2017 as they are distributed, with captions, labels and masks."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.published.cc2017 import Clips, _open_tensor
from tests.publishers import cc2017_files
from tests.publishers.cc2017_files import (
    COUNTS,
    draw_frames,
    make_captions,
    make_key_masks,
    make_labels,
)


def make_dataset(**keys):
    return Clips(**keys).build(Paths())


def list_clips(split="train", **keys):
    return make_dataset(**keys).images(split)


@pytest.fixture
def root(home):
    """Write the files, with unpacked masks."""
    root = cc2017_files.write(home / "data/cc2017")
    cc2017_files.unpack_masks(root)
    return root


def test_clips_are_the_frames_of_tensors_of_any_dtype(home):
    for dtype, is_archive, rounding in (
        (torch.float32, True, 0),
        (torch.float16, False, 0.63),
    ):
        root = home / "data/cc2017"
        shutil.rmtree(root, ignore_errors=True)
        cc2017_files.write(root, dtype=dtype, is_archive=is_archive, masks="none")

        document = pickle.loads(pickle.dumps(list_clips("test")))  # as for workers

        assert (len(document), document.frames, document.medium) == (
            COUNTS["test"],
            6,
            "clip",
        )
        expected = np.moveaxis(draw_frames("test", COUNTS["test"]) * 255, 2, -1)
        for index, frames in enumerate(expected):
            clip = document.open(index)
            assert clip.rate_hz == 3.0
            assert (clip.frames.dtype, clip.frames.shape) == (np.uint8, (6, 8, 8, 3))
            # float16 keeps 0.13 near 255
            assert np.abs(clip.frames - frames).max() <= 0.001 + rounding


def test_the_id_is_the_index_and_the_concept_is_the_film(home):
    cc2017_files.write(
        home / "data/cc2017", {"train": 481, "test": 2}, torch.uint8, masks="none"
    )
    clips = list_clips("train")
    assert clips.image_ids[:2] == ["train/0", "train/1"]
    assert clips.image_ids[480] == "train/480"
    assert [clips.concepts[n] for n in (0, 239, 240, 480)] == [
        f"train/film-0{n}" for n in (1, 1, 2, 3)
    ]
    assert make_dataset().splits == ("train", "test")
    assert list_clips("test").image_ids == [
        "test/0",
        "test/1",
    ]


def test_captions_of_both_models_are_read(home):
    cc2017_files.write(home / "data/cc2017", text=object, masks="none")

    blip2 = list_clips()
    qwen = list_clips(captions="qwen")

    for captions, model in ((blip2, "blip2"), (qwen, "qwen")):
        expected = make_captions("train", COUNTS["train"], model)
        assert [captions.get_captions(n) for n in range(len(captions))] == [
            [text] for text in expected
        ]
    assert (blip2.dataset, qwen.dataset) == ("cc2017", "cc2017-qwen")
    for model in ("blip2", "qwen"):
        assert make_dataset(captions=model).recorded_as == "cc2017"


def test_labels_are_read_with_their_51_names(root):
    clips = list_clips("test")
    assert np.array_equal(
        [clips.get_labels(n) for n in range(3)], make_labels("test", 3)
    )
    assert len(clips.label_names) == 51
    assert clips.label_names[:3] == (
        "animal",
        "human",
        "vehicle",
    )


def test_masks_of_the_key_object_are_read(root):
    clips = list_clips()
    for index, expected in enumerate(make_key_masks(COUNTS["train"])):
        masks = np.stack(clips.get_masks(index))
        assert masks.dtype == np.uint8
        assert np.array_equal(masks, expected)


def test_absent_annotations_are_none(home):
    root = cc2017_files.write(home / "data/cc2017")
    assert list_clips().masks is None  # the archive is not unpacked
    for name in (
        "GT_train_caption.pt",
        "qwen_annotation/qwen_train_caption_tag_category_id.json",
    ):
        (root / name).unlink()
    (root / "masks/mask_cls_train_qwen_video.tar.gz").unlink()
    clips = list_clips()
    assert (clips.captions, clips.masks, clips.labels) == (None, None, None)
    assert clips.label_names == ()
    assert clips.way_out == "brainhive fetch cc2017"
    assert list_clips("test").captions


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def save_captions(root, content):
    torch.save(content, root / "GT_train_caption.pt")


BAD = {
    r"(?m)/GT_train_3fps\.pt$": lambda root: (root / "GT_train_3fps.pt").unlink(),
    r"GT_train_3fps\.pt ": lambda root: cut_short(root / "GT_train_3fps.pt"),
    r"GT_train_caption\.pt .*4 object.* 5 ": lambda root: save_captions(
        root, np.array(list("abcd"), object)
    ),
    r"GT_train_caption\.pt .*Python objects": lambda root: save_captions(
        root, np.array([Path("a")] * 5, object)
    ),
}


def test_bad_files_are_named_with_a_hint(home):
    for message, spoil in BAD.items():
        shutil.rmtree(home / "data", ignore_errors=True)
        spoil(cc2017_files.write(home / "data/cc2017", masks="none"))
        with pytest.raises(BrainhiveError, match=message) as caught:
            list_clips()
        assert "\n" not in caught.value.message
        assert caught.value.hint
        assert caught.value.exit_code in (1, 3)


@pytest.mark.parametrize(
    ("shape", "is_read"),
    [((1, 6, 1, 4), True), ((0, 6, 4, 4), False), ((2, 5, 4, 4), False)],
)
def test_tensors_with_other_axes_are_refused(tmp_path, shape, is_read):
    path = tmp_path / "frames.pt"
    torch.save(torch.zeros(shape), path)
    if is_read:
        assert tuple(_open_tensor(path, ("N", 6, "H", "W")).shape) == shape
    else:
        with pytest.raises(BrainhiveError):
            _open_tensor(path, ("N", 6, "H", "W"))
    with pytest.raises(BrainhiveError):
        _open_tensor(path, ("N", 6, "H"))


@pytest.mark.parametrize(("low", "high"), [(0, 1.5), (-0.5, 1), (0, np.nan)])
def test_values_beyond_those_of_pictures_are_refused(home, low, high):
    root = cc2017_files.write(home / "data/cc2017", masks="none")
    frames = torch.full((COUNTS["test"], 6, 3, 8, 8), float(low))
    frames[:, 0] = high
    torch.save(frames, root / "GT_test_3fps.pt")
    with pytest.raises(BrainhiveError, match="not in 0 to 1"):
        list_clips("test").open(0)
