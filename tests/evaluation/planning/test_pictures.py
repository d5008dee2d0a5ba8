"""Tests of the folder of pictures that a planned study can show."""

import shutil

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.evaluation.planning.pictures import PictureFolder
from tests.worlds.own_recordings import PICTURE_NAMES, write_pictures


def open_folder(name):
    """Open a folder below the home folder, with an encoder without weights."""
    return PictureFolder.open(name, "gabor", Paths())


def test_pictures_have_their_concepts_and_embeddings(home):
    write_pictures(home / "pictures")
    folder = open_folder("pictures")
    assert set(folder.concept_of) == {f"{name}.png" for name in PICTURE_NAMES}
    assert folder.concept_of["train/cat/cat_0.png"] == "cat"
    assert not folder.inputs()[-1].digest

    folder.embed(Launch(0, 1, "cpu"))
    assert len(folder.read_embeddings()) == len(PICTURE_NAMES)
    assert open_folder("pictures").inputs()[-1].digest

    # other pictures are another plan
    (home / "pictures/train/cat/cat_0.png").unlink()
    assert not open_folder("pictures").inputs()[-1].digest


def test_near_copies_are_found(home):
    write_pictures(home / "pictures")
    picture = home / "pictures/train/cat/cat_0.png"
    owls = home / "pictures/test/owl"
    pixels = np.random.default_rng(0).integers(0, 255, (12, 12, 3), np.uint8)
    image = Image.fromarray(pixels).resize((96, 96))
    image.save(picture)
    shutil.copy(picture, owls / "copy.png")
    image.resize((64, 64)).save(owls / "near.png")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(owls / "mirrored.png")
    folder = open_folder("pictures")
    folder.embed(Launch(0, 1, "cpu"))
    train = ["train/cat/cat_0.png", "train/dog/dog_0.png"]
    copies = ["test/owl/copy.png", "test/owl/near.png"]
    test = ["test/car/car_9.png"] + list(copies) + ["test/owl/mirrored.png"]
    assert folder.find_copies(train, test) == copies


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_pictures_is_refused(name, home):
    (home / "empty").mkdir()
    with pytest.raises(MissingData):
        open_folder(name)


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\x1b[2Jb", "a\u202eb", "a;=b"])
def test_a_picture_that_no_table_can_name_is_refused(name, home):
    write_pictures(home / "pictures")
    owls = home / "pictures/test/owl"
    (owls / "owl_9.png").rename(owls / f"{name}.png")
    with pytest.raises(BrainhiveError, match="rename it") as error:
        open_folder("pictures")
    assert str(error.value).isprintable()
