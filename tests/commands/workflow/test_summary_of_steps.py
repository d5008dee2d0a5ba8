"""Tests of the table of a workflow's steps."""

from pathlib import Path

from brainhive_cli.commands.workflow import FinishedStep, summarise_steps
from brainhive_cli.core.command import Result
from brainhive_cli.core.facts import Facts
from brainhive_cli.core.measurements import (
    CAVEATS,
    SIMULATED,
    TRAINED_ON_SIMULATED,
    Measurements,
    mark,
)


def make_step(value: str, caveats: list[str]) -> FinishedStep:
    measurements = Measurements(facts=Facts(caveats=caveats))
    result = Result(Path("run"), metrics=measurements)
    return FinishedStep("brainhive", 1.0, mark(value, caveats), result)


def test_the_note_explains_the_sign_of_every_step_once() -> None:
    steps = {
        "train-align": make_step("50 %", [TRAINED_ON_SIMULATED]),
        "eval-retrieval": make_step("40 %", [SIMULATED]),
        "reconstruct": make_step("30 %", [SIMULATED]),
    }

    table = summarise_steps(steps, "Demo")

    assert [row[2] for row in table.rows] == ["50 %§", "40 %†", "30 %†"]
    for caveat in (TRAINED_ON_SIMULATED, SIMULATED):
        assert table.note.count(f"{CAVEATS[caveat]} {caveat}") == 1
