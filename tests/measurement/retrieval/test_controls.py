"""Controls with wrong pictures: every permutation counts once."""

import numpy as np
import pytest

from brainhive_cli.measurement.retrieval import MAX_DRAWS, Gallery, permute_targets


def draw(count: int, alike_by: str, control: str) -> np.ndarray:
    """Return the gallery indices [K, N] of the draws that follow a control."""
    names = [f"{number:04d}" for number in range(count)]
    concepts = ["film"] * count if alike_by == "neighbours" else names
    gallery = Gallery({"test": np.arange(count)}, names, concepts, alike_by)
    targets = list(permute_targets(np.arange(count), gallery, control, 3, ()))
    return np.stack(targets[1:])


@pytest.mark.parametrize("control", ["permuted", "shuffled"])
@pytest.mark.parametrize("clips", [10, 40])
def test_a_short_film_has_as_many_draws_as_shifts(clips, control):
    """Ten clips have nine shifts. Draws once repeated them up to 1,000 times, so that
    the best of ten orders had p = .001.
    """
    targets = draw(clips, "neighbours", control)

    assert targets.shape == (clips - 1, clips)
    assert len(np.unique(targets, axis=0)) == clips - 1


def test_many_pictures_have_as_many_draws_as_the_smallest_p_says():
    assert len(np.unique(draw(30, "concept", "permuted"), axis=0)) == MAX_DRAWS
    assert len(draw(4, "concept", "permuted")) == 23
