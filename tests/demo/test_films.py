"""The drawn films: known things on known ways, with masks and labels, and voxels that answer to each."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.core import parts
from brainhive_cli.core.recipe import Paths
from brainhive_cli.demo import films, pictures, voxels


@pytest.fixture(scope="module")
def built():
    return parts.resolve("datasets", {"kind": "demo-films", "concepts": 20}).build(Paths())


def test_a_thing_goes_where_its_film_says_and_its_mask_with_it() -> None:
    for film in films.films("test")[:8]:
        where = [np.argwhere(mask).mean(0)[::-1] for mask in film.masks()]  # x, y of each frame
        way = (where[-1] - where[0]) / 64
        step = np.array(films.DIRECTIONS[film.direction])
        np.testing.assert_allclose(way, 2 * films.REACH * step, atol=0.03)


def test_no_thing_leaves_the_picture() -> None:
    for film in films.films("train")[::7]:
        for scene in film.scenes():
            edges = [at + side * scene.size / 2 for at in (scene.x, scene.y) for side in (-1.04, 1.04)]
            assert min(edges) > -0.001 and max(edges) < 1.001, scene


def test_directions_are_balanced_and_test_concepts_are_new() -> None:
    train, test = films.films("train"), films.films("test")
    assert set(Counter(film.direction for film in train).values()) == {len(train) // 4}
    assert not {film.scene.concept for film in train} & {film.scene.concept for film in test}
    assert (len(train), len(test)) == (960, 100)


def test_a_mask_covers_what_differs_from_the_empty_place() -> None:
    scene = films.films("test")[1].scene
    other = np.asarray(pictures.draw(replace(scene, x=1 - scene.x)), int)
    differs = np.abs(np.asarray(pictures.draw(scene), int) - other).sum(-1) > 30
    covered = pictures.mask(scene) + pictures.mask(replace(scene, x=1 - scene.x)) > 0
    assert (differs & ~covered).mean() < 0.03 and (covered & differs).sum() > 0.5 * covered.sum()


def test_the_data_set_gives_clips_with_captions_masks_and_labels(built) -> None:
    shown = built.images("train")
    film, clip = films.films("train")[5], shown.open(5)
    assert len(shown) == 120 and shown.medium == "clip" and shown.frames == len(clip.frames) == 6
    assert shown.masks_of(5)[0].shape == clip.frames.shape[1:3]
    names = [name for name, is_shown in zip(shown.label_names, shown.labels_of(5), strict=True) if is_shown]
    assert names == [film.scene.category, film.scene.background]
    assert film.scene.shape in " ".join(shown.captions_of(5))


def test_voxels_of_mt_tell_the_direction_and_those_of_ppa_do_not(built) -> None:
    shown = films.films("test")
    recording = built.recording(1, "test")
    signal = recording.signal.sum(1)[..., 0] / recording.repetitions[:, None]  # [N, V]
    regions = voxels.regions(1, voxels.FILMS)
    goes_right = np.array([film.direction == "right" for film in shown])
    goes_left = np.array([film.direction == "left" for film in shown])

    def correlation(region: str) -> float:
        """Of the contrast between right and left in one half of the films with that in the other."""
        half = np.arange(len(shown)) % 2 == 0
        contrasts = [
            signal[goes_right & part][:, regions[region]].mean(0)
            - signal[goes_left & part][:, regions[region]].mean(0)
            for part in (half, ~half)
        ]
        return float(np.corrcoef(*contrasts)[0, 1])

    assert correlation("MT") > 0.8 > 0.5 > correlation("PPA")
    assert "no brain was recorded" in recording.provenance["simulated"]
