"""Inputs of a command: states in words, errors in order, and one line for each way to get what is missing."""

import json
from pathlib import Path

import pytest

from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.foreign_code import NotRun
from brainhive_cli.core.inputs import Input, collect, describe_missing, require, tabulate

FETCH = "brainhive fetch nsd"


def absent(name: str, way: str = FETCH, **fields: object) -> Input:
    return Input(name, None, MissingData(f"no {name}", way), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "state", "is_missing"),
    [
        (Input("a"), "here", False),
        (Input("a", 3), "to download", False),
        (absent("a"), "missing", True),
        (absent("a", is_optional=True), "missing; done without", False),
        (absent("a", note="for embed"), "for embed", False),
        (Input("a", None, NotRun("python:a:b is code, which --check does not run", "")), "python:", False),
    ],
)
def test_an_input_is_here_missing_to_download_done_without_noted_or_not_run(
    one: Input, state: str, is_missing: bool
) -> None:
    assert one.state.startswith(state) and one.is_missing == is_missing
    assert json.loads(json.dumps(one.as_dict())).keys() == {"what", "bytes", "state", "line"}


def test_the_line_is_that_of_the_error_or_the_one_that_fetches_it_ahead() -> None:
    assert absent("a").as_dict()["line"] == FETCH
    assert Input("a", 3, line="hf download a").as_dict()["line"] == "hf download a"


def test_each_way_is_one_line_with_the_first_that_it_gets_and_those_of_the_recipe_come_first() -> None:
    wrong = Input("channels", None, RecipeError("no channel Xz", "signal.channels=Oz"))
    inputs = [absent("a"), absent("b"), absent("b again", "mkdir b"), wrong, absent("c", is_optional=True)]

    assert describe_missing(inputs) == [
        "no channel Xz (signal.channels=Oz)",
        f"no a, and 1 more ({FETCH})",
        "no b again (mkdir b)",
    ]
    assert describe_missing([Input("a"), Input("b", 3)]) == []


def test_the_first_that_is_missing_is_raised_and_what_is_done_without_is_not() -> None:
    require([Input("a"), absent("b", is_optional=True), Input("c", 3)])
    with pytest.raises(MissingData, match="no d"):
        require([absent("b", is_optional=True), absent("d"), absent("e")])


def test_what_several_sources_list_is_listed_once_and_an_error_that_is_known_no_second_time() -> None:
    def refused() -> list[Input]:
        raise MissingData("no a", "elsewhere")

    def broken() -> None:
        raise BrainhiveError("a store is damaged", "make it again")

    listed = collect(
        lambda: [absent("a"), Input("b")], lambda: [Input("b", 3)], refused, checks=[refused, broken]
    )

    assert [(one.name, one.state) for one in listed] == [
        ("a", "missing"),
        ("b", "here"),
        ("a store is damaged", "missing"),
    ]


def test_a_file_is_named_below_home_with_its_published_size_until_it_is_here(home: Path) -> None:
    path = home / "data/nsd/nsd_stimuli.hdf5"
    missing, here = (Input.of_file(present, path, FETCH, 39) for present in ([], [path]))

    assert (missing.name, missing.size, missing.is_missing) == ("data/nsd/nsd_stimuli.hdf5", 39, True)
    assert (here.name, here.size, here.state) == (missing.name, None, "here")


def test_sizes_and_licences_of_published_weights_stand_in_the_table_until_they_are_here() -> None:
    published = {"owner/net": {"gb": 1.7, "licence": "MIT"}}

    table = tabulate([absent("owner/net"), Input("owner/net"), Input("b", 2_000_000)], published)

    assert table.rows == (
        ("owner/net", "1.7 GB", "missing", "MIT"),
        ("owner/net", "–", "here", "–"),
        ("b", "2.0 MB", "to download", "–"),
    )
