"""Crops of pictures, clusters, and the order in which batches are loaded."""

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media import (
    StimulusSet,
    load_batches,
    read_pictures,
    to_pictures,
    use_crop_of_original,
)
from brainhive_cli.data.targets.picture_splits import (
    hold_out_clusters,
)


def draw(count):
    """Draw unit vectors of uneven groups."""
    random = np.random.default_rng(0)
    group = np.minimum(np.arange(count) % 7, np.arange(count) % 4)
    vectors = 2 * random.normal(size=(7, 6))[group] + random.normal(size=(count, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def test_as_many_clusters_as_concepts_need_two_pictures_each():
    unit = draw(12)
    assert len(hold_out_clusters(unit, list("aabbcc") * 2, 3)) == 3
    for concepts in (list("aaaaaaaaaab") + ["c"], list("aabb") * 3):
        with pytest.raises(RecipeError):
            hold_out_clusters(unit, concepts, 3)


def test_corners_are_those_of_a_crop_of_the_original():
    sizes = torch.tensor([[45, 61, 3, 9, 16, 32], [10, 80, 1, 2, 16, 16]]).float()
    assert use_crop_of_original(sizes).tolist() == [
        [45, 61, 14, 14, 16, 32],
        [10, 80, 0, 32, 16, 16],
    ]


def pictures():
    def read_picture(row):
        if row == 4:
            raise BrainhiveError("picture 4", "replace it")
        return Image.new("RGB", (4, 4), (row, 10 * row, 0))

    names = Names.of("abcde")
    return StimulusSet("set", "train", names, names, read_picture)


def view(picture):
    return torch.tensor(picture.getpixel((0, 0))), torch.arange(6.0)


def test_pictures_are_read_as_training_and_encoders_see_them():
    readers = {"level": lambda picture: torch.tensor([picture.getpixel((0, 0))[1]])}
    rows, image, sizes, views = read_pictures(pictures(), view, readers, None, [2, 0])
    assert rows.tolist() == [2, 0]
    assert image.tolist() == [[2, 20, 0], [0, 0, 0]]
    assert sizes.shape == (2, 6)
    assert views["level"].tolist() == [[20], [0]]

    def latent(row):
        return torch.tensor([row + 0.5]), torch.ones(6)

    # nothing is opened for latents alone
    _, image, _, views = read_pictures(pictures(), view, {}, latent, [4, 1])
    assert image.tolist() == [[4.5], [1.5]]
    assert views == {}
    _, image, _, views = read_pictures(pictures(), view, readers, latent, [3])
    assert image.tolist() == [[3.5]]
    assert views["level"].tolist() == [[30]]


def test_batches_are_loaded_in_their_order():
    def read_rows(rows):
        return read_pictures(pictures(), view, {}, None, rows)

    single_launch = Launch(0, 1, torch.device("cpu"))
    batches = list(load_batches(read_rows, 5, [[3, 1], [0]], 0, single_launch))
    assert [batch.rows.tolist() for batch in batches] == [[3, 1], [0]]
    assert batches[0].image[:, 0].tolist() == [3, 1]
    assert batches[1].step == 0
    with pytest.raises(BrainhiveError):
        list(load_batches(read_rows, 5, [[4]], 0, single_launch))


def test_tensors_become_pictures():
    values = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 5)
    (picture,) = to_pictures(values)
    assert picture.size == (5, 2)
    assert picture.getpixel((4, 1)) == (0, 128, 255)
