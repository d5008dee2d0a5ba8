"""Tests of explain: metrics with controls, maps, figures and the finding."""

import csv
import html
import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import MissingData, RecipeError
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.evaluation.explanation import claims, findings
from brainhive_cli.evaluation.explanation.profiles import correct_p_values
from brainhive_cli.reports.sentences.sentences import state_finding

pytest.importorskip("matplotlib")
QUICK = ("draws=40", "window={width_ms: 200, step_ms: 200}")
VOXELS = (
    "dataset={kind: demo, noise: 0.3, space: voxels, subjects: 1, concepts: 40}",
    "backbone={kind: voxel_ridge, hidden: 16}",
    "signal.scale=1",
    "signal.normalise=channel",
    "train.epochs=2",
)

ROUNDING = 1e-12
"""A value and the ends of its interval are sums of floats in different orders."""


def invoke(*arguments):
    """Run a command in this process, and return its standard output."""
    line = [str(argument) for argument in arguments]
    result = CliRunner().invoke(app, line, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def folder(shared_world, run_command, align_overrides):
    """Run of explain for both subjects of the shared training run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(shared_world))
        run_folder = run_command("train-align", *align_overrides).folder
        return RunFolder(
            run_command("explain", f"align_run={run_folder}", *QUICK).folder
        )


@pytest.fixture(scope="module")
def measurements(folder):
    return folder.measurements()


def read_values(measurements, analysis, metric):
    """Read the values of a metric in an analysis, keyed by position."""
    values = {}
    for name, metrics in measurements.scopes.items():
        names = name.split(" · ")
        if len(names) == 2 and names[0] == analysis and metric in metrics:
            values[names[1]] = metrics[metric].value
    return values


@pytest.mark.nightly
def test_every_metric_has_an_interval_and_its_control(measurements):
    for analysis in ("windows", "occlusion", "sensors", "bands", "trained", "encoding"):
        scopes = [
            name
            for name in measurements.scopes
            if name.split(" · ")[0] == analysis and "shuffled labels" not in name
        ]
        assert scopes
        for name in scopes:
            control = measurements.scopes[f"{name} · shuffled labels"]
            for metric, value in measurements.scopes[name].items():
                assert value.low - ROUNDING <= value.value <= value.high + ROUNDING
                assert "simulated" in value.protocol
                shuffled = control[metric]
                assert "shuffled labels" in shuffled.protocol
                low, high = shuffled.low - ROUNDING, shuffled.high + ROUNDING
                assert low <= shuffled.value <= high
    top1 = measurements.scopes["windows · 300 ms"]["top1"]
    assert (top1.n, top1.pool, top1.chance, top1.seeds) == (200, 100, 0.01, (1,))


@pytest.mark.nightly
def test_each_subject_has_a_table_of_its_sensors(folder, measurements):
    """The mean over subjects of a column is the metric of the run."""
    tables = []
    for subject in (1, 2):
        with (folder.path / f"maps/sub-0{subject}.tsv").open() as file:
            tables.append(list(csv.DictReader(file, delimiter="\t")))
    for analysis, metric in (("sensors", "margin_lost"), ("encoding", "r")):
        column = f"{analysis}_{metric}"
        for rows in zip(*tables, strict=True):
            value = measurements.scopes[f"{analysis} · {rows[0]['name']}"][metric].value
            mean = np.mean([float(row[column]) for row in rows])
            assert mean == pytest.approx(value, abs=1e-5)
            assert np.isfinite([float(rows[0][axis]) for axis in "xyz"]).all()


@pytest.mark.nightly
def test_a_run_is_summarised_by_its_finding_not_by_a_maximum(
    folder, measurements, world, tmp_path
):
    """A maximum over windows is too large, and has neither an interval nor a chance."""
    finding, page = state_finding(measurements), tmp_path / "page.html"

    shown_run = invoke(
        "runs", "show", folder.path.name, f"paths.runs={folder.path.parents[1]}"
    )
    invoke("report", folder.path, "--to", page)

    assert "simulated eeg" in finding.lower()
    assert re.search(r"\d+–\d+ ms", finding)
    assert re.search(r"sensor \w+", finding)
    assert finding.count("p = 0.024") == 2
    assert "100 test pictures" in finding
    assert "2 people" in finding
    text = html.unescape(page.read_text()).replace("\xa0", " ")
    first_screen = text.split('<div class="first')[1].split('<div class="body">')[0]
    assert f'<p class="lead">{finding}</p>' in first_screen
    assert "all" not in measurements.scopes
    for output in (first_screen, shown_run):
        assert "peak" not in output


def test_only_windows_during_the_response_are_above_chance(
    measurements,
):
    windows = read_values(measurements, "windows", "two_way")
    trained = read_values(measurements, "trained", "two_way")
    assert max(windows, key=windows.get) in ("100 ms", "300 ms")
    assert max(trained.values()) > 0.85
    assert abs(trained["900 ms"] - 0.5) < 0.1
    profiles = measurements.facts.profiles
    profile = next(row for row in profiles if row["name"] == "trained")
    assert profile["first_above_chance"] == "0–200 ms"
    assert min(profile["p_corrected"]) == pytest.approx(1 / 41)

    # simulated responses are slow
    losses = read_values(measurements, "bands", "margin_lost")
    assert max(losses, key=losses.get) == "delta (1–4 Hz)"
    assert abs(losses["gamma (30–80 Hz)"]) < 0.01

    # correlation of the encoding model before and during the response
    hits_before, during = [], []
    for name, r in read_values(measurements, "encoding", "r").items():
        if name.endswith(" ms"):
            time_ms = float(name.removesuffix(" ms"))
            if time_ms < 80:
                hits_before.append(r)
            elif 100 < time_ms < 400:
                during.append(r)
    assert max(hits_before) < 0.2
    assert max(during) > 0.4
    assert set(measurements.facts.excluded) == {"levels", "regions"}
    assert not measurements.missing


@pytest.mark.nightly
def test_all_analyses_are_corrected_together(
    world, run_command, align_overrides, runs, monkeypatch
):
    """All analyses are corrected together, and a filter hides the onset."""
    corrected_counts = []

    def correct(scores):
        corrected_counts.append(len(scores))
        return correct_p_values(scores)

    def reach_everywhere(trials):
        return np.full(len(trials.times_s), np.inf)

    monkeypatch.setattr(findings, "correct_p_values", correct)
    monkeypatch.setattr(claims, "find_latest_onsets", reach_everywhere)
    run_folder = run_command("train-align", *align_overrides).folder
    metrics = run_command(
        "explain",
        f"align_run={run_folder}",
        "analyses=[windows,trained]",
        "subjects=1",
        runs,
        *QUICK,
    ).metrics

    profiles = metrics.facts.profiles
    assert corrected_counts == [len(profiles)]
    assert len(profiles) > 2
    assert {row["first_above_chance"] for row in profiles} == {findings.ONSET_UNKNOWN}
    assert findings.FIRST_ABOVE_CHANCE in metrics.missing


@pytest.mark.nightly
def test_the_run_is_named_first_and_json_is_the_document(folder, world):
    line = ["explain", folder.measurements().facts.run] + list(QUICK)

    ended = CliRunner().invoke(app, list(line) + ["--json"])
    checked = CliRunner().invoke(app, list(line) + ["--check", "--json"])

    assert ended.exit_code == 0, ended.stderr
    assert json.loads(ended.stdout)["metrics"]["schema"] == 4
    document = json.loads(checked.stdout)
    assert checked.exit_code == 0
    assert document["missing"] == []
    (table,) = [table for table in document["tables"] if table["title"] == "Work"]
    assert [row["item"] for row in table["rows"] if row["item"] == "time"]


def test_voxels_have_regions_instead_of_windows(
    run_command, align_overrides, world, tmp_path
):
    runs = f"paths.runs={tmp_path / 'runs'}"
    run_folder = run_command("train-align", *align_overrides, *VOXELS, runs).folder

    result = run_command("explain", f"align_run={run_folder}", runs, *QUICK)

    # the voxels of the demo have no coordinates
    header, *rows = (result.files["maps"] / "sub-01.tsv").read_text().splitlines()
    assert header.split("\t")[:3] == ["voxel", "margin", "encoding"]
    for row in rows:
        assert np.isfinite([float(value) for value in row.split("\t")]).all()
    metrics = result.metrics
    assert metrics.facts.excluded.keys() >= {"windows", "occlusion", "sensors", "bands"}
    assert not metrics.missing
    # the encoder has colours, which drive the simulated V1 and not the simulated FFA
    r = read_values(metrics, "encoding", "r")
    assert r["V1"] > r["FFA"] + 0.1
    regions = {
        name.split(" · ")[2]
        for name in metrics.scopes
        if name.startswith("similarity · b")
    }
    assert regions >= {"V1", "V2", "LOC", "FFA"}


def test_what_cannot_be_explained_is_one_line(
    run_command, world, trained_run, evaluation_result, runs
):
    with pytest.raises(MissingData, match=r"eval-retrieval.*train-align"):
        run_command("explain", f"align_run={evaluation_result.folder}")
    with pytest.raises(RecipeError, match="'window'"):
        run_command("explain", "analyses=window")
    with pytest.raises(RecipeError, match=r"window\.width_ms 2000"):
        run_command(
            "explain",
            f"align_run={trained_run}",
            "window.width_ms=2000",
            "analyses=windows",
            runs,
        )
