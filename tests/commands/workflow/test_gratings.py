"""Recorded EEG of sixteen gratings, the same in every run: frequency and orientation,
runs held out.
"""

import csv
import json
import runpy
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.results.measurements import SEEN_PICTURES
from tests.worlds.command_fixtures import COLOURS, use_home

KINDS = {
    "frequency": ["f1", "f2", "f3", "f4"],
    "orientation": ["o000", "o045", "o090", "o135"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory, shared):
    script = shared / "data/real/gratings_to_brainhive.py"
    if not script.is_file():
        pytest.skip("no recordings of gratings")
    with (
        use_home(tmp_path_factory.mktemp("gratings")) as home,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", [str(script), str(home), "same"])
        runpy.run_path(str(script))
        with (home / "data/recordings/events.csv").open() as file:
            rows = list(csv.DictReader(file))
        for index, kind in enumerate(KINDS):  # train/f1_o000/f1_o000.png
            file_names = [
                f"{row['event']},{Path(row['picture']).stem.split('_')[index]}"
                for row in rows
            ]
            (home / f"{kind}.csv").write_text(
                "\n".join(["event,picture"] + list(file_names)) + "\n"
            )
        yield home


def decode(home, run_command, kind):
    """Go from recordings to the category that was shown, leaving out a run at a
    time.
    """
    fields = {
        "kind": "categories",
        "name": kind,
        "names": KINDS[kind],
        "holdout": {"by": "runs", "folds": 3},
    }
    windows = [
        "preparation.whiten=no",
        "preparation.band_hz=[1,40]",
        "preparation.rate_hz=128",
    ]
    stimuli = [
        f"preparation.stimuli={json.dumps(fields)}",
        f"preparation.events={home / kind}.csv",
    ]
    run_command("prepare", "preparation.kind=recording", *windows, *stimuli)
    run_command("embed", f"dataset={json.dumps(fields)}")
    window = "signal.window_ms=[0,500]"
    trained = run_command(
        "train-align",
        f"dataset={json.dumps(fields)}",
        "backbone=lda",
        "seeds=0",
        window,
    )
    assert trained.tables[0].columns == ("model",)  # a closed form has no epochs
    return run_command("eval-retrieval", "sheet_rows=0")


@pytest.mark.nightly
def test_frequency_is_decoded_over_time_in_held_out_runs(home, run_command):
    decoding = decode(home, run_command, "frequency")
    accuracy, facts = decoding.metrics.overall["accuracy"], decoding.metrics.facts
    assert (accuracy.n, accuracy.pool, accuracy.chance) == (480, 4, 0.25)
    assert accuracy.value > 0.55
    # all three runs show the gratings in the same order
    assert facts.answers[0].outcome == "not testable"
    assert "position in the run" in facts.answers[0].test
    plain_rows = [row for row in facts.plain if row.second != "ridge"]
    assert plain_rows
    assert not [row for row in plain_rows if row.high < 0]

    explained = run_command(
        "explain", "window={width_ms: 50, step_ms: 50}", "draws=200"
    )

    # a cortex needs 100 ms, but the position in the run could explain any peak
    by_time = explained.metrics.facts.profiles[0]
    peak_ms = float(by_time["peak"].removesuffix(" ms"))
    assert by_time["name"] == "decoding"
    assert 100 < peak_ms < 300
    assert by_time["p_corrected"] is None
    assert by_time["first_above_chance"] is None
    assert all(
        SEEN_PICTURES in m.caveats
        for scope in explained.metrics.scopes.values()
        for m in scope.values()
    )


def test_equal_training_and_test_pictures_suggest_held_out_runs(home, run_command):
    run_command("prepare", "preparation.kind=recording", "subjects=1")
    encoder = f"encoders=[{COLOURS!r}]"
    run_command("embed", "dataset=image-folder", encoder)
    arguments = [
        "dataset=image-folder",
        encoder,
        "backbone=ridge",
        "backbone.alpha=auto",
        "seeds=0",
    ]
    run_command("train-align", *arguments, "train.validation=0")

    refused = CliRunner().invoke(
        app, ["eval-retrieval", "gallery=train", "sheet_rows=0"]
    )

    text = " ".join(refused.output.split())
    assert refused.exit_code == 1
    assert "dataset.holdout=" in text
    assert "by: runs" in text
