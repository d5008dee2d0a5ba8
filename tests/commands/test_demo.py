"""demo: the five steps in a row, the page that shows them, and command lines that can be run by hand."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands import demo
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.demo.simulation import PROVENANCE

WEIGHTS = Path(demo.__file__).parents[1] / "demo" / "weights"
COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
STEPS = ["embed", "train-align", "eval-retrieval", "train-prior", "reconstruct"]
FEW = {
    "train-align": ["subjects=1", "train.epochs=2"],
    "train-prior": ["train.steps=2", "validation_items=2", "sample_items=1", "sample_steps=1"],
    "reconstruct": ["items=2", "repeats=1", "steps=1"],
}
"""Overrides that make each step small."""


def overridden(**by_step: list[str]) -> str:
    named = {step.replace("_", "-"): given for step, given in by_step.items()}
    return "overrides=" + json.dumps({step: FEW.get(step, []) + named.get(step, []) for step in STEPS})


@pytest.fixture
def tiny(home: Path, generator: Path, prior: Path) -> str:
    """Overrides with a tiny generator and prior in the place of the shipped ones."""
    drawn_by = f"generator.source={generator}"
    return overridden(
        embed=[COLOURS],
        train_align=[COLOURS, f"prior={prior}"],
        train_prior=[COLOURS, f"continue_from={prior}", drawn_by, "resolution_px=32"],
        reconstruct=[drawn_by, "resolution_px=32", f"metric_{COLOURS}"],
    )


def test_the_demo_ends_with_a_page_and_with_commands_that_find_what_it_made(go, tiny, home):
    result = go("demo", tiny)

    page = (home / result.files["page"]).read_text()
    assert "http" not in page.replace("http-equiv", "")  # needs no other file
    assert page.count("<img") > 20 and page.count("<svg") >= 5
    title = page.partition("<h1>")[2].partition("</h1>")[0]
    assert PROVENANCE in page and title == "Brainhive demo, on simulated EEG"
    for title in (
        "Ranks of the seen picture",
        "Examples, with ceiling, floor and baselines",
        "Fusion Prior",
        "Top-1 on held-out",
    ):
        assert title in page
    assert [row[0] for row in result.tables[0].rows] == STEPS
    assert "was ranked first of 100 in" in result.tables[0].rows[2][2]
    assert "100 test pictures" in result.tables[0].rows[2][2]
    for line, step in zip(result.metrics.facts.commands, STEPS, strict=True):
        assert line.replace("\n", " ") in page.replace("&#39;", "'").replace("&#34;", '"')
        by_hand = CliRunner().invoke(app, [*shlex.split(line)[1:], "--json"])
        assert by_hand.exit_code == 0, by_hand.stderr
        found = sorted(home.glob(f"runs/{step}/*"))
        assert len(found) == (0 if step == "embed" else 1)  # nothing was made anew
        if found:
            assert Path(json.loads(by_hand.stdout)["folder"]).resolve() == found[0].resolve()


def test_a_second_demo_finds_the_first_and_its_lines_tell_the_precision_of_the_launch(tiny, home):
    what = demo.Recipe.resolve("demo", None, {}, [tiny]).launched_in("bf16")
    here = Launch(0, 1, torch.device("cpu"))
    first = demo.run(what, here)
    times = {path: path.stat().st_mtime_ns for path in home.glob("runs/*/*/model/**/*.safetensors")}

    second = demo.run(what, here)

    assert second.folder == first.folder
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert all("run.mixed_precision=bf16" in line for line in first.metrics.facts.commands)
    (run,) = home.glob("runs/train-align/*")
    assert RunFolder(run).recipe()["train"]["precision"] == "bf16"  # the demo's own is fp32


def test_a_check_lists_the_five_commands():
    listed = demo.inputs(demo.Recipe())

    lines = dict(one.name.split(": ", 1) for one in listed)
    assert list(lines) == STEPS and {one.state for one in listed} == {"a step"}
    assert lines["embed"] == "brainhive embed --recipe demo"


@pytest.mark.skipif(
    not (WEIGHTS / "prior").is_dir(), reason="the demo's weights are not there (tools.demo_world)"
)
def test_the_shipped_weights_run_the_demo(go, home):
    result = go("demo", overridden(train_align=["train.epochs=5"]))

    by_name = {row[0]: row[2] for row in result.tables[0].rows}
    assert RunFolder(result.folder).measurements().scopes["eval-retrieval"]["top5"].low > 0.05, by_name
    assert "of pairs" in by_name["reconstruct"]
    assert (result.folder / "index.html").stat().st_size < 2**22
