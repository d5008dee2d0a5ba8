"""Tests of demo: its steps, its page, and its command lines."""

import html
import json
import shlex
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands import demo
from brainhive_cli.core.runs import Launch, RunFolder
from brainhive_cli.demo.simulation import PROVENANCE
from brainhive_cli.reports.pages.checklists import fill_checklists
from brainhive_cli.reports.tables.runs_shown import ShownRun
from tests.worlds.command_fixtures import use_home

pytestmark = pytest.mark.nightly


STEPS = ["embed", "train-align", "eval-retrieval", "train-prior", "reconstruct"]
FEW = {
    "train-align": ["subjects=1", "train.epochs=5"],
    "eval-retrieval": ["baseline=none"],
    "train-prior": [
        "train.steps=2",
        "validation_items=2",
        "sample_items=1",
        "sample_steps=1",
    ],
    "reconstruct": ["items=2", "repeats=1", "steps=1"],
}
"""Overrides, by step, that make the demo fast."""
HERE = Launch(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with use_home(tmp_path_factory.mktemp("demo")) as home:
        yield home


@pytest.fixture(scope="module")
def recipe():
    """Recipe of a fast demo with the shipped weights, in bf16 instead of fp32."""
    overrides = f"overrides={json.dumps(FEW)}"
    precision = {"run.mixed_precision": "bf16"}
    return demo.Recipe.resolve("demo", None, precision, [overrides])


@pytest.fixture(scope="module")
def run_demo(home, recipe):
    return demo.run(recipe, HERE)


def test_it_ends_with_a_page_that_needs_no_other_file(run_demo, home):
    page = (home / run_demo.files["page"]).read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert len(page) < 2**22
    assert page.count("<img") > 20
    assert page.count("<svg") >= 4
    title = page.partition("<h1>")[2].partition("</h1>")[0]
    assert PROVENANCE in page
    assert demo.SYSTEMS["brainhive"].signals in title
    for command in STEPS:
        assert f"brainhive {command}" in page


def test_the_checklist_marks_simulated_signals(run_demo, home):
    folder = RunFolder(home / run_demo.folder)
    (filled,) = fill_checklists([ShownRun("demo", folder)])
    answers = {row["item"]: (row["answer"], row["status"]) for row in filled.rows}
    simulated = "from simulated signals"
    window, status = answers["Sensors and time window of the analysis"]
    assert window == "17 channels, 0 to 1000 ms after stimulus onset at 250 Hz"
    assert status == simulated
    chance, status = answers["Chance level, and how it was determined"]
    assert chance.startswith("1 %")
    assert status == simulated
    assert answers["Filter (cut-off frequencies)"][1] == "not applicable"
    assert answers["Reference and ground electrodes"][1] == "not applicable"


def test_the_shipped_weights_decode_what_was_seen(run_demo):
    rows = run_demo.tables[0].rows
    assert [row[0] for row in rows] == STEPS
    top5 = RunFolder(run_demo.folder).measurements().scopes["eval-retrieval"]["top5"]
    assert (top5.n, top5.pool) == (100, 100)
    assert top5.low > 0.05, rows


def test_its_lines_run_by_hand_and_make_nothing_anew(run_demo, recipe, home):
    page = html.unescape((home / run_demo.files["page"]).read_text())
    for line, step in zip(run_demo.metrics.facts.commands, STEPS, strict=True):
        assert line.replace("\n", " ") in page
        assert "run.mixed_precision=bf16" in line
        arguments = shlex.split(line)[1:]
        ended = CliRunner().invoke(app, list(arguments) + ["--json"])
        assert ended.exit_code == 0, ended.stderr
        runs = sorted(home.glob(f"runs/{step}/*"))
        assert len(runs) == (0 if step == "embed" else 1)
        if runs:
            folder = Path(json.loads(ended.stdout)["folder"])
            assert folder.resolve() == runs[0].resolve()

    # a second demo has the same runs
    assert demo.run(recipe, HERE).folder == run_demo.folder
    (run_folder,) = home.glob("runs/train-align/*")
    assert RunFolder(run_folder).recipe()["train"]["precision"] == "bf16"
