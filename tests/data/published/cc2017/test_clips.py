"""cc2017 as it is distributed: frames that stay on disk, captions in pickles, labels,
masks in tars.
"""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.published.cc2017 import Clips, _open_tensor
from tests.publishers import cc2017_files
from tests.publishers.cc2017_files import (
    COUNTS,
    captions_of,
    frames_of,
    key_masks_of,
    labels_of,
)


def cc2017(**knobs: str) -> Dataset:
    return Clips(**knobs).build(Paths())


def clips(split: str = "train", **knobs: str) -> StimulusSet:
    return cc2017(**knobs).images(split)


@pytest.fixture
def root(home: Path) -> Path:
    """The files, the masks unpacked."""
    root = cc2017_files.write(home / "data/cc2017")
    cc2017_files.unpack_masks(root)
    return root


def test_clips_are_the_frames_of_the_tensor_in_any_of_its_forms(home):
    for dtype, is_archive, rounding in (
        (torch.float32, True, 0),
        (torch.float16, False, 0.63),
    ):
        root = home / "data/cc2017"
        shutil.rmtree(root, ignore_errors=True)
        cc2017_files.write(root, dtype=dtype, is_archive=is_archive, masks="none")

        found = pickle.loads(pickle.dumps(clips("test")))  # as for workers

        assert (len(found), found.frames, found.medium) == (COUNTS["test"], 6, "clip")
        for index, frames in enumerate(
            np.moveaxis(frames_of("test", COUNTS["test"]) * 255, 2, -1)
        ):
            clip = found.open(index)
            assert (clip.rate_hz, clip.frames.dtype, clip.frames.shape) == (
                3.0,
                np.uint8,
                (6, 8, 8, 3),
            )
            # float16 keeps 0.13 near 255
            assert np.abs(clip.frames - frames).max() <= 0.001 + rounding


def test_a_clip_is_called_by_its_index_and_its_film_is_its_concept(home):
    cc2017_files.write(
        home / "data/cc2017", {"train": 481, "test": 2}, torch.uint8, masks="none"
    )
    found = clips("train")
    assert (
        found.image_ids[:2] == ["train/0", "train/1"]
        and found.image_ids[480] == "train/480"
    )
    assert [found.concepts[n] for n in (0, 239, 240, 480)] == [
        f"train/film-0{n}" for n in (1, 1, 2, 3)
    ]
    assert cc2017().splits == ("train", "test") and clips("test").image_ids == [
        "test/0",
        "test/1",
    ]


def test_captions_are_read_from_numpys_pickles_and_qwens_are_a_set_of_their_own(home):
    cc2017_files.write(home / "data/cc2017", text=object, masks="none")

    own, other = clips(), clips(captions="qwen")

    for found, how in ((own, "blip2"), (other, "qwen")):
        expected = captions_of("train", COUNTS["train"], how)
        assert [found.captions_of(n) for n in range(len(found))] == [
            [text] for text in expected
        ]
    assert (own.dataset, other.dataset) == ("cc2017", "cc2017-qwen")
    assert {cc2017(captions=how).recorded_as for how in ("blip2", "qwen")} == {"cc2017"}


def test_labels_are_those_of_the_json_with_the_names_of_51_concepts(root):
    found = clips("test")
    assert np.array_equal([found.labels_of(n) for n in range(3)], labels_of("test", 3))
    assert len(found.label_names) == 51 and found.label_names[:3] == (
        "animal",
        "human",
        "vehicle",
    )


def test_the_key_object_is_chosen_among_the_masks_of_all_objects(root):
    found = clips()
    for index, expected in enumerate(key_masks_of(COUNTS["train"])):
        masks = np.stack(found.masks_of(index))
        assert masks.dtype == np.uint8 and np.array_equal(masks, expected)


def test_what_is_not_there_is_none_and_where_it_is_had_is_said(home):
    root = cc2017_files.write(home / "data/cc2017")
    assert clips().masks is None  # packed still
    for name in (
        "GT_train_caption.pt",
        "qwen_annotation/qwen_train_caption_tag_category_id.json",
    ):
        (root / name).unlink()
    (root / "masks/mask_cls_train_qwen_video.tar.gz").unlink()
    found = clips()
    assert (found.captions, found.masks, found.labels, found.label_names) == (
        None,
        None,
        None,
        (),
    )
    assert found.way_out == "brainhive fetch cc2017" and clips("test").captions


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def caption_of(root: Path, content: object) -> None:
    torch.save(content, root / "GT_train_caption.pt")


BAD = {
    r"no .*/GT_train_3fps\.pt$": lambda root: (root / "GT_train_3fps.pt").unlink(),
    r"GT_train_3fps\.pt is damaged or cut short": lambda root: cut(
        root / "GT_train_3fps.pt"
    ),
    r"GT_train_caption\.pt .*it holds 4 object, not captions of 5 clips": lambda root: (
        caption_of(root, np.array(list("abcd"), object))
    ),
    r"GT_train_caption\.pt holds Python objects that could run code": lambda root: (
        caption_of(root, np.array([Path("a")] * 5, object))
    ),
}


def test_bad_files_are_one_line_with_a_way_out(home):
    for message, spoil in BAD.items():
        shutil.rmtree(home / "data", ignore_errors=True)
        spoil(cc2017_files.write(home / "data/cc2017", masks="none"))
        with pytest.raises(BrainhiveError, match=message) as caught:
            clips()
        assert (
            "\n" not in caught.value.message
            and caught.value.hint
            and caught.value.exit_code in (1, 3)
        )


@pytest.mark.parametrize(
    ("shape", "is_read"),
    [((1, 6, 1, 4), True), ((0, 6, 4, 4), False), ((2, 5, 4, 4), False)],
)
def test_a_tensor_has_the_axes_of_its_publisher(tmp_path, shape, is_read):
    path = tmp_path / "frames.pt"
    torch.save(torch.zeros(shape), path)
    if is_read:
        assert tuple(_open_tensor(path, "N, 6, H, W").shape) == shape
    else:
        with pytest.raises(BrainhiveError):
            _open_tensor(path, "N, 6, H, W")
    with pytest.raises(BrainhiveError):
        _open_tensor(path, "N, 6, H")
