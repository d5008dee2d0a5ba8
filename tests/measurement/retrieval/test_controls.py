"""Controls with wrong pictures: every permutation counts once."""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.measurement import Items, LabelDesign, StimulusGrouping
from brainhive_cli.measurement.retrieval import MAX_DRAWS, permute_targets


def make_clips(count):
    """Make the clips of a film, numbered from 0."""
    film = StimulusGrouping("neighbours", dict.fromkeys(range(count), "film"))
    return film.make_items([range(count)])


def draw(items):
    """Return the gallery indices [K, N] of the draws that follow a control."""
    columns = np.arange(len(items.names))
    return np.stack(list(permute_targets(columns, columns, items, seed=3))[1:])


@pytest.mark.parametrize("clips", [10, 40])
def test_a_short_film_has_as_many_draws_as_shifts(clips):
    """Ten clips have nine shifts. Draws once repeated them up to 1,000 times, so that
    the best of ten orders had p = .001.
    """
    targets = draw(make_clips(clips))

    assert targets.shape == (clips - 1, clips)
    assert len(np.unique(targets, axis=0)) == clips - 1


def test_many_pictures_have_as_many_draws_as_the_smallest_p_says():
    assert len(np.unique(draw(Items.independent([range(30)])), axis=0)) == MAX_DRAWS
    assert len(draw(Items.independent([range(4)]))) == 23


def test_a_control_exchanges_the_labels_of_units():
    """Signals of a unit get the picture of another unit of the same stratum."""
    stratum = np.arange(10) // 5
    items = replace(
        Items.independent([range(10)]), design=LabelDesign.free(np.arange(10), stratum)
    )
    units = np.array([9, 9, 0, 3, 3, 5, 1, 2, 4, 6, 7, 8])
    columns = 100 + units

    targets = np.stack(list(permute_targets(columns, units, items, seed=0)))

    assert (targets[:, 0] == targets[:, 1]).all()
    assert (targets[:, 3] == targets[:, 4]).all()
    assert (stratum[targets - 100] == stratum[units]).all()
    assert len(targets) == 1 + MAX_DRAWS
    assert (targets[0] != columns).any()


def test_labels_that_cannot_be_exchanged_keep_their_picture():
    items = replace(
        Items.independent([range(4)]),
        design=LabelDesign.free(np.arange(4), np.arange(4)),
    )

    (targets,) = permute_targets(np.arange(4) + 9, np.arange(4), items, seed=0)

    assert targets.tolist() == [9, 10, 11, 12]
