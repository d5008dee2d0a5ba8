"""The rule by which a clip's key object is chosen."""

import json
from pathlib import Path

from safetensors import safe_open

from brainhive_cli.data.published.cc2017 import (
    BACKGROUND,
    CONCEPTS,
    PRIORITY,
    key_object,
)


def test_key_objects_are_those_that_the_reference_chooses(golden: Path) -> None:
    with safe_open(golden / "neurons/key_objects.safetensors", "np") as file:
        cases = json.loads(file.metadata()["config"])["cases"]
        found = {
            name: key_object(
                dict(
                    zip(
                        case["objects"],
                        file.get_tensor(f"input.{name}") > 0,
                        strict=True,
                    )
                )
            )
            for name, case in cases.items()
        }
    assert found == {
        name: next(iter(case["expected"]), None) for name, case in cases.items()
    }


def test_words_are_those_of_the_reference(golden: Path) -> None:
    words = json.loads((golden / "neurons/words.json").read_text())
    ours = {"background": BACKGROUND, "priority": PRIORITY, "concepts": CONCEPTS}
    for name, listed in ours.items():
        assert list(listed) == words[name]
