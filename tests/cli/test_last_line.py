"""Whatever a command meets, its last lines are an error and a way out, with the exit code of its kind."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.cli import execute
from brainhive_cli.core import console, documents
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.facts import Facts
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.tables import Table
from brainhive_cli.data.exchange import vectors
from brainhive_cli.data.published import nsd, nsd_prepared, things_eeg

LONG = "x" * 300
RIGHT_TO_LEFT = "\u202e\u2066\u200f\u061c"


def brainhive(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize(
    "words",
    [
        ("train-align", "--recipe", LONG),
        ("demo", "--recipe", LONG),
        ("eval-retrieval", "--run", LONG),
        ("report", LONG),
        ("check", LONG),
        ("prepare", "--from", "things-eeg", f"preparation.root={LONG}"),
    ],
)
def test_a_name_that_no_file_can_have_is_a_mistake_of_the_command_line(
    home: Path, words: tuple[str, ...]
) -> None:
    shown = brainhive(*words)
    assert shown.exit_code == 2, shown.stderr
    assert shown.stderr.startswith("error: ") and "  try: " in shown.stderr


def test_an_error_is_shown_though_its_hint_cannot_be_completed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise OSError("of the hint")

    monkeypatch.setattr(execute, "list_shipped", fail)
    shown = brainhive("eval-retrieval", "--run", "absent")
    assert shown.exit_code == MissingData.exit_code
    assert "error: no train-align run 'absent'" in shown.stderr and "of the hint" not in shown.stderr
    assert shown.stderr.endswith("  try: brainhive train-align\n")


def test_a_document_that_holds_what_is_no_number_is_refused_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"schema": NaN}')
    with pytest.raises(BrainhiveError, match=r"metrics\.json is not valid JSON: expected value"):
        documents.read(tmp_path / "metrics.json")


@pytest.mark.parametrize("signals", ["/abs", "**x", "a/b**"])
def test_a_pattern_of_signals_that_cannot_be_looked_for_is_refused_with_its_key(
    home: Path, signals: str
) -> None:
    shown = brainhive("train-align", f"dataset={{kind: things-eeg, signals: '{signals}'}}", "--check")
    assert shown.exit_code == RecipeError.exit_code
    assert shown.stderr.startswith("error: dataset.signals: ") and signals in shown.stderr
    assert things_eeg.Distributed(signals="**/x").signals == "**/x"


def test_a_suffix_of_vectors_is_no_pattern(tmp_path: Path) -> None:
    np.save(tmp_path / "a**.npy", np.ones(3))
    assert [path.name for path in vectors.open_vectors([tmp_path], [], "**").files] == ["a**.npy"]


def test_metrics_whose_facts_name_a_source_that_was_not_measured_are_refused() -> None:
    facts = Facts(sources=["brain", "images"])
    document = {**Measurements(facts=facts, scopes={"brain": {}}).as_dict()}
    with pytest.raises(BrainhiveError, match=r"facts\.sources names 'images', which is no scope of it"):
        Measurements.read(json.loads(json.dumps(document)), "metrics.json")
    document |= {"facts": {"titles": ["absent"]}}
    with pytest.raises(BrainhiveError, match="facts: titles: "):
        Measurements.read(document, "metrics.json")


def test_no_character_that_turns_the_direction_of_text_reaches_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = f"a{RIGHT_TO_LEFT}b"
    monkeypatch.setenv("COLUMNS", "80")
    console.say(bad)
    console.warn(bad)
    console.fail(BrainhiveError(bad, bad))
    console.show_text(bad)
    console.show_json({bad: bad})
    console.show_table(Table(bad, (bad, "b"), ((bad, bad),)))
    console.show_table(Table(bad, (bad, "b"), ((bad, bad * 30),), is_list=True))
    written = "".join(capsys.readouterr())
    assert not set(written) & set(RIGHT_TO_LEFT) and written.count("\\u202e") > 8


@pytest.mark.parametrize("name", ["mask", "captions", "regions"])
def test_a_link_to_an_optional_file_of_nsd_that_was_not_fetched_is_said(tmp_path: Path, name: str) -> None:
    place = {"mask": "ncsnr.nii.gz", "captions": nsd.CURATED, "regions": nsd_prepared.REGION_MASKS}[name]
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("../annex/absent")
    with pytest.raises(MissingData, match="is a link to a file that is not here") as caught:
        if name == "mask":
            nsd.find_volume(tmp_path, "ncsnr")
        elif name == "captions":
            nsd._find(tmp_path, nsd.CURATED)
        else:
            nsd_prepared.name_voxels(1, 3, [tmp_path], "again")
    assert caught.value.hint.startswith("datalad get ")
