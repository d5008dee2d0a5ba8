"""explain: one document of metrics with controls, artifacts and figures, resumed where
it stopped.
"""

import csv
import html
import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.evaluation.explanation import claims, findings
from brainhive_cli.evaluation.explanation.profiles import correct_together
from brainhive_cli.reports.sentences import state_finding

pytest.importorskip("matplotlib")
QUICK = ("draws=40", "window={width_ms: 200, step_ms: 200}")
VOXELS = (
    "dataset={kind: demo, noise: 0.3, space: voxels, subjects: 1, concepts: 40}",
    "backbone={kind: voxel_ridge, hidden: 16}",
    "signal.scale=1",
    "signal.normalise=channel",
    "train.epochs=2",
)


def invoke(*words):
    result = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def folder(shared_world, go, small):
    """The explanation of the world's run, both subjects."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(shared_world))
        run = go("train-align", *small).folder
        return RunFolder(go("explain", f"align_run={run}", *QUICK).folder)


@pytest.fixture(scope="module")
def found(folder):
    return folder.measurements()


def values(found, analysis, metric):
    return {
        name.split(" · ")[1]: metrics[metric].value
        for name, metrics in found.scopes.items()
        if name.split(" · ")[0] == analysis
        and name.count(" · ") == 1
        and metric in metrics
    }


@pytest.mark.nightly
def test_every_metric_has_an_interval_and_its_control(found):
    for analysis in ("windows", "occlusion", "sensors", "bands", "trained", "encoding"):
        own = [name for name in found.scopes if name.split(" · ")[0] == analysis]
        plain = [name for name in own if "shuffled labels" not in name]
        assert plain
        for name in plain:
            control = found.scopes[f"{name} · shuffled labels"]
            for metric, value in found.scopes[name].items():
                assert (
                    value.low <= value.value <= value.high
                    and "simulated" in value.protocol
                )
                assert "shuffled labels" in control[metric].protocol
                assert (
                    control[metric].low <= control[metric].value <= control[metric].high
                )
    top1 = found.scopes["windows · 300 ms"]["top1"]
    assert (top1.n, top1.pool, top1.chance, top1.seeds) == (200, 100, 0.01, (1,))


@pytest.mark.nightly
def test_each_subject_has_a_table_of_its_sensors(folder, found):
    """The mean over subjects of a column is the metric of the run."""
    tables = [
        [*csv.DictReader((folder.path / f"maps/sub-0{n}.tsv").open(), delimiter="\t")]
        for n in (1, 2)
    ]
    for analysis, metric in (("sensors", "margin_lost"), ("encoding", "r")):
        column = f"{analysis}_{metric}"
        for rows in zip(*tables, strict=True):
            value = found.scopes[f"{analysis} · {rows[0]['name']}"][metric].value
            mean = np.mean([float(row[column]) for row in rows])
            assert mean == pytest.approx(value, abs=1e-5)
            assert np.isfinite([float(rows[0][axis]) for axis in "xyz"]).all()


@pytest.mark.nightly
def test_the_finding_and_no_maximum_over_windows_stands_for_the_run(
    folder, found, world, tmp_path
):
    """It led with "top-1 at its peak 0.575": neither an interval nor chance, and chosen
    among all windows.
    """
    finding, page = state_finding(found), tmp_path / "page.html"

    shown = invoke(
        "runs", "show", folder.path.name, f"paths.runs={folder.path.parents[1]}"
    )
    invoke("report", folder.path, "--to", page)

    assert "imulated EEG" in finding and "100 test pictures, 2 people" in finding
    assert re.search(r"\d+–\d+ ms \(p = 0.024†, ", finding)
    assert re.search(r"sensor \w+ \(p = 0.024†\)", finding)
    first_screen = (
        page.read_text().split('<div class="first')[1].split('<div class="body">')[0]
    )
    assert (
        f'<p class="lead">{finding}</p>' in html.unescape(first_screen)
        and "peak" not in first_screen
    )
    assert "all" not in found.scopes and "peak" not in shown and "Metrics" not in shown


def test_windows_before_the_response_are_at_chance_and_later_ones_above_it(found):
    read, trained = (values(found, name, "two_way") for name in ("windows", "trained"))
    assert (
        max(read, key=read.get) in ("100 ms", "300 ms") and max(trained.values()) > 0.85
    )
    assert abs(trained["900 ms"] - 0.5) < 0.1
    profile = next(each for each in found.facts.profiles if each["name"] == "trained")
    assert profile["first_above_chance"] == "0–200 ms"
    assert min(profile["p_corrected"]) == pytest.approx(1 / 41)
    lost = values(found, "bands", "margin_lost")  # responses are in the slow bands
    assert (
        max(lost, key=lost.get) == "delta (1–4 Hz)"
        and abs(lost["gamma (30–80 Hz)"]) < 0.01
    )
    over_time = {
        float(key[:-3]): r
        for key, r in values(found, "encoding", "r").items()
        if " ms" in key
    }
    assert max(value for at, value in over_time.items() if at < 80) < 0.2
    assert max(value for at, value in over_time.items() if 100 < at < 400) > 0.4
    assert set(found.missing) == {"levels", "regions"}
    assert "the target is of one encoder" in found.missing["levels"]


@pytest.mark.nightly
def test_a_page_is_corrected_as_a_whole_and_says_no_onset_that_a_filter_moved(
    world, go, small, runs, monkeypatch
):
    """Issue 60, rows 4 and 5: onsets were given whatever the filter, and each analysis
    was corrected alone.
    """
    tests: list[int] = []

    def correct(scores):
        tests.append(len(scores))
        return correct_together(scores)

    def reach_everywhere(trials):
        return np.full(len(trials.times_s), np.inf)

    monkeypatch.setattr(findings, "correct_together", correct)
    monkeypatch.setattr(claims, "latest_beginnings", reach_everywhere)
    run = go("train-align", *small).folder
    few = ("analyses=[windows,trained]", "subjects=1", runs)
    found = go("explain", f"align_run={run}", *few, *QUICK[:2]).metrics

    profiles = found.facts.profiles
    assert tests == [len(profiles)] and len(profiles) > 2
    assert {each["first_above_chance"] for each in profiles} == {findings.UNKNOWN}
    assert findings.FIRST_ABOVE in found.missing


@pytest.mark.nightly
def test_the_run_is_named_first_and_json_is_the_document(folder, world):
    words = ["explain", folder.measurements().facts.run, *QUICK]

    shown = CliRunner().invoke(app, [*words, "--json"])
    checked = CliRunner().invoke(app, [*words, "--check", "--json"])

    assert shown.exit_code == 0, shown.stderr
    assert json.loads(shown.stdout)["metrics"]["schema"] == 4
    document = json.loads(checked.stdout)
    assert checked.exit_code == 0 and document["missing"] == []
    (table,) = [table for table in document["tables"] if table["title"] == "Work"]
    (time,) = [row["value"] for row in table["rows"] if row["item"] == "time"]
    assert "subjects of a cell; how long is known after" in time


def test_voxels_have_regions_instead_of_windows(go, small, world, tmp_path):
    runs = f"paths.runs={tmp_path / 'runs'}"
    run = go("train-align", *small, *VOXELS, runs).folder

    result = go("explain", f"align_run={run}", runs, *QUICK)

    # which the demo gives no places
    header, *rows = (result.files["maps"] / "sub-01.tsv").read_text().splitlines()
    assert header.split("\t")[:3] == ["voxel", "margin", "encoding"]
    assert all(np.isfinite([*map(float, row.split("\t"))]).all() for row in rows)
    found = result.metrics
    assert {"windows", "occlusion", "sensors", "bands"} <= found.missing.keys()
    early, late = (values(found, "encoding", "r")[name] for name in ("V1", "FFA"))
    assert early > late + 0.1  # colours are looks, which drive V1 and not FFA
    similar = {
        name.split(" · ")[2]
        for name in found.scopes
        if name.startswith("similarity · b")
    }
    assert {"V1", "V2", "LOC", "FFA"} <= similar


def test_what_cannot_be_explained_is_one_line(go, world, trained, evaluated, runs):
    with pytest.raises(
        MissingData, match="is a run of eval-retrieval, not of train-align"
    ):
        go("explain", f"align_run={evaluated.folder}")
    with pytest.raises(RecipeError, match="no analysis called 'window'"):
        go("explain", "analyses=window")
    with pytest.raises(
        RecipeError, match=r"window\.width_ms 2000 is wider than the signal"
    ):
        go(
            "explain",
            f"align_run={trained}",
            "window.width_ms=2000",
            "analyses=windows",
            runs,
        )
