"""Any folder of pictures: its splits, concepts and bad files."""

import pickle

import pytest
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.datasets import image_folder
from brainhive_cli.data.datasets.image_folder import Config
from brainhive_cli.data.media.pictures import BadPicture


def draw(path, colour="red", mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (6, 4), colour).save(path)


def build(root, **knobs):
    return Config(root=str(root), **knobs).build(Paths())


@pytest.fixture
def flat(tmp_path):
    """Ten concepts of two pictures, each in its folder."""
    for number in range(10):
        for letter in "ab":
            draw(tmp_path / f"pictures/c{number}/{letter}.png")
    return tmp_path / "pictures"


def test_a_flat_folder_is_one_split_of_concepts(flat):
    dataset = build(flat)
    images = dataset.images("train")
    assert (dataset.name, dataset.splits, len(images)) == ("pictures", ("train",), 20)
    assert (images.dataset, images.split) == ("pictures", "train")
    assert images.image_ids[:3] == ("c0/a", "c0/b", "c1/a")
    assert images.concepts[:3] == (
        "c0",
        "c0",
        "c1",
    )


def test_named_sub_folders_are_splits(tmp_path):
    for name in (
        "train/cat/one.jpg",
        "train/deep/dog/two.JPEG",
        "test/loose.webp",
        "train/notes.txt.png",
    ):
        draw(tmp_path / name)
    (tmp_path / "train/cat/readme.md").write_text("no picture")
    dataset = build(tmp_path, name="mine", test_share=0.5)
    assert dataset.splits == ("train", "test")
    train, test = dataset.images("train"), dataset.images("test")
    assert (train.dataset, train.split, test.split) == ("mine", "train", "test")
    assert train.unread_counts == {".md": 1}
    assert not test.unread_counts
    assert train.image_ids == ("train/cat/one", "train/deep/dog/two", "train/notes.txt")
    assert train.concepts == ("cat", "dog", "notes.txt")
    assert (test.image_ids, test.concepts) == (("test/loose",), ("loose",))


def test_held_out_concepts_are_no_training_concepts(flat):
    dataset = build(flat, test_share=0.3)
    train, test = dataset.images("train"), dataset.images("test")
    assert len(set(test.concepts)) == 3
    assert not set(test.concepts) & set(train.concepts)
    assert len(train) + len(test) == 20
    assert build(flat, test_share=0.3).images("test").image_ids == test.image_ids
    assert (
        build(flat, test_share=0.3, seed=1).images("test").image_ids != test.image_ids
    )


def test_two_files_of_one_image_id_are_refused(flat):
    draw(flat / "c0/a.jpg")
    with pytest.raises(BrainhiveError, match=r"a\.png and .*a\.jpg"):
        build(flat).images("train")


def test_absent_folders_splits_and_recordings_are_named(tmp_path, flat, home):
    with pytest.raises(MissingData, match="data/image-folder"):
        image_folder.TINY.build(Paths())
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingData, match="empty"):
        build(tmp_path / "empty").images("train")
    with pytest.raises(MissingData, match="'test'"):
        build(flat).images("test")
    with pytest.raises(MissingData, match="pictures"):
        build(flat).recording(1, "train")


@pytest.fixture
def image_lists(tmp_path):
    """Write pictures of cat, owl and train, and a list of a test picture."""
    for concept in ("cat", "owl", "train"):
        for letter in "ab":
            draw(tmp_path / f"pictures/{concept}/{concept}_{letter}.jpg")
    (tmp_path / "test.csv").write_text("owl/owl_b.jpg\n")
    return tmp_path / "test.csv"


def test_concepts_of_listed_test_pictures_are_not_trained_on(
    image_lists,
):
    dataset = build(image_lists.parent / "pictures", test_list=str(image_lists))
    train, test = dataset.images("train"), dataset.images("test")
    assert dataset.splits == ("train", "test")
    assert train.image_ids == (
        "cat/cat_a",
        "cat/cat_b",
        "train/train_a",
        "train/train_b",
    )
    assert train.concepts == ("cat", "cat", "train", "train")
    assert (test.image_ids, test.concepts) == (("owl/owl_b",), ("owl",))
    all_concepts = build(
        image_lists.parent / "pictures",
        test_list=str(image_lists),
        exclude_test_concepts=False,
    )
    assert list(all_concepts.images("train").image_ids)[2] == "owl/owl_a"
    assert len(all_concepts.images("train")) == 5


def test_pictures_of_every_mode_open_as_rgb(
    tmp_path,
):
    for mode in ("RGBA", "LA", "P", "1"):
        draw(tmp_path / f"modes/{mode}.png", 1 if mode == "1" else "white", mode)
    (tmp_path / "modes/bad.png").write_bytes(
        (tmp_path / "modes/P.png").read_bytes()[:50]
    )
    images = pickle.loads(pickle.dumps(build(tmp_path / "modes").images("train")))
    for row, image_id in enumerate(images.image_ids):
        if image_id != "bad":
            picture = images.open(row)
            assert (picture.mode, picture.size) == ("RGB", (6, 4))
    with pytest.raises(BadPicture, match=r"bad\.png"):
        images.open(images.image_ids.index("bad"))


def test_the_first_name_of_a_split_s_folder_counts(tmp_path):
    for name in ("val/a/1.png", "validation/b/2.png", "train/c/3.png"):
        draw(tmp_path / name)
    dataset = build(tmp_path)
    assert dataset.splits == ("train", "validation")
    assert dataset.images("validation").image_ids == ("validation/b/2",)
    with pytest.raises(RecipeError):
        build(tmp_path, holdout={"by": "trials"})


@pytest.mark.parametrize(
    "knobs",
    [
        {"test_list": "list.csv", "test_share": 0.5},
        {"test_share": 0.5, "holdout": {"by": "trials"}},
        {"exclude_test_concepts": False},
    ],
)
def test_test_pictures_are_chosen_in_one_way(knobs):
    with pytest.raises((ValueError, RecipeError)):
        Config(**knobs)


@pytest.mark.parametrize(("count", "few_number"), [(300, 300), (301, 0)])
def test_a_ridge_is_usual_for_few_pictures(tmp_path, count, few_number):
    (tmp_path / "a").mkdir()
    for number in range(count):
        (tmp_path / f"a/{number}.png").touch()
    assert Config(root=str(tmp_path)).few_pictures(Paths()) == few_number


@pytest.mark.parametrize(("share", "count"), [(0.26, 3), (0.25, 2)])
def test_a_share_of_concepts_is_rounded(flat, share, count):
    test = build(flat, test_share=share).images("test")
    assert len(set(test.concepts)) == count
    assert len(test) == 2 * count


@pytest.mark.parametrize(("share", "n_test"), [(0.04, "0 of 10"), (0.96, "10 of 10")])
def test_a_share_that_leaves_a_split_empty_is_refused(flat, share, n_test):
    with pytest.raises(RecipeError, match=f"test_share is {share}.*{n_test}"):
        build(flat, test_share=share).images("test")


@pytest.mark.parametrize("content", ["", ' ,"\n', "owl/none.jpg\n", "owl_a.jpg\nx"])
def test_a_list_without_pictures_of_the_folder_is_refused(image_lists, content):
    image_lists.write_text(content)
    with pytest.raises(BrainhiveError):
        build(image_lists.parent / "pictures", test_list=str(image_lists)).images(
            "train"
        )
    with pytest.raises(MissingData):
        build(image_lists.parent / "pictures", test_list="none.csv").images("train")
