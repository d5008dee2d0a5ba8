"""Inputs of several sources, work and its pace, and results of commands."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from brainhive_cli.commands.facts import WorkflowFacts
from brainhive_cli.core.base import (
    BrainhiveError,
    Failures,
    MissingData,
    RecipeError,
    Table,
    find_error,
)
from brainhive_cli.core.files.files import NotFetched
from brainhive_cli.core.files.inputs import (
    Input,
    collect_inputs,
    map_digests,
    require_inputs,
    tabulate,
)
from brainhive_cli.core.recipes.recipe import RunOptions
from brainhive_cli.core.results import SIMULATED, Facts, Measurements
from brainhive_cli.core.runs import (
    READ_ONLY,
    Job,
    Launch,
    Result,
    Work,
    key_work,
    read_paces,
    resolve,
)
from brainhive_cli.core.runs.work import PACE_FILE

HERE = Launch(0, 1, torch.device("cpu"))


def absent(name, **fields):
    """An input that has to be fetched."""
    return Input(name, None, MissingData(name, "fetch it"), **fields)


def fail(error):
    """Raise an error where an expression is needed."""
    raise error


def test_only_errors_of_ours_are_an_absence():
    error = MissingData("no a", "fetch it")
    assert find_error(lambda: 3) is None
    assert find_error(lambda: fail(error)) is error
    with pytest.raises(KeyError):
        find_error(lambda: fail(KeyError()))


def test_files_of_a_publisher_are_here_absent_or_not_fetched(tmp_path, home):
    path = home / "data" / "a"
    for present in (None, []):
        input_row = Input.of_file(present, path, "fetch it", 7)
        assert input_row.is_missing
        assert input_row.size == 7
        assert input_row.name == "data/a"
        assert input_row.error is not None
        assert input_row.error.hint == "fetch it"
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_text("x")
    present_input = Input.of_file(tmp_path / "file", path, "fetch it", 7)
    assert present_input == Input("data/a")
    unfetched = Input.of_file([tmp_path / "file", tmp_path / "link"], path, "fetch it")
    assert isinstance(unfetched.error, NotFetched)


def test_digests_are_named_as_recipes_name_their_content():
    inputs = [Input("a"), Input("b", digest="1"), Input("c", reference="r", digest="2")]
    assert map_digests(inputs) == {"b": "1", "r": "2"}


def test_the_first_missing_input_is_the_error():
    require_inputs(
        [Input("a"), absent("b", is_optional=True), absent("c", note="later")]
    )
    with pytest.raises(MissingData) as caught:
        require_inputs([absent("a", is_optional=True), absent("b"), absent("c")])
    assert caught.value.message == "b"


def test_inputs_of_several_sources_are_listed_once():
    error, other_recipe_error = MissingData("no b"), RecipeError("no c")
    inputs = collect_inputs(
        lambda: [Input("a"), Input("b", None, error)],
        lambda: [Input("a", 3)],
        lambda: fail(other_recipe_error),
        checks=[
            lambda: fail(MissingData("no b")),
            lambda: 1,
            lambda: fail(other_recipe_error),
        ],
    )
    assert [input_row.name for input_row in inputs] == ["a", "b", "no c"]
    assert inputs[0].size is None
    assert inputs[2].error is other_recipe_error
    order = list(collect_inputs(lambda: [], checks=[lambda: fail(error)]))
    assert order == [Input("no b", None, error)]


def test_an_optional_absence_does_not_hide_a_needed_one():
    error = MissingData("no folder")
    pictures = Input("pictures", None, error, is_optional=True)
    optional, required = collect_inputs(
        lambda: [pictures], checks=[lambda: fail(error)]
    )
    assert not optional.is_missing
    assert required.is_missing


def test_what_is_absent_before_inputs_are_known_is_one():
    module = SimpleNamespace(inputs=lambda recipe: iter(recipe))
    assert resolve(module, [Input("a")]).list_inputs() == [Input("a")]
    error = MissingData("no store")
    module.inputs = lambda recipe: fail(error)
    assert resolve(module, 0).list_inputs() == [Input("no store", None, error)]
    module.inputs = lambda recipe: fail(RecipeError("wrong"))
    with pytest.raises(RecipeError):
        resolve(module, 0).list_inputs()


def test_licence_and_size_are_of_what_is_to_be_fetched():
    published = {"net": {"gb": 1.5, "licence": "MIT"}}
    inputs = [Input("net"), absent("net"), Input("net", 2_000_000), absent("own")]
    assert tabulate(inputs, published).rows == (
        ("net", "–", "here", "–"),
        ("net", "1.5 GB", "missing", "MIT"),
        ("net", "2.0 MB", "to download", "MIT"),
        ("own", "–", "missing", "–"),
    )


def test_work_is_named_and_counted(tmp_path):
    work = Work("demo", 1200, "epochs", cells=3)
    assert work.describe() == "1,200 epochs in 3 parts"
    for cells in (1, 1200):
        assert Work("demo", 1200, "epochs", cells=cells).describe() == "1,200 epochs"
    assert work.key("embed", "cpu") == "embed, demo, on cpu"
    assert work.key("embed", "H200", 2) == "embed, demo, on 2 × H200"
    work.remember(tmp_path, "first", 2400.0, 5)
    work.remember(tmp_path, "second", 600.0, 7)
    assert read_paces(tmp_path) == {"first": (2.0, 5), "second": (0.5, 7)}
    assert [path.name for path in tmp_path.iterdir()] == [PACE_FILE]


def test_the_key_of_work_names_command_device_and_processes():
    recipe = SimpleNamespace(run=RunOptions(device="cpu", processes=3))
    work = Work("demo", 3, "cells")
    job = Job()
    job.recipe = recipe
    assert key_work("fetch", job) == (None, "")
    job.count_work = lambda: work  # type: ignore[method-assign]
    key = "train-align, demo, on 3 × cpu"
    assert key_work("train-align", job) == (work, key)


def result_of(facts, **fields):
    """A result with two tables, of which one is printed."""
    tables = (Table("T", ("a",), [], note="note"), Table("U", ("a",), []))
    return Result(
        Path("run"),
        tables,
        Measurements(facts=facts),
        printed_tables=tables[1:],
        **fields,
    )


def test_tables_of_a_result_have_its_caveats():
    result = result_of(Facts(caveats=[SIMULATED]))
    assert [table.note for table in result.tables] == [
        "note † simulated",
        "† simulated",
    ]
    assert result.printed_tables is not None
    assert result.printed_tables[0].note == "† simulated"
    assert Result(Path("run")).printed_tables is None
    facts = WorkflowFacts(caveats=[SIMULATED])
    assert [table.note for table in result_of(facts).tables] == ["note", ""]


@pytest.mark.parametrize(
    ("launch", "own_s", "kept_s"),
    [(HERE, None, 3.0), (HERE, 8.0, 2.0), (READ_ONLY, None, None),
     (Launch(1, 2, "cpu"), None, None)],
)  # fmt: skip
def test_the_main_process_keeps_the_pace_of_its_work(tmp_path, launch, own_s, kept_s):
    work = Work("demo", 4, "epochs", seconds=own_s)
    result_of(Facts(), work=work).keep_pace("embed", launch, tmp_path, 12.0)
    Result(Path("run")).keep_pace("embed", launch, tmp_path, 12.0)
    paces = read_paces(tmp_path)
    assert list(paces) == (["embed, demo, on cpu"] if kept_s else [])
    if kept_s:
        ((seconds, peak_bytes),) = paces.values()
        assert seconds == kept_s
        assert peak_bytes > 10**6


def test_a_result_is_plain_for_programs():
    files = {"page": Path("run/index.html")}
    result = result_of(Facts(), files=files, hint="next", details={"a": 1})
    plain_document = result.as_dict()
    assert plain_document["folder"] == "run"
    assert plain_document["next"] == "next"
    assert [table["title"] for table in plain_document["tables"]] == ["T", "U"]
    assert plain_document["files"] == {"page": "run/index.html"}
    assert plain_document["details"] == {"a": 1}
    assert plain_document["metrics"] == {}  # nothing was measured
    assert repr(result) == "Result('run')"


def test_a_failed_item_leaves_others_and_sets_the_exit_code(
    capsys,
):
    failures = Failures()
    finished = []
    for name in ("a", "b", "c"):
        with failures.collect():
            if name == "b":
                raise BrainhiveError("b.fif is damaged", "copy it again")
            finished.append(name)
    assert finished == ["a", "c"]
    assert failures.finish(3) == BrainhiveError.exit_code
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["error: b.fif is damaged", "  try: copy it again"]
    assert "2 of 3" in lines[2]
    assert failures.as_details()["failures"][0]["error"] == "b.fif is damaged"


def test_failing_everywhere_or_in_the_recipe_ends_the_command():
    failures = Failures()
    for name in ("a", "b"):
        with failures.collect():
            raise MissingData(name, "fetch it")
    with pytest.raises(MissingData, match="b"):
        failures.finish(2)
    with pytest.raises(RecipeError), failures.collect():
        raise RecipeError("key", "value")
    assert Failures().finish(0) == 0
    assert Failures().as_details() == {}
