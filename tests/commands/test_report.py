"""The commands `report` and `compare`: from finished runs to a page or tables."""

import csv
import html
import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.results import ALL, CellFacts, Measurements, index_by_name
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.evaluation.retrieval.facts import GalleryFacts, RetrievalFacts
from brainhive_cli.measurement import Items, summarise_ranks
from brainhive_cli.reports.pages import run_page

SUBJECTS, ITEMS = ("sub-01", "sub-02", "sub-03"), 30
GALLERY = GalleryFacts(dataset="lab", splits="test", pictures=100, digest="0123456789")


def ranked(
    home,
    name,
    hits,
    digest="0123456789",
    command="eval-retrieval",
    caveats=(),
):
    """Write a finished run in which each subject finds a share of its items first."""
    folder = RunFolder(home / "runs" / command / name)
    ids = [f"cat/{item}" for item in range(ITEMS)]
    ranks = {
        subject: np.where(np.random.default_rng(number).random(ITEMS) < hits, 1, 7)
        for number, subject in enumerate(SUBJECTS)
    }
    named = {"split": "test", "protocol": "intra, lab", "seeds": (1,)}
    named["caveats"] = caveats
    scopes = {
        ALL: index_by_name(
            summarise_ranks(
                list(ranks.values()),
                100,
                items=Items.independent([ids] * 3, "pictures"),
                **named,
            )
        )
    }
    scopes |= {
        subject: index_by_name(
            summarise_ranks(
                [rank], 100, items=Items.independent([ids], "pictures"), **named
            )
        )
        for subject, rank in ranks.items()
    }
    cells = {
        subject: CellFacts(cell=subject, subject=subject, seed=1)
        for subject in SUBJECTS
    }
    items = {
        subject: {"image_ids": ids, "ranks": rank.tolist(), "units": ids}
        for subject, rank in ranks.items()
    }
    facts = RetrievalFacts(
        run=name,
        dataset="lab",
        mode="intra",
        units="pictures",
        gallery=GALLERY.model_copy(update={"digest": digest}),
        cells=cells,
    )
    folder.write_text("recipe.yaml", "align_run: a\n")
    folder.finish(Measurements(scopes, facts=facts, items=items))
    return folder.path


def say(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def read_page(page):
    """Read a page, with plain spaces between numbers and units."""
    return page.read_text().replace("\u00a0", " ")


def find_leads(page):
    """List the leading sentences at the top of a page."""
    (verdict,) = re.findall(r'<div class="verdict">.*?</div>', read_page(page), re.S)
    return re.findall(r'<p class="lead">(.*?)</p>', verdict, re.S)


@pytest.fixture
def runs(home):
    return ranked(home, "good-0000000001", 0.9), ranked(home, "poor-0000000002", 0.3)


def test_a_report_of_the_newest_run_is_one_file_below_reports(home, runs, monkeypatch):
    checked = say("report", runs[0], "--check")
    assert checked.exit_code == 0
    assert "good-0000000001.html" in checked.stdout
    assert not (home / "reports").exists()

    opened_pages = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", lambda address: opened_pages.append(address))
    output = say("report", "--open")
    page = home / "reports" / "poor-0000000002.html"
    assert output.exit_code == 0
    assert f"page: {page}" in output.stdout
    assert opened_pages == [page.as_uri()]
    # the share of first ranks among the 100 pictures of the gallery
    metrics = json.loads((runs[1] / "metrics.json").read_text())
    share = 100 * metrics["scopes"]["all"]["top1"]["value"]
    text = read_page(page)
    assert f" {share:.3g} % " in text
    assert " 100 " in text
    assert not list(page.parent.glob(".*"))
    assert "browser" in output.stderr
    for name in ("0000000001", "runs/eval-retrieval/good-0000000001"):
        assert say("report", name, "--to", "page.html").exit_code == 0


def test_compared_runs_are_tested_by_item_if_they_can_be_paired(home, runs):
    output = say(
        "compare",
        *runs,
        "--labels",
        "aligned,base",
        "--json",
        "--to",
        home / "page.html",
        "--figures",
        home / "figures",
    )
    assert {path.suffix for path in (home / "figures").iterdir()} == {
        ".svg",
        ".png",
        ".pdf",
    }
    (top1,) = json.loads(output.stdout)["details"]["comparisons"]
    assert (top1["first"], top1["second"], top1["metric"], top1["n"]) == (
        "aligned",
        "base",
        "top1",
        90,
    )
    assert top1["difference"] > 0.4
    assert top1["low"] > 0
    assert top1["p_adjusted"] < 0.05
    assert "30 pictures" in top1["test"]
    assert "3 subjects" in top1["test"]
    (lead,) = find_leads(home / "page.html")
    assert lead.index("aligned") < lead.index("base")
    assert f"{100 * top1['difference']:+.1f} points" in lead
    assert f"p = {top1['p_value']}" in lead
    assert "90 items" in lead

    other_ranked = ranked(home, "other-0000000003", 0.5, digest="9876543210")
    page_path = home / "page.html"
    output = say("compare", *runs, other_ranked, "--to", page_path)
    warning = next(line for line in output.stderr.splitlines() if "warning" in line)
    assert output.exit_code == 0
    assert "good and other" in warning
    assert "poor" not in warning
    page = read_page(page_path)
    reason = warning.removeprefix("warning: not compared: ")
    assert reason in page
    assert any("good" in lead and "poor" in lead for lead in find_leads(page_path))
    page_path.unlink()
    drawn_ranked = ranked(home, "third-0000000004", 0.5, command="reconstruct")
    output = say("compare", runs[0], drawn_ranked)
    assert output.exit_code == 2
    assert not page_path.exists()
    for fact in ("good", "eval-retrieval", "third", "reconstruct"):
        assert fact in output.stderr


def test_tables_for_papers_are_written_in_each_format(home, runs):
    for form, says in (("md", "| good | **0."), ("tex", r"good & \textbf{0.")):
        output = say("compare", *runs, "--format", form)
        (file,) = (home / "reports").glob(f"*.{form}")
        assert output.exit_code == 0
        assert says in file.read_text()
        assert str(file) in output.stdout


def test_bad_input_is_one_line_and_its_exit_code(home, runs):
    RunFolder(home / "runs/eval-retrieval/begun-0000000004").write_text(
        "recipe.yaml", "align_run: a\n"
    )
    run_names = ["good-0000000001", "poor-0000000002"]
    for arguments, code, facts in (
        (["report", "nothing"], 3, ["'nothing'", str(home / "runs"), run_names[0]]),
        (["report", "begun-0000000004"], 3, ["begun-0000000004"]),
        (["compare", run_names[0]], 2, ["brainhive compare RUN RUN"]),
        (["compare", run_names[0], run_names[0]], 2, [run_names[0]]),
        (
            ["compare"] + list(run_names) + ["--labels", "one"],
            2,
            ["2 ", "labels", "one"],
        ),
        (
            ["compare"] + list(run_names) + ["--labels", "one,one"],
            2,
            ["2 ", "labels", "one, one"],
        ),
    ):
        output = say(*arguments)
        assert output.exit_code == code
        assert output.stderr.startswith("error: ")
        assert "Traceback" not in output.stderr
        assert all(fact in output.stderr for fact in facts), output.stderr


def test_a_damaged_run_does_not_stop_the_report_of_others(home, runs):
    damaged = ranked(home, "damaged-0000000003", 0.5)
    (damaged / "metrics.json").write_text("{")
    table = home / "table.md"
    line = ("report", runs[0], damaged, runs[1], "--labels", "a,b,c", "--format", "md")
    output = say(*line, "--to", table, "--json")

    assert output.exit_code == BrainhiveError.exit_code
    text = table.read_text()
    assert "| a |" in text
    assert "| c |" in text
    assert "| b |" not in text
    errors = [line for line in output.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "damaged-0000000003" in errors[0]
    (failure,) = json.loads(output.stdout)["details"]["failures"]
    assert "damaged-0000000003" in failure["error"]


def test_a_tidy_table_has_a_row_for_each_metric_and_difference(home, runs):
    assert (
        say("compare", *runs, "--format", "csv", "--to", home / "table.csv").exit_code
        == 0
    )
    with (home / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    first_scopes = json.loads((runs[0] / "metrics.json").read_text())["scopes"]
    of_first = {
        (row["scope"], row["metric"]): row
        for row in rows
        if row["run"] == "good" and not row["p"]
    }
    assert of_first.keys() == {
        (scope, metric) for scope, metrics in first_scopes.items() for metric in metrics
    }
    for (scope, metric), row in of_first.items():
        metric_values = first_scopes[scope][metric]
        for column in ("value", "low", "high", "n", "chance"):
            assert row[column] == (
                "" if metric_values[column] is None else str(metric_values[column])
            )
        assert row["subject"] == ("" if scope == "all" else scope)
        assert row["seed"] == "1"
        assert row["protocol"] == "intra, lab"
    (difference,) = (row for row in rows if row["p"])
    assert difference["scope"].endswith(" poor")
    assert difference["metric"] == "top1"
    assert float(difference["value"]) == pytest.approx(
        first_scopes["all"]["top1"]["value"]
        - float(next(r["value"] for r in rows if r["run"] == "poor"))
    )


def test_a_table_of_methods_lists_excluded_runs_with_reasons(
    home,
):
    poor = ranked(home, "poor-0000000001", 0.3)
    good_run = ranked(home, "good-0000000002", 0.9)
    tested_ranked = ranked(
        home, "tested-0000000003", 1.0, caveats=("selected on test",)
    )
    other_ranked = ranked(home, "other-0000000004", 1.0, digest="9876543210")

    table = home / "methods.csv"
    compared_runs = [poor, tested_ranked, good_run, other_ranked]
    line = (
        ["report"]
        + list(compared_runs)
        + ["--table", "--labels", "poor,tested,good,other"]
    )
    assert say(*line, "--format", "csv", "--to", table).exit_code == 0
    rows = list(csv.DictReader(table.open()))
    chance = rows.pop()
    assert chance["method"] == "chance"
    assert float(chance["top-1"]) == 0.01

    # results by top-1, then the others by theirs; both of these have all hits
    assert [row["method"] for row in rows] == ["good", "poor", "tested", "other"]
    reasons = [row["excluded"] for row in rows]
    assert reasons[:3] == ["", "", "excluded: selected on test"]
    assert "other and poor" in reasons[3]

    # issue 84, row 10: the family of p, and among how many results the highest was
    # chosen; rows that are no results have no part in the latter
    for row in rows:
        assert "The highest of 2 test scores" in row["note"]
        assert "Benjamini–Hochberg" in row["note"]
        assert "2 tests" in row["note"]
    assert "‡ selected on test" in rows[0]["note"]

    # ranks are 1, or else 7 of 100: figures by hand
    shares = {row["method"]: float(row["top-1"]) for row in rows}
    for row in rows:
        missed = 1 - shares[row["method"]]
        assert float(row["rank AUC"]) == pytest.approx(1 - 6 * missed / 99)
        assert "–" in row["rank AUC, 95 % CI"]
    against_first = shares["good"] - shares["poor"]
    assert float(rows[0]["difference"]) == pytest.approx(against_first)
    assert rows[1]["difference"] == "reference"
    assert rows[3]["difference"] == ""

    # the same on the page and in LaTeX, in grey
    assert say(*line, "table=good", "--to", home / "page.html").exit_code == 0
    page = read_page(home / "page.html")
    figures = home / "figures"
    assert say(*line, "--figures", figures, "--to", home / "p.html").exit_code == 0
    assert len(list(figures.glob("methods-lab-intra-test-*"))) == 3
    assert page.count('<tr class="grey">') == 2
    assert "excluded: selected on test" in page
    assert page.count("<svg") >= 1
    assert say(*line, "--format", "tex", "--to", home / "table.tex").exit_code == 0
    text = (home / "table.tex").read_text()
    grey = r"\textcolor{gray}{tested (excluded: selected on test)}"
    assert grey in text
    assert "textbf" not in text
    refused = say(*line, "table=best")
    assert refused.exit_code == 2
    assert "best" in refused.stderr
    assert "poor, tested, good, other" in refused.stderr


def test_a_comparison_names_the_tests_that_p_is_adjusted_over(home):
    """Issue 84, row 10: p did not say over which tests it was adjusted."""
    runs = [
        ranked(home, f"{name}-{number:010d}", share)
        for number, (name, share) in enumerate(
            {"good": 0.9, "fair": 0.6, "poor": 0.3}.items()
        )
    ]
    line = ["compare"] + list(runs) + ["--labels", "good,fair,poor"]
    assert say(*line, "--format", "csv", "--to", home / "all.csv").exit_code == 0
    assert say(*line, "--to", home / "page.html").exit_code == 0
    document = json.loads(say(*line, "--to", home / "page.html", "--json").stdout)

    pairs = [row for row in csv.DictReader((home / "all.csv").open()) if row["p"]]
    assert len(pairs) == 2
    for row in pairs:
        assert "Benjamini–Hochberg" in row["notes"]
        assert "2 tests" in row["notes"]
        assert row["notes"].endswith("1 metric × 2 pairs")
    notes = re.findall(r'<p class="note">(.*?)</p>', read_page(home / "page.html"))
    adjusted = [note for note in notes if "Benjamini–Hochberg" in note]
    assert len(adjusted) >= 2
    assert all("2 tests" in note for note in adjusted)
    leads = find_leads(home / "page.html")
    assert leads
    assert all("2 tests" in lead for lead in leads)
    assert {row["tests_of"] for row in document["details"]["comparisons"]} == {
        "1 metric × 2 pairs"
    }


def test_runs_selected_on_test_pictures_are_marked_in_tables(home):
    """Issue 84, row E: tables by subject, differences and sentences had no mark."""
    good_run = ranked(home, "good-0000000001", 0.9, caveats=("selected on test",))
    poor = ranked(home, "poor-0000000002", 0.3)
    page_path = home / "page.html"
    options = ["--labels", "good,poor", "--to", page_path]

    assert say("compare", good_run, poor, *options).exit_code == 0

    page = read_page(page_path)
    titles = re.finditer(r"<h4>([^<]*)</h4>.*?</table>", page, re.S)
    (by_subject,) = [title[0] for title in titles if "by subject" in title[1]]
    assert "good‡" in by_subject
    assert "poor‡" not in by_subject
    (lead,) = find_leads(page_path)
    assert re.search(r"\d %‡", lead)
    assert lead.count("‡") == 1
    assert page.count("‡ selected on test") >= 2


def test_a_label_of_a_user_heads_pages_and_tables(home):
    label = "<b>Übung</b> & [bold] $x$"
    first_run_folder = RunFolder(ranked(home, "first-0123456789", 0.5))
    second = RunFolder(ranked(home, "second-0123456789", 0.9))
    second.set_label(label)

    compared = CliRunner().invoke(
        app, ["compare", first_run_folder.path.name, label, "--json"]
    )
    rows = json.loads(compared.stdout)["tables"][0]["rows"]
    assert [row[""] for row in rows[:2]] == ["first", label]
    page = home / "page.html"
    result = CliRunner().invoke(app, ["report", label, f"to={page}"])
    assert result.exit_code == 0
    text = page.read_text("utf-8")
    title = re.findall("<title>(.*)</title>", text)[0]
    assert html.unescape(title).endswith(f"({label})")
    assert label not in text
    assert second.path.name in text

    # two runs with the same label are told apart by their names
    first_run_folder.set_label(label)
    names = [first_run_folder.path.name, second.path.name]
    compared = CliRunner().invoke(app, ["compare"] + list(names) + ["--json"])
    rows = json.loads(compared.stdout)["tables"][0]["rows"]
    assert [row[""] for row in rows[:2]] == names
    ambiguous = CliRunner().invoke(app, ["report", label])
    assert ambiguous.exit_code == 2
    assert names[0] in ambiguous.stderr
    assert names[1] in ambiguous.stderr


def test_runs_of_two_commands_with_one_name_keep_their_findings(home, monkeypatch):
    name = "same-0123456789"
    paths = [
        str(ranked(home, name, 0.2)),
        str(ranked(home, name, 0.9, command="calibrate")),
    ]

    def write_hits(measurements):
        return f"Hits: {measurements.scopes[ALL]['top1'].value:.4f}"

    monkeypatch.setattr(run_page, "state_finding", write_hits)
    page = home / "page.html"
    result = CliRunner().invoke(app, ["report"] + list(paths) + [f"to={page}"])
    assert result.exit_code == 0
    hits = set(re.findall(r"Hits: [\d.]+", page.read_text("utf-8")))
    assert len(hits) == 2
