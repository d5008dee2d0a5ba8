"""Tests of the drawn pictures, and of the data set for choosing the demo's settings."""

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np

from brainhive_cli.core.recipes.recipe import Paths
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
    """Digests of pixels that this code drew with Pillow 13 and NumPy 2.4."""
    for split, digests in GOLDEN.items():
        for number, digest in digests.items():
            picture = draw_scene(list_scenes(split)[number])
            assert hashlib.sha256(picture.tobytes()).hexdigest()[:16] == digest


def test_test_concepts_are_new_combinations_of_trained_factors():
    test_concepts = {scene.concept for scene in list_scenes("test")}
    assert not test_concepts & {scene.concept for scene in list_scenes("train")}
    for factor in ("category", "shape", "colour", "texture", "background"):
        n_train_scenes = Counter(
            getattr(scene, factor) for scene in list_scenes("train")
        )
        assert all(
            n_train_scenes[getattr(scene, factor)] >= 20
            for scene in list_scenes("test")
        )


FIRST_SCENE = list_scenes("train")[0]


def test_captions_tell_the_content_but_not_the_position():
    images = demo.Config().build(Paths()).images("test")

    captions = images.get_captions(3)

    assert captions == write_captions(list_scenes("test")[3])
    assert len(captions) == len(set(captions)) == N_CAPTIONS == images.captions_each
    assert write_captions(
        replace(FIRST_SCENE, x=0.1, y=0.9, size=0.3)
    ) == write_captions(FIRST_SCENE)
    assert "an orange" in write_captions(replace(FIRST_SCENE, colour="orange"))[1]


def test_the_split_for_settings_tests_the_held_out_pictures():
    demo_pictures = demo.Config().build(Paths()).images("train")
    train_pictures, test_pictures = (
        demo_held_out.Config().build(Paths()).images(split) for split in demo.SPLITS
    )

    is_held_out = choose_held_out(list(demo_pictures.concepts), 0.1)
    assert set(test_pictures.image_ids) == {
        name
        for name, is_test in zip(demo_pictures.image_ids, is_held_out, strict=True)
        if is_test
    }
    assert set(train_pictures.image_ids) | set(test_pictures.image_ids) == set(
        demo_pictures.image_ids
    )
    assert len(train_pictures) == 864
    assert not set(train_pictures.concepts) & set(test_pictures.concepts)
    assert set(list(test_pictures.concepts)[:40]) == set(test_pictures.concepts)


def test_signals_for_settings_are_not_the_demos_test_trials():
    demo_recording = demo.Config(space="voxels").build(Paths()).recording(1, "test")
    held_out_recording = demo_held_out.Config().build(Paths()).recording(1, "test")

    assert held_out_recording.signal.shape[1:] == demo_recording.signal.shape[1:]
    noise = [
        recording.signal[recording.first_trials[:96]]
        - recording.signal[recording.first_trials[:96] + 1]
        for recording in (demo_recording, held_out_recording)
    ]
    assert abs(np.corrcoef(*(values.ravel() for values in noise))[0, 1]) < 0.1
