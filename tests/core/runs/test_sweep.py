"""Sweeps: their values, and the labels and overrides of the values."""

import pytest
from pydantic import Field

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.recipes import Section, parse_value
from brainhive_cli.core.runs.sweep import SweptRecipe, list_axes, read_sweep


class Training(Section):
    """Keys of a section."""

    lr: float = 0.1
    is_slow: bool = False


class Own(SweptRecipe):
    """A recipe whose keys are swept."""

    train: Training = Training()
    sizes: list[int] = Field([1])


def test_nested_sweeps_are_read_as_dotted_keys():
    assert read_sweep({"train": {"lr": "1,2"}, "a": 3, "b": {}}) == {
        "train.lr": ["1", "2"],
        "a": [3],
    }
    assert read_sweep(3) == 3
    assert Own(sweep={"train": {"lr": "1,2"}}).sweep == {"train.lr": ["1", "2"]}


def test_the_flag_names_keys_with_their_values():
    swept = read_sweep("train.lr=1e-3,1e-4 mode=intra,inter")
    assert swept == {"train.lr": ["1e-3", "1e-4"], "mode": ["intra", "inter"]}


@pytest.mark.parametrize(
    ("key", "values", "labels"),
    [
        ("train.lr", [0.5, 2], ["lr=0.5", "lr=2"]),
        ("train.is_slow", [True, False], ["is_slow=true", "is_slow=false"]),
        ("sizes", [[1], [2, 3]], ["sizes=1", "sizes=2+3"]),
        ("name", ["b c/d", "none?"], ["b-c-d", "none"]),
        ("name", ["-x.", "2x"], ["x", "name=2x"]),
        ("name", ["?", "b"], ["none", "b"]),
        ("choice", [{"kind": "net", "width": 3}, "y"], ["net,width=3", "y"]),
        ("choice", [{"width": 3}, {"width": None}], ["width=3", "width=none"]),
    ],
)
def test_values_are_labelled(key, values, labels):
    assert list(list_axes({key: values})[key]) == labels


def test_values_become_overrides_with_the_same_types():
    sweep = Own(sweep={"train.lr": "1e-3,2", "sizes": [[1], [2, 3]]}).sweep

    values = {}
    for axis in list_axes(sweep).values():
        for label, override in axis.items():
            key, _, text = override.partition("=")
            fields = {}
            Own.set_key(fields, key, parse_value(text, override))
            values[label] = Own(**fields)

    assert [values[label].train.lr for label in ("lr=1e-3", "lr=2")] == [1e-3, 2]
    assert values["sizes=2+3"].sizes == [2, 3]


@pytest.mark.parametrize("key", ["paths.runs", "run", "published", "sweep"])
def test_keys_that_runs_share_are_not_swept(key):
    with pytest.raises(RecipeError):
        Own(sweep={key: ["a", "b"]})


def test_two_values_need_two_labels():
    with pytest.raises(RecipeError):
        list_axes({"name": ["a b", "a-b"]})
