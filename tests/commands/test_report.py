"""report and compare: from folders of finished runs to a page, or tables for papers."""

import csv
import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core import documents
from brainhive_cli.core.facts import Cell, Gallery, RetrievalFacts, TrainingFacts, Variant
from brainhive_cli.core.measurements import ALL, Measurements, Metric, by_name
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.measurement.ranks import summarise
from brainhive_cli.measurement.units import Items

SUBJECTS, ITEMS = ("sub-01", "sub-02", "sub-03"), 30
GALLERY = Gallery(dataset="lab", splits="test", pictures=100, digest="0123456789")


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
    scopes = {
        ALL: by_name(
            summarise(list(ranks.values()), 100, items=Items.independent([ids] * 3, "pictures"), **named)
        )
    }
    scopes |= {
        subject: by_name(summarise([each], 100, items=Items.independent([ids], "pictures"), **named))
        for subject, each in ranks.items()
    }
    cells = {subject: Cell(cell=subject, subject=subject, seed=1) for subject in SUBJECTS}
    items = {
        subject: {"image_ids": ids, "ranks": each.tolist(), "units": ids} for subject, each in ranks.items()
    }
    facts = RetrievalFacts(
        run=name,
        mode="intra",
        units="pictures",
        gallery=GALLERY.model_copy(update={"digest": digest}),
        cells=cells,
    )
    folder.write_text("recipe.yaml", "align_run: a\n")
    folder.finish(Measurements(scopes, facts=facts, items=items))
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
    assert "was ranked first of" in page.read_text() and not list(page.parent.glob(".*"))


@pytest.mark.parametrize("has_browser", [True, False])
def test_a_page_is_opened_in_a_browser_where_there_is_one(home, runs, monkeypatch, has_browser):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or has_browser)
    shown = say("report", "--open")
    page = home / "reports" / "poor-0000000002.html"
    assert shown.exit_code == 0 and opened == [page.as_uri()]
    assert ("no browser was found" in shown.stderr) is not has_browser


@pytest.mark.parametrize(
    "name",
    ["good-0000000001", "0000000001", *(f"{below}eval-retrieval/good-0000000001" for below in ("", "runs/"))],
)
def test_a_run_is_found_by_its_name_the_end_of_it_or_its_folder(home, runs, name):
    assert say("report", name, "--to", "page.html").exit_code == 0


def test_compared_runs_are_tested_item_by_item(home, runs):
    found = say("compare", *runs, "--labels", "aligned,base", "--json", "--to", home / "page.html")
    compared = json.loads(found.stdout)["details"]["comparisons"]
    (top1,) = compared
    assert (top1["first"], top1["second"], top1["metric"], top1["n"]) == ("aligned", "base", "top1", 90)
    assert top1["difference"] > 0.4 and top1["low"] > 0 and top1["p_adjusted"] < 0.05
    assert top1["test"] == "sign flips over 30 pictures, for these 3 subjects"
    page = (home / "page.html").read_text()
    assert "aligned is better than base in top-1: " in page


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


def test_figures_are_saved_in_three_formats(home, runs):
    shown = say("compare", *runs, "--labels", "a/b <x>,base", "--figures", home / "figures")
    assert shown.exit_code == 0 and f"figures: {home / 'figures'}" in shown.stdout
    files = [path.name for path in (home / "figures").iterdir()]
    title = "compared-headline-top-1-with-95-intervals-of-these-subjects"
    assert sorted(files) == sorted(f"{title}.{suffix}" for suffix in ("svg", "png", "pdf"))
    with Image.open(home / f"figures/{title}.png") as picture:
        assert picture.width == 2100 and round(picture.info["dpi"][0] * 3.5) == 2100


@pytest.mark.parametrize("where", ["runs/eval-retrieval/good-0000000001/figures", "taken"])
def test_a_folder_of_figures_in_a_run_or_a_file_of_that_name_is_refused(home, runs, where):
    (home / "taken").touch()
    shown = say("report", runs[0], "--figures", where)
    assert shown.exit_code == 2 and "is a file, or lies in the folder of a run" in shown.stderr
    assert not (home / "reports").exists()


@pytest.mark.parametrize(
    ("form", "says"),
    [("md", "| good | **0."), ("csv", "good,eval-retrieval,top1,"), ("tex", r"good & \textbf{0.")],
)
def test_tables_for_papers_are_written_in_each_format(home, runs, form, says):
    found = say("compare", *runs, "--format", form)
    (file,) = (home / "reports").glob(f"*.{form}")
    assert found.exit_code == 0 and says in file.read_text() and str(file) in found.stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["report", "nothing"], 3, "no run 'nothing' under"),
        (["report", "."], 3, ". is no run: it has no recipe.yaml"),
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
    RunFolder(home / "runs/eval-retrieval/begun-0000000004").write_text("recipe.yaml", "align_run: a\n")
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


def swept(home: Path, name: str = "sweep-0000000009") -> Path:
    """Write a finished training of two variants, each with two cells, and say which are of whom."""
    folder = RunFolder(home / "runs/train-align" / name)
    scopes, cells = {}, {}
    for variant, top1 in (("lr=1", 0.25), ("lr=2", 0.5)):
        for subject in (1, 2):
            cell = f"{variant}/sub-{subject:02d}_seed-7"
            context = (
                40,
                100,
                0.01,
                top1 - 0.1,
                top1 + 0.1,
                (7,),
                "held-out training concepts",
                "validation",
            )
            scopes[cell] = {"top1": Metric("top1", top1 + subject / 100, *context, "Wilson")}
            about = {"epoch": 3, "selected_on": "validation", "subject": subject, "seed": 7}
            cells[cell] = Cell(**about, variant=variant)
    folder.write_text("recipe.yaml", "mode: intra\n")
    folder.finish(Measurements(scopes, facts=TrainingFacts(mode="intra", dataset="lab", cells=cells)))
    return folder.path


def test_a_command_stands_for_its_newest_run_with_metrics_and_that_is_said(home, runs):
    training = swept(home)
    empty = RunFolder(home / "runs/train-align/empty-000000000a")
    empty.write_text("recipe.yaml", "mode: intra\n")
    empty.finish(Measurements(facts=TrainingFacts(mode="intra")))
    os.utime(runs[0] / "metrics.json", (time.time() + 60,) * 2)

    of_all, of_training = say("report", "--check"), say("report", "train-align", "--check")

    shown, shown_training = (
        "".join(said.stdout.split()) for said in (of_all, of_training)
    )  # paths are folded
    assert str(runs[0]) in shown and "eval-retrieval run good-0000000001, finished" in of_all.stderr
    assert str(training) in shown_training and "align run sweep-0000000009, fin" in of_training.stderr
    assert "newer, but unfit: empty-000000000a, finished less than a minute ago: no metrics" in (
        of_training.stderr
    )


def test_compare_takes_the_newest_two_that_measured_the_same(home, runs):
    other = ranked(home, "other-0000000003", 0.5, digest="9876543210")
    for age_s, run in enumerate((runs[1], other, runs[0])):
        os.utime(run / "metrics.json", (time.time() - age_s,) * 2)

    found = say("compare", "--json")

    (top1,) = json.loads(found.stdout)["details"]["comparisons"]
    assert (top1["first"], top1["second"]) == ("poor", "good")
    assert "newer, but unfit" in found.stderr and "different galleries" in found.stderr
    assert "unfit: poor" not in found.stderr  # which is the first of the two


def test_a_training_shows_what_its_cells_measured_on_validation(home):
    swept(home)
    variants, one = say("report", "train-align"), say("report", "sweep-0000000009:lr=2")
    rows = [line.split() for line in variants.stdout.splitlines() if line.startswith("lr=")]
    assert rows == [["lr=1", "0.265", "±", "0.007"], ["lr=2", "0.515", "±", "0.007"]]
    rows = [line.split() for line in one.stdout.splitlines() if re.match(r"(sub-\d+|mean) +\d", line)]
    assert rows[:2] == [["sub-01", "0.510"], ["sub-02", "0.520"]] and rows[2][:2] == ["mean", "0.515"]
    assert "held-out training concepts; 40 validation items" in one.stdout.replace("\n", " ")


def test_a_variant_that_has_a_run_of_its_own_is_that_run(home, runs):
    sweep = RunFolder(home / "runs/eval-retrieval/both-0000000008")
    sweep.write_text("recipe.yaml", "align_run: a\n")
    of_its_own = {name: Variant(run=run.name) for name, run in zip(("good", "poor"), runs, strict=True)}
    sweep.finish(Measurements(facts=RetrievalFacts(variants=of_its_own)))

    found = say("compare", "both-0000000008:poor", "both-0000000008:good", "--json")

    (top1,) = json.loads(found.stdout)["details"]["comparisons"]
    assert (top1["first"], top1["second"]) == ("poor", "good")
    refused = say("report", "both-0000000008:fair")
    assert refused.exit_code == 2 and "has no variant 'fair'" in refused.stderr
    assert "it has: good, poor" in refused.stderr


def test_a_tidy_table_has_a_row_for_each_metric_of_each_scope_and_for_each_difference(home, runs):
    assert say("compare", *runs, "--format", "csv", "--to", home / "table.csv").exit_code == 0
    with (home / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    first = json.loads((runs[0] / "metrics.json").read_text())["scopes"]
    of_first = {(row["scope"], row["metric"]): row for row in rows if row["run"] == "good" and not row["p"]}
    assert of_first.keys() == {(scope, metric) for scope, some in first.items() for metric in some}
    for (scope, metric), row in of_first.items():
        known = first[scope][metric]
        for column in ("value", "low", "high", "n", "chance"):
            assert row[column] == ("" if known[column] is None else str(known[column]))
        assert row["subject"] == ("" if scope == "all" else scope) and row["seed"] == "1"
        assert row["protocol"] == "intra, lab"
    (difference,) = (row for row in rows if row["p"])
    assert (difference["scope"], difference["metric"]) == ("difference from poor", "top1")
    assert float(difference["value"]) == pytest.approx(
        first["all"]["top1"]["value"] - float(next(r["value"] for r in rows if r["run"] == "poor"))
    )


def test_a_difference_in_a_tidy_table_has_the_caveats_of_both_runs_beside_what_limits_its_test(home, runs):
    metrics = runs[1] / "metrics.json"
    document = json.loads(metrics.read_text())
    document["facts"]["caveats"] = ["simulated"]
    metrics.write_text(json.dumps(document))
    (runs[1] / "SHA256SUMS").unlink(missing_ok=True)

    assert say("compare", *runs, "--format", "csv", "--to", home / "table.csv").exit_code == 0

    with (home / "table.csv").open(newline="") as file:
        (difference,) = (row for row in csv.DictReader(file) if row["p"])
    assert difference["caveats"] == "simulated" and "simulated" not in difference["notes"]


@pytest.mark.parametrize("value", ["absent", None, 1, "x", [1], {"a": 1}])
def test_facts_that_lack_a_key_or_have_another_type_are_two_lines_and_no_bug(home, runs, value):
    """Each key in turn, and those of other commands, in a run that was sealed again."""
    folder = RunFolder(runs[0])
    document = json.loads((folder.path / "metrics.json").read_text())
    stated = [key for key, stated in document["facts"].items() if stated]
    empty = ("caveats", "answers", "set_up", "variants", "published", "baseline", "control", "unit_count")
    for key in (*stated, *empty, "profiles"):  # of explain
        facts = {name: fact for name, fact in document["facts"].items() if name != key}
        facts |= {} if value == "absent" else {key: value}
        folder.write_text("metrics.json", json.dumps({**document, "facts": facts}))
        listed = {**documents.read_digests(folder.path)}
        listed["metrics.json"] = documents.digest_file(folder.path / "metrics.json")
        documents.write_digests(folder.path, listed)

        for words in (("runs", "show", folder.path), ("runs",), ("report", folder.path, "--to", "page.html")):
            shown = say(*words)
            lines = [line for line in shown.stderr.splitlines() if line.startswith(("error: ", "  try: "))]
            assert "this is a bug" not in shown.output and "Traceback" not in shown.output, (key, words)
            assert len(lines) == (2 if shown.exit_code else 0), (key, words, shown.stderr)
