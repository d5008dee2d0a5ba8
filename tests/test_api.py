"""The names for notebooks: the page about them runs, and its numbers are those of the commands."""

import ast
import html
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_architecture import HEAVY
from test_docs import DOCS

from brainhive_cli import aligner, api
from brainhive_cli.core.errors import BrainhiveError, DeviceError, RecipeError
from brainhive_cli.models.encoders import resolve

COLOURS = resolve("python:brainhive_cli.models.encoders.python:example").name


@pytest.fixture
def page(trained: Path, evaluated: Any, go: Any) -> dict[str, Any]:
    """The variables of the page, once its blocks ran on a small data set."""
    other = go("eval-retrieval", f"run={trained}", "sheet_rows=1").folder
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "api.md").read_text(), re.DOTALL)
    names = {"EVALUATION": str(evaluated.folder), "TRAINING": trained.name}
    names |= {"DATASET": "demo-noise-0.3-40-concepts", "ENCODER": COLOURS, "OTHER": str(other)}
    text = "".join(blocks)
    for name, value in names.items():
        assert f'"{name}"' in text
        text = text.replace(f'"{name}"', repr(value))
    variables: dict[str, Any] = {}
    exec(compile(text, "api.md", "exec"), variables)
    return variables


def test_the_page_gives_the_numbers_of_the_commands(page: dict[str, Any], evaluated: Any) -> None:
    measured = evaluated.metrics.overall["top1"]
    assert (page["top1"]["value"], page["top1"]["low"], page["top1"]["n"]) == (
        *(measured.value, measured.low),
        measured.n,
    )
    assert len(page["rows"]) == sum(map(len, evaluated.metrics.scopes.values()))
    assert all(row.keys() == page["top1"].keys() and row["protocol"] for row in page["rows"])

    items = next(
        evaluated.metrics.items[name]
        for name, each in evaluated.metrics.facts.cells.items()
        if each.cell == page["cell"].name
    )
    ranks = dict(zip(items["image_ids"], items["ranks"], strict=True))
    assert [ranks[image_id] for image_id in page["found"].image_ids] == page["found"].ranks.tolist()


def test_a_notebook_shows_the_page_of_a_run_and_the_table_of_a_comparison(page: dict[str, Any]) -> None:
    frame = page["run"]._repr_html_()
    document = html.unescape(re.fullmatch(r'<iframe srcdoc="([^"]*)"[^>]*></iframe>', frame)[1])
    assert document.lower().startswith("<!doctype html>") and document.rstrip().endswith("</html>")
    assert all(caveat in document for caveat in page["run"].measurements.caveats)
    table = page["comparison"]._repr_html_()
    assert table.startswith("<table>") and "Caveats: " in table and "<b>" not in table  # equal runs: no best
    (top1,) = page["comparison"].differences
    assert (top1["metric"], top1["difference"]) == ("top1", 0)


def test_predictions_and_decoding_are_of_the_same_model(page: dict[str, Any]) -> None:
    predicted, found, member = page["predicted"], page["found"], page["trained"].member(page["cell"].name)
    rows = [predicted.image_ids.index(image_id) for image_id in found.image_ids]
    gallery = member.images("test", member.pictures("test").rows(found.gallery))
    tokens = torch.nn.functional.normalize(torch.from_numpy(predicted.heads["token"][rows]), dim=1)
    expected = tokens @ torch.nn.functional.normalize(gallery, dim=1).T
    np.testing.assert_allclose(found.similarity, expected.numpy(), atol=1e-5)


def test_channels_in_another_order_are_decoded_alike_and_a_missing_one_is_refused(
    page: dict[str, Any],
) -> None:
    recording, cell = page["new"], page["cell"]
    names = list(recording.space.names)

    def of_channels(order: list[int]) -> api.Trials:
        return api.Trials(
            np.asarray(recording.signal)[:, :, order],
            image_ids=recording.image_ids,
            space=api.Sensors([names[place] for place in order]),
            times_s=recording.times_s,
            rate_hz=recording.rate_hz,
            unit=recording.unit,
        )

    def ranks(signal: api.Trials) -> list[int]:
        return api.decode(page["trained"], signal, cell.tested_on[0], cell=cell.name).ranks.tolist()

    backwards = list(range(len(names)))[::-1]
    assert ranks(of_channels(backwards)) == page["found"].ranks.tolist()
    with pytest.raises(BrainhiveError, match=f"has no channel {names[0]}"):
        ranks(of_channels(backwards[:-1]))


def test_a_run_of_several_cells_wants_one_named_and_one_without_models_says_so(
    page: dict[str, Any],
) -> None:
    with pytest.raises(BrainhiveError, match="2 cells, of which none is named") as caught:
        page["trained"].aligner()
    assert page["cell"].name in caught.value.hint
    with pytest.raises(BrainhiveError, match="has no models"):
        page["run"].aligner()


def test_a_model_is_opened_by_its_run_or_by_its_folder(page: dict[str, Any], tmp_path: Path) -> None:
    run, cell = page["trained"], page["cell"]
    shutil.copytree(run.path / "cells" / cell.name / "model", tmp_path / "copy")
    states = [
        api.open_model(*reference).state_dict()
        for reference in ((run.path, cell.name), (run.path.name, cell.name), (tmp_path / "copy",))
    ]
    assert all(torch.equal(state[name], value) for state in states for name, value in states[0].items())
    with pytest.raises(BrainhiveError, match="2 cells, of which none is named"):
        api.open_model(run.path)
    with pytest.raises(BrainhiveError, match="is the model of one cell: no cell"):
        api.open_model(tmp_path / "copy", cell.name)
    with pytest.raises(BrainhiveError, match="nothing"):
        api.open_model("nothing")


def test_importing_it_imports_nothing_heavy_and_every_name_is_there() -> None:
    program = (
        "import sys; from brainhive_cli import api; print(*{name.split('.')[0] for name in sys.modules})"
    )
    imported = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert not {*imported} & HEAVY

    assert [name for name in api.__all__ if getattr(api, name, None) is None] == []
    assert {*api.PLACES} <= {*api.__all__} <= {*dir(api)}
    for name, place in api.PLACES.items():
        assert getattr(api, name) is getattr(importlib.import_module(f"brainhive_cli.{place}"), name)


def test_type_checkers_see_the_names_where_they_lie() -> None:
    tree = ast.parse(Path(api.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {name: seen[name] for name in api.PLACES} == {
        name: f"brainhive_cli.{place}" for name, place in api.PLACES.items()
    }


ODD = (
    None,
    -1,
    1.5,
    True,
    "",
    "x" * 5000,
    "é" * 300,
    "a\nb",
    "a\0b",
    "../..",
    "*",
    "\ud800",
    b"x",
    ["a"],
    {},
    10**400,
)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:12])
def test_bad_arguments_are_refused_by_name_with_a_way_out(trained: Path, odd: Any) -> None:
    run = api.open_run(trained)
    cell = run.cells[0]
    calls = {
        "open_run": lambda: api.open_run(odd),
        "open_store dataset": lambda: api.open_store(odd, "train", "x"),
        "open_store split": lambda: api.open_store("x", odd, "x"),
        "open_store encoder": lambda: api.open_store("x", "train", odd),
        "open_signals dataset": lambda: api.open_signals(odd, 1),
        "open_signals subject": lambda: api.open_signals("x", odd),
        "open_signals name": lambda: api.open_signals("x", 1, odd),
        "device": lambda: run.aligner(cell.name, odd),
        "split": lambda: run.predictions(cell.tested_on[0], odd, cell.name),
        "decode run": lambda: api.decode(odd, None),  # type: ignore[arg-type]
        "decode signal": lambda: api.decode(run, odd, cell=cell.name),
        "load": lambda: aligner.load(odd),
        "Paths": lambda: api.Paths(**{"folder": odd}),
    }
    if odd is not None:
        calls["subject"] = lambda: run.predictions(odd, cell=cell.name)
    for name, call in calls.items():
        with pytest.raises(BrainhiveError) as raised:
            call()
        assert raised.value.hint, name


@pytest.mark.parametrize(
    "odd", [-1, 1.5, True, b"x", {"a": 1}, [1, "b"], [None, "b"], np.array(["a", "b"]), Path("a")], ids=repr
)
def test_labels_of_another_type_are_refused_as_on_the_command_line(
    trained: Path, evaluated: Any, odd: Any
) -> None:
    with pytest.raises(RecipeError, match="labels") as raised:
        api.compare(trained, evaluated.folder, labels=odd)
    assert "\n" not in raised.value.message and raised.value.hint


@pytest.mark.parametrize("odd", [None, 1, "x", ["a"], {}, np.zeros(3), api], ids=repr)
def test_signals_of_another_type_are_refused_by_the_name_of_the_argument(trained: Path, odd: Any) -> None:
    spec = api.open_model(trained / "cells" / api.open_run(trained).cells[0].name / "model").layout.spec
    recording = api.Trials(np.zeros((2, 1, 1, 1)), ["a", "b"], api.Sensors(["Cz"]), np.zeros(1), None, "µV")
    for name in ("spec", "recording", *(["normaliser"] if odd is not None else [])):
        arguments = {"spec": spec, "recording": recording, "normaliser": None, name: odd}
        with pytest.raises(RecipeError, match=f"{name} is of type {type(odd).__name__}"):
            api.model_input(**arguments)


def test_a_subject_whom_no_cell_tests_is_refused(trained: Path) -> None:
    run = api.open_run(trained)
    with pytest.raises(RecipeError, match="is tested on other subjects than -1") as caught:
        run.predictions(-1, cell=run.cells[0].name)
    assert caught.value.hint == f"subject={run.cells[0].tested_on[0]}"


def test_folders_may_be_paths_and_nothing_else_but_text() -> None:
    assert api.Paths(data=Path("some/folder")) == api.Paths(data="some/folder")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"paths\.runs: .*, got 3"):
        api.Paths(runs=3)  # type: ignore[arg-type]


def test_devices_that_are_not_there_are_device_errors(trained: Path) -> None:
    run = api.open_run(trained)
    for device in ("gpu", "cuda:x", "mps", "meta", "cuda:99"):
        with pytest.raises(DeviceError, match=device):
            run.aligner(run.cells[0].name, device)


@pytest.mark.parametrize("field", ("signal", "image_ids", "space", "times_s", "sessions", "whiteners"))
def test_a_recording_of_odd_fields_is_refused(field: str) -> None:
    sound = {
        "signal": np.zeros((2, 1, 1, 1)),
        "image_ids": ["a", "b"],
        "space": api.Sensors(["Cz"]),
        "times_s": np.zeros(1),
        "rate_hz": None,
        "unit": "µV",
    }
    api.Trials(**sound)
    with pytest.raises(BrainhiveError, match="a recording has a field of another type"):
        api.Trials(**{**sound, field: 3.5})
    odd = {"unit": 3, "image_ids": [1, 2], "provenance": {"preparation": "filtered by hand"}}
    for name, value in odd.items():
        with pytest.raises(BrainhiveError, match=f"{name.replace('_', ' ')} of a recording"):
            api.Trials(**{**sound, name: value})
