"""The document of metrics: what is written is read back, and another schema is refused."""

import json
from pathlib import Path

import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import (
    Measurements,
    Metric,
    by_name,
    interval_text,
    is_difference,
    scope,
)
from brainhive_cli.core.recipe import Recipe
from brainhive_cli.core.runs import RunFolder

TOP1 = Metric("top1", 0.5, 4, 200, 0.005, 0.1, 0.25, (0, 1), "cosine", "test", "t", (0.2, 0.225), 0.01, None)
MADE = Measurements(
    {"all": by_name([TOP1]), scope("brain", "subject 1"): {}},
    {"fid": "fewer than 10 pictures"},
    {"caveats": ["simulated"], "mode": "intra"},
    {"subject 1": {"image_ids": ["a", "b"], "ranks": [1, 2]}},
)


def test_what_a_run_measured_is_read_back_as_it_was(home: Path) -> None:
    run = RunFolder.open("train-align", "tiny", Recipe(), Launch(0, 1, torch.device("cpu")))
    run.finish(MADE)

    assert run.measurements() == MADE
    assert list(run.read_json("metrics.json")) == ["schema", "scopes", "missing", "notes", "items"]
    assert (MADE.overall["top1"].value, MADE.caveats) == (0.5, ["simulated"])


@pytest.mark.parametrize("document", [{"top1": 0.5}, {**MADE.as_dict(), "schema": 2}])
def test_another_schema_is_refused_in_one_line(document: dict[str, object]) -> None:
    with pytest.raises(BrainhiveError, match=r"run-1 holds metrics of schema (None|2), this version reads 1"):
        Measurements.read(json.loads(json.dumps(document)), "run-1")


def test_a_scope_names_only_the_parts_that_there_are() -> None:
    assert scope("brain", "", "subject 1") == "brain · subject 1"


def test_intervals_are_written_for_tables() -> None:
    assert (TOP1.interval_text(), TOP1.these_subjects_text(2)) == ("0.100–0.250", "0.20–0.23")
    assert interval_text(-0.25, -0.1) == "-0.250 to -0.100"
    assert interval_text(None, None) == "–"


@pytest.mark.parametrize(
    ("p", "low", "high", "is_claimed"),
    [
        (0.01, 0.1, 0.3, True),
        (0.01, -0.1, 0.3, False),  # test and interval disagree: nothing is claimed
        (0.2, 0.1, 0.3, False),
        (0.01, None, None, True),
        (None, 0.1, 0.3, False),
    ],
)
def test_a_difference_is_claimed_only_where_its_interval_excludes_zero_too(
    p: float | None, low: float | None, high: float | None, is_claimed: bool
) -> None:
    assert is_difference(p, low, high) is is_claimed
