"""The document of metrics: what is written is read back, and another schema is
refused.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from brainhive_cli.core.cells import start_run
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import Facts
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import (
    Measurements,
    Metric,
    beside_heading,
    by_name,
    scope,
)
from brainhive_cli.core.recipe import Recipe

TOP1 = Metric(
    *("top1", 0.5, 4, 200, 0.005, 0.1, 0.25, (0, 1), "cosine", "test", "t"),
    **{
        "these_subjects": (0.2, 0.225),
        "people": (0.1, 0.25),
        "seed_sd": 0.01,
        "selected": None,
    },
)
"""Of five subjects or more: the interval is that for people in general."""
OF_FEW = replace(TOP1, low=0.2, high=0.225)
"""Of two to four: the interval is that of these subjects."""
OF_ONE = replace(TOP1, these_subjects=None, people=None)
MADE = Measurements(
    {"all": by_name([TOP1]), scope("brain", "subject 1"): by_name([OF_ONE])},
    {"fid": "fewer than 10 pictures"},
    Facts(caveats=["simulated"], mode="intra"),
    {"subject 1": {"image_ids": ["a", "b"], "ranks": [1, 2]}},
)


def test_what_a_run_measured_is_read_back_as_it_was(home: Path) -> None:
    run = start_run("train-align", "tiny", Recipe(), Launch(0, 1, torch.device("cpu")))
    run.finish(MADE)

    assert run.measurements() == MADE
    assert list(run.read_json("metrics.json")) == [
        "schema",
        "scopes",
        "missing",
        "facts",
        "items",
    ]
    assert (MADE.overall["top1"].value, MADE.caveats) == (0.5, ["simulated"])


def test_another_schema_is_refused_in_one_line() -> None:
    with pytest.raises(
        BrainhiveError, match=r"run-1 holds metrics of schema 1, this version reads 4"
    ):
        Measurements.read({**MADE.as_dict(), "schema": 1}, "run-1")


def test_beside_the_interval_stands_the_one_for_the_others() -> None:
    for metrics, heading, beside in (
        ([TOP1], "these subjects", "0.20–0.23"),
        ([OF_FEW], "people in general", "0.10–0.25"),
        # too wide to say anything
        ([replace(OF_FEW, people=None)], "people in general", "–"),
        ([OF_ONE], "", "–"),
    ):
        assert (
            beside_heading(metrics) == heading and metrics[0].beside_text(2) == beside
        )
