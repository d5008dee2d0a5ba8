"""Tests of the table of a workflow's steps."""

from pathlib import Path

from brainhive_cli.commands.facts import WorkflowFacts
from brainhive_cli.commands.workflow import (
    FinishedStep,
    describe_steps,
    summarise_steps,
    tabulate_steps,
)
from brainhive_cli.core.base.tables import Table, TableCell
from brainhive_cli.core.results import (
    CAVEATS,
    SIMULATED,
    TRAINED_ON_SIMULATED,
    CellFacts,
    Facts,
    Measurements,
    Metric,
    mark,
)
from brainhive_cli.core.runs.result import Result


def make_step(value, caveats):
    measurements = Measurements(facts=Facts(caveats=caveats))
    result = Result(Path("run"), metrics=measurements)
    return FinishedStep("brainhive", 1.0, mark(value, caveats), result)


def test_the_note_explains_the_sign_of_every_step_once():
    steps = {
        "train-align": make_step("50 %", [TRAINED_ON_SIMULATED]),
        "eval-retrieval": make_step("40 %", [SIMULATED]),
        "reconstruct": make_step("30 %", [SIMULATED]),
    }

    table = summarise_steps(steps, "Demo")

    assert [row[2] for row in table.rows] == ["50 %§", "40 %†", "30 %†"]
    for caveat in (TRAINED_ON_SIMULATED, SIMULATED):
        assert table.note.count(f"{CAVEATS[caveat]} {caveat}") == 1


def make_top1(value, low):
    return Metric(
        "top1",
        value,
        n=400,
        pool=100,
        seeds=(0,),
        protocol="intra",
        chance=0.01,
        low=low,
        high=None if low is None else 0.5,
        split="test",
        interval="Wilson over 100 pictures",
    )


def test_a_row_of_each_step_has_its_result_chance_time_and_run():
    evaluated = Measurements({"all": {"top1": make_top1(0.44, 0.38)}})
    cells = {f"sub-{number}": CellFacts() for number in (1, 2)}
    trained = Measurements(
        {
            name: {"top1": make_top1(0.2 + 0.1 * i, None)}
            for i, name in enumerate(cells)
        },
        facts=Facts(cells=cells),
    )
    steps = {
        "embed": FinishedStep("", 0.1, "", Result(Path("runs/store"))),
        "train · low": FinishedStep("", 75, "", Result(Path("a/run"), (), trained)),
        "test · low · intra": FinishedStep("", 3, "", Result(Path("b"), (), evaluated)),
    }

    table = tabulate_steps(steps)

    assert len(table.columns) == 6
    assert "top-1" in table.columns[2]
    texts = [[str(TableCell.from_value(cell)) for cell in row] for row in table.rows]
    assert texts[0][:2] == ["embed", ""]
    assert texts[0][-1] == "store"
    assert texts[1] == ["train", "low", "0.200 to 0.300", "0.010", "75 s", "run"]
    assert texts[2] == ["test", "low · intra", "0.440", "0.010", "3 s", "b"]
    assert table.rows[1][2].small == "2 models"
    assert table.rows[2][2].small == "0.380–0.500"
    for fact in ("test", "400 tested", "100 candidates", "Wilson over 100 pictures"):
        assert fact in table.note


def test_a_terminal_shows_one_table_and_json_all_tables():
    tables = (Table("a", ("b",), ((1,),)), Table("c", ("d",), ((2,),)))
    step = FinishedStep("line", 1.0, "A sentence.", Result(Path("run"), tables))
    steps = {"first": step, "second": step}
    result = describe_steps(Path("run"), steps, Measurements(facts=WorkflowFacts()))

    assert len(result.printed_tables) == 1
    titles = [table["title"] for table in result.as_dict()["tables"]]
    assert titles == ["a", "c", "a", "c", "Steps"]
    assert "A sentence." in str(result.as_dict()["tables"][-1])
    assert "A sentence." not in str(result.printed_tables)
