"""demo: the five steps in a row, the page that shows them, and command lines that can
be run by hand.
"""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands import demo
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.demo.simulation import PROVENANCE
from tests.worlds.command_fixtures import at_home

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
"""Overrides that make each step small."""
HERE = Launch(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with at_home(tmp_path_factory.mktemp("demo")) as home:
        yield home


@pytest.fixture(scope="module")
def recipe() -> demo.Recipe:
    """The demo with the shipped weights, in few steps, in another precision than its
    own.
    """
    few = f"overrides={json.dumps(FEW)}"
    return demo.Recipe.resolve("demo", None, {"run.mixed_precision": "bf16"}, [few])


@pytest.fixture(scope="module")
def shown(home: Path, recipe: demo.Recipe) -> Result:
    return demo.run(recipe, HERE)


def test_it_ends_with_a_page_that_needs_no_other_file(shown, home):
    page = (home / shown.files["page"]).read_text()
    assert "http" not in page.replace("http-equiv", "") and len(page) < 2**22
    assert page.count("<img") > 20 and page.count("<svg") >= 4
    title = page.partition("<h1>")[2].partition("</h1>")[0]
    assert PROVENANCE in page and title == "Brainhive demo, on simulated EEG"
    for title in (
        "Ranks of the seen picture",
        "Examples, with ceiling, floor and baselines",
        "Fusion Prior",
        "Top-1 on held-out",
    ):
        assert title in page


def test_the_shipped_weights_decode_what_was_seen(shown):
    rows = shown.tables[0].rows
    assert [row[0] for row in rows] == STEPS
    assert "first of 100" in rows[2][2] and "100 test pictures" in rows[2][2]
    assert (
        RunFolder(shown.folder).measurements().scopes["eval-retrieval"]["top5"].low
        > 0.05
    ), rows
    assert "of pairs" in rows[4][2]


def test_its_lines_run_by_hand_and_make_nothing_anew(shown, recipe, home):
    page = (home / shown.files["page"]).read_text()
    for line, step in zip(shown.metrics.facts.commands, STEPS, strict=True):
        assert line.replace("\n", " ") in page.replace("&#39;", "'").replace(
            "&#34;", '"'
        )
        by_hand = CliRunner().invoke(app, [*shlex.split(line)[1:], "--json"])
        assert by_hand.exit_code == 0, by_hand.stderr
        runs = sorted(home.glob(f"runs/{step}/*"))
        assert len(runs) == (0 if step == "embed" else 1)
        if runs:
            assert (
                Path(json.loads(by_hand.stdout)["folder"]).resolve()
                == runs[0].resolve()
            )
    # nor does a second demo, and lines tell the precision of the launch
    assert (
        demo.run(recipe, HERE).folder == shown.folder
        and len([*home.glob("runs/train-align/*")]) == 1
    )
    assert all(
        "run.mixed_precision=bf16" in line for line in shown.metrics.facts.commands
    )
    (run,) = home.glob("runs/train-align/*")
    # the demo's own is fp32
    assert RunFolder(run).recipe()["train"]["precision"] == "bf16"
