"""report and compare: from folders of finished runs to a page, or tables for papers."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.measurements import ALL, Measurements, by_name
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.metrics.retrieval import summarise

SUBJECTS, ITEMS = ("sub-01", "sub-02", "sub-03"), 30
GALLERY = {"of": "lab", "splits": "test", "pictures": 100, "random": 0, "digest": "0123456789"}


def ranked(
    home: Path, name: str, hits: float, digest: str = "0123456789", command: str = "eval-retrieval"
) -> Path:
    """Write a finished run in which each subject finds a share of its items first."""
    folder = RunFolder(home / "runs" / command / name)
    ids = [f"cat/{item}" for item in range(ITEMS)]
    ranks = {
        subject: np.where(np.random.default_rng(number).random(ITEMS) < hits, 1, 7)
        for number, subject in enumerate(SUBJECTS)
    }
    named = {"split": "test", "protocol": "intra, lab", "seeds": (1,)}
    scopes = {ALL: by_name(summarise(list(ranks.values()), 100, ids=[ids] * 3, **named))}
    scopes |= {
        subject: by_name(summarise([each], 100, ids=[ids], **named)) for subject, each in ranks.items()
    }
    cells = {subject: {"cell": subject, "subject": subject, "seed": 1} for subject in SUBJECTS}
    items = {subject: {"image_ids": ids, "ranks": each.tolist()} for subject, each in ranks.items()}
    notes = {
        "run": name,
        "mode": "intra",
        "gallery": GALLERY | {"digest": digest},
        "cells": cells,
        "caveats": [],
    }
    folder.write_text("recipe.yaml", "align_run: a\n")
    folder.finish(Measurements(scopes, notes=notes, items=items))
    return folder.path


def say(*words: object):
    return CliRunner().invoke(app, [*map(str, words)])


@pytest.fixture
def runs(home: Path) -> tuple[Path, Path]:
    return ranked(home, "good-0000000001", 0.9), ranked(home, "poor-0000000002", 0.3)


def test_a_report_of_the_newest_run_is_one_file_below_reports(home, runs):
    found = say("report")
    page = home / "reports" / "poor-0000000002.html"
    assert found.exit_code == 0 and f"page: {page}" in found.stdout
    assert "poor: top-1" in page.read_text() and not list(page.parent.glob(".*"))


@pytest.mark.parametrize(
    "name",
    ["good-0000000001", "0000000001", *(f"{below}eval-retrieval/good-0000000001" for below in ("", "runs/"))],
)
def test_a_run_is_found_by_its_name_the_end_of_it_or_its_folder(home, runs, name):
    assert say("report", name, "--to", "page.html").exit_code == 0


def test_compared_runs_are_tested_item_by_item(home, runs):
    found = say("compare", *runs, "--labels", "aligned,base", "--json", "--to", home / "page.html")
    compared = json.loads(found.stdout)["metrics"]["notes"]["comparisons"]
    (top1,) = compared
    assert (top1["first"], top1["second"], top1["metric"], top1["n"]) == ("aligned", "base", "top1", 90)
    assert top1["difference"] > 0.4 and top1["low"] > 0 and top1["p"] < 0.05 and "minF" in top1["test"]
    page = (home / "page.html").read_text()
    assert "In top-1 aligned is better than base" in page


def test_runs_that_cannot_be_paired_are_shown_with_the_reason(home, runs):
    other = ranked(home, "other-0000000003", 0.5, digest="9876543210")
    found = say("compare", runs[0], runs[1], other, "--to", home / "page.html")
    assert found.exit_code == 0 and "warning: not compared: " in found.stderr
    page = (home / "page.html").read_text()
    assert "Not compared: " in page and "different galleries" in page and "is better than poor" in page


def test_runs_of_different_commands_cannot_be_compared(home, runs):
    other = ranked(home, "third-0000000003", 0.5, command="reconstruct")
    found = say("compare", runs[0], other)
    assert found.exit_code == 2 and "no two of these runs measured the same: " in found.stderr
    assert "third of reconstruct" in found.stderr and not (home / "reports").exists()


def test_runs_of_several_commands_are_sections_of_one_page(home, runs):
    other = ranked(home, "third-0000000003", 0.5, command="reconstruct")
    assert say("report", runs[0], other, "--to", home / "page.html").exit_code == 0
    page = (home / "page.html").read_text()
    assert "eval-retrieval: good" in page and "reconstruct: third" in page and "Differences" not in page


@pytest.mark.parametrize(
    ("form", "says"), [("md", "| good | **0."), ("csv", "good,0."), ("tex", r"good & \textbf{0.")]
)
def test_tables_for_papers_are_written_in_each_format(home, runs, form, says):
    found = say("compare", *runs, "--format", form)
    (file,) = (home / "reports").glob(f"*.{form}")
    assert found.exit_code == 0 and says in file.read_text() and str(file) in found.stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["report", "nothing"], 3, "no finished run 'nothing'"),
        (["report", "."], 3, "is not finished"),
        (["report", "begun-0000000004"], 3, "begun-0000000004 is not finished"),
        (["compare", "good-0000000001"], 2, "compare needs two runs"),
        (["compare", "good-0000000001", "0000000001"], 2, "named twice"),
        (["compare", "good-0000000001", "poor-0000000002", "--labels", "one"], 2, "have the labels one"),
        (["report", "good-0000000001", "--format", "doc"], 2, "format"),
        (
            ["report", "good-0000000001", "--to", "runs/eval-retrieval/good-0000000001/x.html"],
            2,
            "lies in that",
        ),
    ],
)
def test_bad_input_is_one_line_and_its_exit_code(home, runs, words, code, says):
    (home / "runs/eval-retrieval/begun-0000000004").mkdir()
    found = say(*words)
    assert found.exit_code == code and says in found.stderr and "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("environment.json", b'{"versions": 3}', "versions"),
        ("environment.json", b"null", "valid dictionary"),
        ("artifacts.json", b'{"schema": 9}', "schema 9"),
    ],
)
def test_a_damaged_document_of_a_run_is_named(home, runs, file, text, says):
    (runs[0] / file).write_bytes(text)
    found = say("report", runs[0])
    assert found.exit_code == 1 and file in found.stderr and says in found.stderr
    assert not list((home / "reports").glob("*"))


def test_a_recipe_that_is_no_text_is_shown_as_far_as_it_is(home, runs):
    (runs[0] / "recipe.yaml").write_bytes(b"epochs: 3 \xff")
    assert say("report", runs[0], "--to", home / "page.html").exit_code == 0
    assert "epochs: 3" in (home / "page.html").read_text()


def test_without_any_run_the_hint_makes_one(home):
    found = say("report")
    assert found.exit_code == 3 and "brainhive demo" in found.stderr


def test_check_names_runs_and_the_file_and_writes_nothing(home, runs):
    found = say("report", runs[0], "--check")
    assert found.exit_code == 0 and "good-0000000001.html" in found.stdout and not (home / "reports").exists()
