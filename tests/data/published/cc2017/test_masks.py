"""The choice of a clip's key object."""

import json

from safetensors import safe_open

from brainhive_cli.data.published.cc2017 import (
    BACKGROUND,
    LABEL_NAMES,
    PRIORITY,
    choose_key_object,
)


def test_key_objects_are_those_that_the_reference_chooses(golden):
    with safe_open(golden / "neurons/key_objects.safetensors", "np") as file:
        cases = json.loads(file.metadata()["config"])["cases"]
        for name, case in cases.items():
            masks = file.get_tensor(f"input.{name}") > 0
            key_object = choose_key_object(
                dict(zip(case["objects"], masks, strict=True))
            )
            assert key_object == next(iter(case["expected"]), None), name


def test_words_are_those_of_the_reference(golden):
    document = json.loads((golden / "neurons/words.json").read_text())
    ours = {"background": BACKGROUND, "priority": PRIORITY, "concepts": LABEL_NAMES}
    for name, expected_words in ours.items():
        assert list(expected_words) == document[name]
