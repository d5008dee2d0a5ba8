"""Any folder of pictures: its splits, concepts and bad files."""

import pickle
from pathlib import Path

import pytest
from PIL import Image

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data import datasets
from brainhive_cli.data.datasets import BadPicture, Dataset, image_folder
from brainhive_cli.data.datasets.image_folder import Config


def draw(path: Path, colour: str = "red", mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (6, 4), colour).save(path)


def opened(root: Path, **knobs: object) -> Dataset:
    return Config(root=str(root), **knobs).build(Paths())


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Ten concepts of two pictures, each in its folder."""
    for number in range(10):
        for letter in "ab":
            draw(tmp_path / f"pictures/c{number}/{letter}.png")
    return tmp_path / "pictures"


def test_a_flat_folder_is_one_split_of_concepts(flat: Path) -> None:
    dataset = opened(flat)
    images = dataset.images("train")
    assert (dataset.name, dataset.splits, len(images)) == ("pictures", ("train",), 20)
    assert images.image_ids[:3] == ("c0/a", "c0/b", "c1/a") and images.concepts[:3] == ("c0", "c0", "c1")


def test_named_sub_folders_are_splits(tmp_path: Path) -> None:
    for name in ("train/cat/one.jpg", "train/deep/dog/two.JPEG", "test/loose.webp", "train/notes.txt.png"):
        draw(tmp_path / name)
    (tmp_path / "train/cat/readme.md").write_text("no picture")
    dataset = opened(tmp_path, name="mine", test_share=0.5)
    assert dataset.splits == ("train", "test")
    train, test = dataset.images("train"), dataset.images("test")
    assert train.image_ids == ("train/cat/one", "train/deep/dog/two", "train/notes.txt")
    assert train.concepts == ("cat", "dog", "notes.txt")
    assert (test.image_ids, test.concepts) == (("test/loose",), ("loose",))


def test_files_come_in_the_order_of_their_folders(tmp_path: Path) -> None:
    for name in ("a-b/x.png", "a/y.png", "a.png", "a/b/z.png"):
        draw(tmp_path / name)
    assert opened(tmp_path).images("train").image_ids == ("a/b/z", "a/y", "a-b/x", "a")


def test_held_out_concepts_are_no_training_concepts(flat: Path) -> None:
    dataset = opened(flat, test_share=0.3)
    train, test = dataset.images("train"), dataset.images("test")
    assert len(set(test.concepts)) == 3 and not set(test.concepts) & set(train.concepts)
    assert len(train) + len(test) == 20
    assert opened(flat, test_share=0.3).images("test").image_ids == test.image_ids
    assert opened(flat, test_share=0.3, seed=1).images("test").image_ids != test.image_ids


def test_two_files_of_one_image_id_are_refused(flat: Path) -> None:
    draw(flat / "c0/a.jpg")
    with pytest.raises(BrainhiveError, match=r"a\.png and .*a\.jpg have one image id"):
        opened(flat).images("train")


def test_what_is_missing_is_said(tmp_path: Path, flat: Path, home: Path) -> None:
    with pytest.raises(MissingData, match=r"no folder .*data/image-folder"):
        image_folder.TINY.build(Paths())
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingData, match="no pictures under"):
        opened(tmp_path / "empty").images("train")
    with pytest.raises(MissingData, match="has no split 'test'"):
        opened(flat).images("test")
    with pytest.raises(MissingData, match="has no recordings"):
        opened(flat).recording(1, "train")


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Three concepts of two pictures, one of them called train, and a list of a test picture."""
    for concept in ("cat", "owl", "train"):
        for letter in "ab":
            draw(tmp_path / f"pictures/{concept}/{concept}_{letter}.jpg")
    (tmp_path / "test.csv").write_text("owl/owl_b.jpg\n")
    return tmp_path / "test.csv"


def test_a_list_names_the_test_pictures_and_their_concepts_are_left_out(listed: Path) -> None:
    dataset = opened(listed.parent / "pictures", test_list=str(listed))
    train, test = dataset.images("train"), dataset.images("test")
    assert dataset.splits == ("train", "test")
    assert train.image_ids == ("cat/cat_a", "cat/cat_b", "train/train_a", "train/train_b")
    assert train.concepts == ("cat", "cat", "train", "train")
    assert (test.image_ids, test.concepts) == (("owl/owl_b",), ("owl",))
    whole = opened(listed.parent / "pictures", test_list=str(listed), exclude_test_concepts=False)
    assert [*whole.images("train").image_ids][2] == "owl/owl_a" and len(whole.images("train")) == 5


def test_what_lies_among_pictures_and_is_not_read_is_counted(tmp_path: Path, flat: Path) -> None:
    for name in ("c0/x.heic", "c1/y.HEIC", "c1/README", "notes.txt"):
        (flat / name).write_bytes(b"")
    draw(flat / "c1/z.JFIF.png")
    unread = opened(flat).images("train").unread
    assert datasets.describe_unread(unread) == "4 not read: 2 .heic, 1 without ending, 1 .txt"

    # beside the folders of splits, pictures too
    split = tmp_path / "split"
    for name in ("train/a/1.jpg", "test/a/1.avif", "extra/a/1.png", "list.csv"):
        draw(split / name) if Path(name).suffix != ".csv" else (split / name).write_bytes(b"")
    folder = opened(split)
    assert folder.images("train").unread == {".png": 1, ".csv": 1} and not folder.images("test").unread
    assert datasets.describe_unread({}) == ""


def test_pictures_of_every_mode_open_as_rgb_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    for mode in ("RGBA", "LA", "P", "1"):
        draw(tmp_path / f"modes/{mode}.png", 1 if mode == "1" else "white", mode)
    (tmp_path / "modes/bad.png").write_bytes((tmp_path / "modes/P.png").read_bytes()[:50])
    images = pickle.loads(pickle.dumps(opened(tmp_path / "modes").images("train")))
    for row, image_id in enumerate(images.image_ids):
        if image_id != "bad":
            picture = images.open(row)
            assert (picture.mode, picture.size) == ("RGB", (6, 4))
    with pytest.raises(BadPicture, match=r"bad\.png cannot be decoded"):
        images.open(images.image_ids.index("bad"))


def test_a_list_that_is_none_is_refused(listed: Path) -> None:
    for content, message in (
        (b"\xff\xfe\x00", r"no list of test pictures .*test\.csv"),
        (b"\n", r"test\.csv lists no pictures"),
        (b"owl/owl_b.jpg\nyak/yak_1.jpg\n", r"pictures that are not below .*, 1 of 2: yak/yak_1\.jpg"),
    ):
        listed.write_bytes(content)
        with pytest.raises(BrainhiveError, match=message):
            opened(listed.parent / "pictures", test_list=str(listed)).images("test")
