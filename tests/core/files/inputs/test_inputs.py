"""Inputs of a command: states in words, errors in order, and a line for each way to
get what is missing.
"""

from brainhive_cli.core.base.errors import MissingData, RecipeError
from brainhive_cli.core.files.inputs import Input, describe_missing

FETCH = "brainhive fetch nsd"


def absent(name, text=FETCH, **fields):
    return Input(name, None, MissingData(f"no {name}", text), **fields)  # type: ignore[arg-type]


def test_each_input_has_one_of_five_states():
    for input_row, state, is_missing in (
        (Input("a"), "here", False),
        (Input("a", 3), "to download", False),
        (absent("a"), "missing", True),
        (absent("a", is_optional=True), "missing (optional)", False),
        (absent("a", note="for embed"), "for embed", False),
    ):
        assert input_row.state.startswith(state)
        assert input_row.is_missing == is_missing
    assert absent("a").as_dict()["line"] == FETCH


def test_each_way_is_one_line_and_those_of_the_recipe_come_first():
    wrong_input = Input(
        "channels", None, RecipeError("no channel Xz", "signal.channels=Oz")
    )
    inputs = [
        absent("a"),
        absent("b"),
        absent("b again", "mkdir b"),
        wrong_input,
        absent("c", is_optional=True),
    ]

    assert describe_missing(inputs) == [
        "no channel Xz (signal.channels=Oz)",
        f"no a, and 1 more ({FETCH})",
        "no b again (mkdir b)",
    ]
    assert describe_missing([Input("a"), Input("b", 3)]) == []
