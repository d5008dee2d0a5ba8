"""The drawn pictures: the same everywhere, with test concepts that are new but made of known factors."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from brainhive_cli.demo.pictures import draw, random_scene, scenes

GOLDEN = {
    "train": {0: "74cf3e429cd91a97", 42: "cff400254e233c12"},
    "test": {0: "47d08688b659d7e8", 7: "beb9d5a49cb992e4", 99: "0c6fd74bf75ce86e"},
}


@pytest.mark.parametrize(("split", "number"), [(split, n) for split in GOLDEN for n in GOLDEN[split]])
def test_pictures_are_the_same_bytes_on_every_machine(split, number):
    """Digests of this code's own pixels, taken when the pictures were drawn first; Pillow 13, numpy 2.4."""
    picture = draw(scenes(split)[number])
    assert hashlib.sha256(picture.tobytes()).hexdigest()[:16] == GOLDEN[split][number]


def test_the_splits_have_the_sizes_that_the_guide_names():
    assert len(scenes("train")) == 960
    assert len({scene.concept for scene in scenes("train")}) == 160
    assert len({scene.concept for scene in scenes("test")}) == len(scenes("test")) == 100


def test_no_test_concept_is_ever_trained_on():
    unseen = {scene.concept for scene in scenes("test")}
    rng = np.random.default_rng(0)
    drawn = {random_scene(rng).concept for _ in range(5000)}
    assert not unseen & {scene.concept for scene in scenes("train")}
    assert not unseen & drawn
    assert len(drawn) > 450  # nearly all of the 18 x 8 x 4 - 100 others come up


def test_the_gallery_is_full_of_lookalikes():
    places = {(s.shape, s.background, s.x, s.y, s.size) for s in scenes("test")}
    assert len(places) == len({scene.shape for scene in scenes("test")}) == 18
    assert len({draw(scene).tobytes() for scene in scenes("test")}) == 100  # alike, not the same


@pytest.mark.parametrize("factor", ["category", "shape", "colour", "texture", "background"])
def test_every_factor_of_a_test_picture_is_seen_in_training(factor):
    seen = Counter(getattr(scene, factor) for scene in scenes("train"))
    for scene in scenes("test"):
        assert seen[getattr(scene, factor)] >= 20


def test_image_ids_are_paths_of_concept_folders():
    first = scenes("train")[0]
    assert first.image_id == f"training_images/00001_{first.concept}/{first.concept}_01"
    assert scenes("test")[4].image_id.startswith("test_images/00005_")
    ids = [scene.image_id for split in ("train", "test") for scene in scenes(split)]
    assert len(set(ids)) == len(ids)


def test_scenes_come_out_the_same_twice():
    assert scenes("train") == scenes("train")
    assert random_scene(np.random.default_rng(5)) == random_scene(np.random.default_rng(5))


@pytest.mark.parametrize("resolution_px", [32, 64, 256])
def test_a_picture_can_be_drawn_at_any_size(resolution_px):
    picture = draw(scenes("test")[0], resolution_px)
    assert picture.size == (resolution_px, resolution_px)
    assert picture.mode == "RGB"


def test_sizes_show_the_same_scene():
    """A tolerance for what antialiasing does at edges: a twentieth of the range in the mean."""
    scene = scenes("test")[0]
    small = np.asarray(draw(scene, 32), dtype=float)
    large = np.asarray(draw(scene, 128).reduce(4), dtype=float)
    assert np.abs(small - large).mean() < 0.05 * 255
