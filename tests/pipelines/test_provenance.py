"""What must be said of a model is said of all that is made from it, however it is reached."""

import json
from pathlib import Path
from typing import Any

import pytest

from brainhive_cli.caveats import SELECTED_ON_TEST, SIMULATED, UNKNOWN_SELECTION
from brainhive_cli.console import Table
from brainhive_cli.pipelines import Result

COLOURS = "encoders=['python:brainhive_cli.encoders.python:example']"
THREE = "dataset={kind: demo, noise: 0.3, subjects: 3}"
QUICK = ("sheet_rows=0", "concept_rows=0")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def selected_on_test(go, small, home: Path, shared_world: Path) -> Result:
    """A joint run of subjects 1 and 2 whose epoch was chosen on the test set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(shared_world))
        few = ("mode=joint", "subjects=1,2", "train.epochs=2", "train.selection=test")
        return go("train-align", *small, THREE, *few, f"paths.runs={home}")


@pytest.fixture
def here(world: Path, home: Path, selected_on_test: Result) -> str:
    """An override that gives this module runs of its own."""
    return f"paths.runs={home}"


def all_say(caveat: str, shown: Any) -> bool:
    """Whether every title, or every metric anywhere in a document, says something."""
    if isinstance(shown, Table):
        return caveat in shown.title
    if isinstance(shown, dict):
        own = caveat in shown["protocol"] if {"value", "protocol"} <= shown.keys() else True
        return own and all(all_say(caveat, each) for each in shown.values())
    return not isinstance(shown, list | tuple) or all(all_say(caveat, each) for each in shown)


def check(result: Result, *caveats: str) -> None:
    assert set(result.metrics["caveats"]) == set(caveats)
    assert result.tables and all(all_say(each, result.tables) for each in caveats)
    assert all(all_say(each, result.metrics) for each in caveats)


def test_fine_tuning_does_not_wash_off_that_the_epoch_was_selected_on_test(go, small, here, selected_on_test):
    still = (
        "mode=finetune",
        "train.epochs=1",
        "train.lr=1e-7",
        f"finetune.run={selected_on_test.folder.name}",
    )

    tuned = go("train-align", *small, here, *still)

    assert all(SELECTED_ON_TEST in table.title for table in tuned.tables)
    assert tuned.metrics["cells"]["sub-03_seed-1"]["selected_on"] == "test"
    config = json.loads((tuned.folder / "cells/sub-03_seed-1/model/config.json").read_text())
    assert config["learned"]["selection"] == "test" and config["learned"]["subjects"] == [1, 2, 3]
    check(go("eval-retrieval", here, f"run={tuned.folder}", *QUICK), SIMULATED, SELECTED_ON_TEST)


def test_a_model_folder_says_it_too_and_one_that_says_nothing_says_so(go, here, selected_on_test):
    model = selected_on_test.folder / "cells/all_seed-1/model"
    asked = (f"run={model}", here, THREE, "subjects=1", *QUICK)

    check(go("eval-retrieval", *asked), SIMULATED, SELECTED_ON_TEST)

    config = model / "config.json"
    kept = config.read_text()
    config.write_text(
        json.dumps({k: v for k, v in json.loads(kept).items() if k not in ("format", "learned")})
    )
    try:
        check(go("eval-retrieval", *asked, again=True), SIMULATED, UNKNOWN_SELECTION)
    finally:
        config.write_text(kept)


def test_one_run_of_an_ensemble_taints_all_and_one_compared_with_its_comparison(
    go, small, here, selected_on_test
):
    clean = go("train-align", *small, THREE, here, "mode=joint", "subjects=1,2", "train.epochs=2")
    assert SELECTED_ON_TEST not in clean.tables[0].title

    both = go("eval-retrieval", here, f"run={clean.folder.name},{selected_on_test.folder.name}", *QUICK)
    check(both, SIMULATED, SELECTED_ON_TEST)

    beside = go(
        "eval-retrieval", here, f"run={clean.folder.name}", f"against={selected_on_test.folder.name}", *QUICK
    )
    assert beside.metrics["caveats"] == [SIMULATED]
    tainted = [table.title for table in beside.tables if SELECTED_ON_TEST in table.title]
    assert len(tainted) == 1 and tainted[0].startswith("Top-1 less another run's")
