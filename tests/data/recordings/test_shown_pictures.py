"""Names of shown pictures are matched with the pictures of a data set."""

from types import SimpleNamespace

import numpy as np

from brainhive_cli.data.recordings.shown_pictures import match_pictures


def test_ambiguous_short_picture_names_are_left_out():
    """A session in which no name is certain keeps its trials, counted as left out."""
    stimuli = SimpleNamespace(name="d", are_categories=False)
    pictures = ["train/cat/1", "train/dog/2"], np.array(["train", "train"])
    names = ["p/cat/1.jpg", "q/cat/1.jpg"]
    image_ids, splits, missing_counts = match_pictures(names, stimuli, pictures)
    assert image_ids == ["", ""]
    assert splits.tolist() == ["", ""]
    assert sum(missing_counts.values()) == 2
