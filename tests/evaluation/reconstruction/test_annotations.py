"""What is known of clips in words and masks: of the stimuli, and decoded."""

import numpy as np
import torch

from brainhive_cli.data.datasets import StimulusSet
from brainhive_cli.evaluation.reconstruction.scoring import annotate_decoded, annotate_stimulus, list_words
from brainhive_cli.models.heads import Decoded

NAMES = ("animal", "human", "vehicle")


def test_captions_labels_and_masks_of_a_stimulus_are_collected():
    masks = np.zeros((6, 4, 4), np.uint8)
    masks[:, 1] = 1
    images = StimulusSet(
        "films", "test", ["a"], ["a"], str, lambda row: ["a car drives"], 1, 6, lambda row: masks,
        lambda row: np.array([0, 1, 1], np.uint8), NAMES,
    )  # fmt: skip

    found = annotate_stimulus(images, 0)

    assert list_words(found) == ["a car drives", "human, vehicle"]
    assert found.masks.dtype == bool and np.array_equal(found.masks, masks == 1)
    assert list_words(annotate_stimulus(StimulusSet("films", "test", ["a"], ["a"], str), 0)) == []


def test_what_was_decoded_is_named_from_the_likeliest_concept_on():
    heads = {
        "concepts": torch.tensor([[0.6, 0.1, 0.9], [0.3, 0.2, 0.1]]),
        "mask": torch.tensor([0.4, 0.6]).view(2, 1, 1, 1, 1).expand(2, 6, 1, 4, 4),
    }
    decoded = Decoded(heads, {"caption": ["a cat", ""]})

    first, second = annotate_decoded(decoded, ["a", "b"], NAMES).values()

    assert list_words(first) == ["a cat", "vehicle, animal"]
    assert list_words(second) == ["animal"]  # none is likely: the likeliest
    assert not first.masks.any() and second.masks.all() and second.masks.shape == (6, 4, 4)
    assert annotate_decoded(Decoded({"token": torch.zeros(2, 3)}), ["a", "b"], ()) == {}
    assert annotate_decoded(Decoded({"concepts": heads["concepts"]}), ["a", "b"], ("one",)) == {}
