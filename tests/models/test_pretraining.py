"""Training data of published weights, and the guide's table of them."""

import pytest

from brainhive_cli.core.recipes import parts, shipped_recipes
from brainhive_cli.models.pretraining import (
    OTHERS,
    look_up_training,
    read_pretraining,
)
from tests.docs.test_docs import DOCS

SHELVES = ("backbones", "encoders")
PICTURES = {"imagenet", "things"}
"""Collections of pictures that several data sets share."""
HEADER = "| model | trained on (hours or pictures) | licence | our data sets in it |"


def list_kinds(names):
    return names.split(", ")


def find_shelf(kind):
    return next(shelf for shelf in SHELVES if parts.is_kind(shelf, kind))


def describe_overlap(entry):
    """Say which data sets were in the training, as the guide does."""
    included = ", ".join(f"`{name}`" for name in entry.includes)
    if list(entry.unknown) == [OTHERS]:
        return f"{included}, others not known" if included else "not known"
    unknown = ", ".join(f"`{name}`" for name in entry.unknown)
    return f"no, {unknown} not known" if unknown else included or "no"


def write_row(names, entry):
    kinds = list_kinds(names)
    licence = entry.licence
    if not licence:
        config = parts.load(find_shelf(kinds[0]), kinds[0]).Config
        licence = config.licence
    cells = (
        ", ".join(f"`{kind}`" for kind in kinds),
        entry.data,
        licence,
        describe_overlap(entry),
    )
    return f"| {' | '.join(cells)} |"


def test_the_guide_shows_all_training_data():
    lines = (DOCS / "encoders.md").read_text().splitlines()
    start = lines.index(HEADER) + 2
    rows = [write_row(*item) for item in read_pretraining().items()]
    assert lines[start : start + len(rows)] == rows
    assert not lines[start + len(rows)].startswith("|")


def test_entries_name_parts_and_data_sets_that_exist():
    recipes = {path.name for path in shipped_recipes().glob("papers/*")}
    for names, entry in read_pretraining().items():
        shelves = {find_shelf(kind) for kind in list_kinds(names)}
        assert len(shelves) == 1
        # encoders have the licence themselves
        assert bool(entry.licence) == (shelves == {"backbones"})
        for name in (set(entry.includes) | set(entry.unknown)) - (
            {OTHERS} | set(PICTURES)
        ):
            assert parts.is_kind("datasets", name) or name in recipes, name


def test_all_backbones_with_published_weights_have_an_entry():
    kinds = []
    for kind, row in parts.read_rows("backbones").items():
        if "pretrained" in (row.model_extra or {}):
            kinds.append(kind)
    assert kinds
    assert set(kinds) <= read_pretraining().keys()


@pytest.mark.parametrize(
    ("weights", "people", "answer"),
    [
        ("cbramod", "things-eeg", "no"),
        ("labram", "things-eeg", "no"),
        ("labram", "seed-dv", "not known"),
        ("labram", "seed-dv-concept", "not known"),
        ("reve", "things-eeg", "yes"),
        ("reve", "things-eeg1", "yes"),
        ("reve", "things-eeg-nemar", "yes"),
        ("reve", "things-eeg3", "not known"),
        ("hub:owner/name", "things-eeg", "not known"),
    ],
)
def test_people_are_in_the_training_or_may_be(weights, people, answer):
    assert look_up_training(weights, people) == answer
