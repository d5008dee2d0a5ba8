"""Tests of design: exit codes, results, page, and the written study."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import MissingData, RecipeError
from brainhive_cli.evaluation.planning import power
from brainhive_cli.evaluation.planning.designs import Prediction, Range
from brainhive_cli.evaluation.planning.facts import DesignFacts
from tests.worlds.own_recordings import write_pictures

pytest.importorskip("matplotlib")
SMALL = (
    "--people",
    "5,6",
    "--train-pictures",
    "20,40",
    "--train-repetitions",
    "1,2",
    "--test-pictures",
    "10",
    "--test-repetitions",
    "1",
)
N_DESIGNS = 8


def invoke(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Result of a small plan, as a JSON document."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("design")
        patch.setenv("BRAINHIVE_HOME", str(home))
        patch.chdir(home)
        result = invoke("design", *SMALL, "--price-per-hour", "50", "--json")
        assert result.exit_code == 0, result.output
        document = json.loads(result.stdout)
        document["folder"] = str(home / document["folder"])
        return document


def test_each_design_has_power_and_top1_with_ranges(planned):
    facts = planned["metrics"]["facts"]
    assert len(facts["designs"]) == N_DESIGNS
    for number, design in enumerate(facts["designs"], 1):
        assert design["number"] == number
        for name in ("power", "half_power", "top1"):
            predicted = design[name]
            assert 0 <= predicted["low"] <= predicted["value"] <= predicted["high"] <= 1
        assert design["chance"] == 0.1
        assert design["price"] == 50 * design["hours"]
        assert design["answer"] in ("yes", "perhaps", "cannot say", "no")
        assert design["n_studies"] > 100
    assert facts["source"]
    assert not facts["has_pilot"]
    assert facts["seed"] == 0
    assert "noise ceiling" in facts["warnings"][-1]
    assert planned["finding"]
    assert facts["sentence"]
    assert facts["claims"]


def test_the_recommended_design_is_named_with_its_cost(planned):
    facts = DesignFacts.model_validate(planned["metrics"]["facts"])
    design = facts.recommended_design
    assert design.price is not None
    finding = planned["finding"].replace("\u00a0", " ")
    assert f"(design {design.number})" in finding
    assert f"{design.hours:.1f} hours for {design.price:,.0f}" in finding


def test_the_page_shows_the_power_as_figures(planned, home):
    result = invoke("report", planned["folder"], f"to={home / 'page.html'}")
    assert result.exit_code == 0, result.output
    page = (home / "page.html").read_text()
    assert page.count("<svg") == 2
    for title in ("Power by repetitions and training pictures", "Designs"):
        assert title in page


def test_a_finished_plan_is_found_again(planned, monkeypatch):
    folder = Path(planned["folder"])
    home = folder.parents[2]
    monkeypatch.setenv("BRAINHIVE_HOME", str(home))
    result = invoke("design", *SMALL, "--price-per-hour", "50", "--json")
    assert Path(json.loads(result.stdout)["folder"]).name == folder.name
    assert len(list(folder.parent.iterdir())) == 1
    for warning in planned["metrics"]["facts"]["warnings"]:
        assert warning in result.stderr.replace("\n", " ")


def test_the_answer_stands_between_warnings_and_tables(planned, monkeypatch):
    monkeypatch.setenv("BRAINHIVE_HOME", str(Path(planned["folder"]).parents[2]))
    result = invoke("design", *SMALL, "--price-per-hour", "50")
    lines = result.output.splitlines()
    starts = []
    for text in ("warning: ", "Expected top-1", "Designs", "Behind design"):
        starts.append(next(i for i, line in enumerate(lines) if text in line))
    assert starts == sorted(starts)


def test_check_lists_the_designs_without_simulation(home):
    result = invoke("design", *SMALL, "--check", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert document["missing"] == []
    (table, *_) = document["tables"]
    assert len(table["rows"]) == N_DESIGNS
    assert not (home / "runs").exists()


def test_the_study_of_the_pictures_is_written(home):
    write_pictures(home / "pictures")
    line = ["design", "--pictures", "pictures", "encoder=gabor", "order.runs=2"]
    line += ("--people", "2", "--train-repetitions", "2", "--test-repetitions", "2")
    result = invoke(*line, "--write", "1", "--json")
    assert result.exit_code == 0, result.output
    study = Path(json.loads(result.stdout)["files"]["study"])
    assert (study / "run_study.py").is_file()
    with (study / "order.csv").open() as file:
        rows = list(csv.DictReader(file))
    pictures = [row["picture"] for row in rows if row["picture"].endswith(".png")]
    planned = json.loads(result.stdout)["metrics"]["facts"]["designs"][0]
    n_trials = 2 * planned["train_pictures"] + 2 * planned["test_pictures"]
    assert len(pictures) == 2 * n_trials
    assert {row["person"] for row in rows} == {"1", "2"}
    assert list((home / "embeddings").rglob("gabor.h5"))


def predict_perhaps(designs, *_, **options):
    """Predict the same for each design, in place of a simulation of minutes."""
    values = Range(0.4, 0.2, 0.9)
    predictions = []
    for design in designs:
        prediction = Prediction(
            design=design,
            power=values,
            half_power=values,
            top1=values,
            chance=0.1,
            smallest=0.3,
            n_studies=240,
            is_extrapolated=True,
            halving_factor=8,
            deciding_factor=4,
        )
        predictions.append(prediction)
    return predictions


def test_a_plan_from_a_pilot_says_which_pilot_could_tell(
    world, trained_run, monkeypatch
):
    monkeypatch.setattr(power, "predict_designs", predict_perhaps)
    result = invoke("design", *SMALL, "--pilot", str(trained_run), "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    facts = document["metrics"]["facts"]
    assert facts["has_pilot"]
    assert facts["source"] == trained_run.name
    assert "simulated" in facts["caveats"]
    assert facts["designs"][0]["answer"] == "cannot say"
    for factor in (4, 8):
        assert f"A pilot of {factor} times as many people" in document["finding"]
    rows = document["tables"][1]["rows"]
    assert "extrapolation" in {row["item"] for row in rows}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--question", "top1"), RecipeError),
        (("--size", "0.1"), RecipeError),
        (("--pilot", "x", "--device", "eeg"), RecipeError),
        (("--sessions", "1", "--session-minutes", "1"), RecipeError),
        (("--write", "1"), RecipeError),
        (("--pictures", "absent"), MissingData),
        (("--pictures", "pictures", "order.stimulus_ms=1500"), RecipeError),
        (("--pictures", "pictures", "--train-pictures", "50"), RecipeError),
        (("--pilot", "absent"), MissingData),
    ],
)
def test_wrong_input_ends_with_two_lines(arguments, error, home):
    write_pictures(home / "pictures")
    result = invoke("design", *arguments)
    assert result.exit_code == error.exit_code, result.output
    lines = result.stderr.strip().splitlines()[-2:]
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("  try: ")
