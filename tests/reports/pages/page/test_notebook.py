"""Notebook output: tables with escaped texts."""

from brainhive_cli.api import Comparison
from brainhive_cli.core.base.tables import Table, TableCell
from brainhive_cli.core.results import (
    ALL,
    CAVEATS,
    Facts,
    Measurements,
    Metric,
    index_by_name,
)
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.reports.pages.page import frame_table
from brainhive_cli.reports.tables.runs_shown import RunGroup, ShownRun

SCRIPT = "<script>alert('x')</script>"
CAVEAT = next(iter(CAVEATS))


def make_run(tmp_path, name="lab"):
    """Write a finished run with a metric and a caveat."""
    folder = RunFolder(tmp_path / "runs/lab" / name)
    folder.write_text("recipe.yaml", "epochs: 3\n")
    context = {
        "seeds": (1,),
        "protocol": "lab",
        "split": "test",
        "interval": "t over subjects",
    }
    metric = Metric(
        "top1", 0.5, n=40, pool=100, chance=0.01, low=0.4, high=0.6, **context
    )
    folder.finish(
        Measurements({ALL: index_by_name([metric])}, facts=Facts(caveats=[CAVEAT]))
    )
    return folder


def test_texts_of_a_table_are_escaped_and_the_best_is_bold():
    rows = [[SCRIPT, TableCell("0.9", f"{SCRIPT}", 0.9, True, "*")], ["b", 0.5]]
    output = frame_table(
        Table(f"Caption {SCRIPT}", [SCRIPT, "top-1"], rows, note=SCRIPT), [SCRIPT]
    )
    assert "<script" not in output
    assert output.count("&lt;script&gt;") == 6
    assert "<b>0.9</b>*<br><small>" in output
    assert output.count("<b>") == 1
    assert "<td>0.500</td>" in output


def test_a_comparison_shows_labels_as_text_caveats_and_reasons(tmp_path):
    runs = [
        ShownRun(SCRIPT, make_run(tmp_path, "a")),
        ShownRun("base", make_run(tmp_path, "b")),
    ]
    output = Comparison([RunGroup(runs, refusals=["base has no values"])])._repr_html_()
    assert "<script" not in output
    assert "&lt;script&gt;" in output
    assert CAVEAT in output
    assert "Not compared: base has no values." in output
    assert "<b>" not in output
