"""The drawn pictures, their captions, and the data set that settings of the demo are
chosen on.
"""

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np

from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import demo
from brainhive_cli.demo.pictures import (
    N_CAPTIONS,
    draw_scene,
    list_scenes,
    write_captions,
)
from brainhive_cli.training.alignment.training.batches import choose_held_out
from tools import demo_held_out

GOLDEN = {
    "train": {0: "74cf3e429cd91a97", 42: "cff400254e233c12"},
    "test": {0: "47d08688b659d7e8", 7: "beb9d5a49cb992e4", 99: "0c6fd74bf75ce86e"},
}


def test_pictures_are_the_same_bytes_on_every_machine():
    """Digests of this code's own pixels, taken when the pictures were drawn first;
    Pillow 13, numpy 2.4.
    """
    for split, digests in GOLDEN.items():
        for number, digest in digests.items():
            picture = draw_scene(list_scenes(split)[number])
            assert hashlib.sha256(picture.tobytes()).hexdigest()[:16] == digest


def test_no_test_concept_is_ever_trained_on_but_each_of_its_factors_is():
    unseen = {scene.concept for scene in list_scenes("test")}
    assert not unseen & {scene.concept for scene in list_scenes("train")}
    for factor in ("category", "shape", "colour", "texture", "background"):
        seen = Counter(getattr(scene, factor) for scene in list_scenes("train"))
        assert all(seen[getattr(scene, factor)] >= 20 for scene in list_scenes("test"))


SHOWN = list_scenes("train")[0]


def test_each_picture_has_five_captions_of_what_is_shown_not_where() -> None:
    images = demo.Config().build(Paths()).images("test")

    found = images.get_captions(3)

    assert found == write_captions(list_scenes("test")[3])
    assert len(found) == len(set(found)) == N_CAPTIONS == images.captions_each
    assert write_captions(replace(SHOWN, x=0.1, y=0.9, size=0.3)) == write_captions(
        SHOWN
    )
    assert "an orange" in write_captions(replace(SHOWN, colour="orange"))[1]


def test_it_tests_what_train_align_holds_out_and_trains_on_the_rest() -> None:
    shipped = demo.Config().build(Paths()).images("train")
    train, test = (
        demo_held_out.Config().build(Paths()).images(split) for split in demo.SPLITS
    )

    is_held = choose_held_out(list(shipped.concepts), 0.1)
    assert set(test.image_ids) == {
        name for name, held in zip(shipped.image_ids, is_held, strict=True) if held
    }
    assert {*train.image_ids, *test.image_ids} == {*shipped.image_ids} and len(
        train
    ) == 864
    assert not {*train.concepts} & {*test.concepts}
    assert {*list(test.concepts)[:40]} == {*test.concepts}


def test_its_signals_are_no_trials_of_the_demos_test_pictures() -> None:
    tested = demo.Config(space="voxels").build(Paths()).recording(1, "test")
    chosen_on = demo_held_out.Config().build(Paths()).recording(1, "test")

    assert chosen_on.signal.shape[1:] == tested.signal.shape[1:]
    noise = [
        recording.signal[:96, 0] - recording.signal[:96, 1]
        for recording in (tested, chosen_on)
    ]
    assert abs(np.corrcoef(*(some.ravel() for some in noise))[0, 1]) < 0.1
