"""Tests of demo --real, which decodes the seen category from shipped fMRI."""

import json
from itertools import chain

import numpy as np
import pytest
from scipy.stats import f

from brainhive_cli.commands.demo import RECORDING
from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.results.measurements import SEEN_PICTURES, SIMULATED
from brainhive_cli.core.runs import RunFolder, artifacts
from brainhive_cli.data.stores.signal_store import SignalStore, build_store_path
from brainhive_cli.reports.pages.checklists import fill_checklists
from brainhive_cli.reports.pages.page import FINDING
from brainhive_cli.reports.sentences.sentences import state_finding
from brainhive_cli.reports.tables.runs_shown import ShownRun
from tests.worlds.brain_maps import read_drawn_values
from tests.worlds.command_fixtures import use_home

NAMES = ["face", "house", "cat", "shoe", "bottle", "scissors", "chair", "scrambledpix"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with use_home(tmp_path_factory.mktemp("real")) as home:
        yield home


@pytest.fixture(scope="module")
def result(home, run_command):
    return run_command("demo", "real=true")


@pytest.fixture(scope="module")
def retrieval_run(home, result):
    (file,) = home.glob("runs/eval-retrieval/*/metrics.json")
    return RunFolder(file.parent)


def test_the_recording_has_its_licence_and_attribution():
    text = (RECORDING / "README").read_text()

    assert "CC BY-SA 3.0" in text
    assert "Haxby, J. V." in text
    assert "Science 293" in text
    description = json.loads((RECORDING / "dataset_description.json").read_text())
    assert description["License"] == "CC-BY-SA-3.0"
    files = [path for path in RECORDING.rglob("*") if path.is_file()]
    assert sum(file.stat().st_size for file in files) < 2e6


def test_eight_categories_are_decoded_not_below_baselines(result, retrieval_run):
    metrics = result.metrics.scopes["eval-retrieval"]
    accuracy, auc = metrics["accuracy"], metrics["auc"]

    assert (accuracy.n, accuracy.pool, accuracy.chance) == (96, 8, 0.125)
    assert accuracy.value >= 0.70
    assert accuracy.low is not None
    assert accuracy.low > 0.5
    assert auc.value > 0.85
    assert auc.chance == 0.5
    assert auc.low < auc.value < auc.high
    assert SEEN_PICTURES in accuracy.caveats
    assert SIMULATED not in accuracy.caveats
    # categories are equally frequent, so no balanced accuracy has another chance
    assert set(metrics) == {"accuracy", "auc"}
    facts = retrieval_run.measurements().facts

    assert {row.second for row in facts.plain} == {"lda", "logistic", "ridge"}
    assert not [row for row in facts.plain if row.high < 0]
    (answer,) = facts.answers
    assert answer.side == "above chance"

    # the page shows each baseline but the method of the run itself
    tables = artifacts.read_tables(retrieval_run)
    titles = {str(row[0]) for table in tables for row in table.rows}
    baselines = ["logistic regression", "ridge regression"]
    assert set(baselines) | {"design alone, no signals"} <= titles
    assert "shrinkage LDA" not in titles
    (differences,) = [table for table in tables if "difference" in str(table.columns)]
    assert [row[1] for row in differences.rows] == baselines


def test_the_page_shows_confusions_and_names_the_recording(home, result, retrieval_run):
    page = (home / result.files["page"]).read_text()
    heatmaps = [
        artifact
        for artifact in artifacts.read(retrieval_run)
        if isinstance(artifact, artifacts.Heatmap)
    ]
    # the confusion matrix names each category, and holds its numbers
    (confusions,) = heatmaps
    assert all(name in " ".join(confusions.rows) for name in NAMES)
    assert [text.count("%") for text in chain(*confusions.texts)].count(1) >= 8
    assert confusions.section == FINDING
    (brain_map,) = [
        artifact
        for artifact in artifacts.read(retrieval_run)
        if isinstance(artifact, artifacts.BrainMap)
    ]
    assert brain_map.section == FINDING
    # F of p = .05 / 479 voxels, with 7 and 88 degrees of freedom
    assert brain_map.threshold == pytest.approx(f.isf(0.05 / 479, 7, 88), rel=1e-3)
    values = read_drawn_values(brain_map, retrieval_run.path)
    assert 0 < len(values) < 100
    assert values.min() >= brain_map.threshold
    # the map describes signals, so no model has seen its stimuli
    assert SEEN_PICTURES not in brain_map.note
    finding = state_finding(retrieval_run.measurements())
    assert all(name in finding.lower() for name in NAMES)
    assert "12.5" in finding
    # figures at the top are not repeated below
    assert page.count("<h4>Confusion matrix</h4>") == 1
    assert "Haxby" in page
    assert "simulated" not in page
    assert "12 folds, each tested with a model" in page
    # the health of embeddings is undefined for labels of 0 and 1
    assert "Health of" not in page
    counts = np.array(retrieval_run.measurements().facts.confusion_matrix.counts)
    assert counts.sum(1).tolist() == [12] * 8


def test_betas_know_their_runs_and_are_not_scaled_across_them(home, result):
    path = build_store_path(home / "signals", "haxby2001", "default", 1)
    recording = SignalStore.open(path)["train"]

    assert list(recording.pictures) == sorted(NAMES)
    assert recording.runs is not None
    for runs_of_picture in recording.as_repetitions(recording.runs).tolist():
        assert sorted(runs_of_picture) == list(range(1, 13))
    assert recording.preparation["zscore"] == "no"
    assert recording.preparation["estimator"] == "lsa"
    assert result.metrics.caveats == [SEEN_PICTURES]


def test_the_checklist_has_the_facts_of_the_recording(retrieval_run, home):
    (filled,) = fill_checklists([ShownRun("real", retrieval_run)])
    answers = {}
    for row in filled.rows:
        if row["status"] == "from the run":
            answers[row["item"]] = row["answer"]
    assert answers["Repetition time, or time per volume"] == "2.5 s"
    assert answers["Number of volumes"] == "121 per run"
    assert answers["Number of runs"] == "12 in 1 session"
    assert answers["Duration of a trial or block"].startswith("22.5 s")
    assert answers["Haemodynamic response"].startswith("canonical, Glover")
    assert answers["Slice timing correction"].startswith("not applied")
    assert "trans_x" in answers["Motion and other nuisance regressors"]
    assert answers["Drift model, high-pass filter"].startswith("cosine")
    assert "least squares for all trials" in answers["Type of model of a subject"]
    splitting = answers["Data splitting (cross-validation)"]
    assert "12 folds" in splitting
    assert "other 11" in splitting
    test = answers["Test of the figure of merit"]
    assert "5,000 permutations" in test
    assert "within runs," in test
    assert "Wilson" in answers["Intervals"]
    assert "DeLong" in answers["Intervals"]
    fit = answers["Data of the fit (sessions, training and test trials)"]
    assert "each run by itself" in fit
    assert "all runs of the session" in fit
    assert "house 12 of 12" in answers["Confusion matrix"]
    metrics = answers["Evaluation metrics with chance and uncertainty"]
    assert "design of the study, without signals" in metrics
    assert "Task or resting state" not in answers
    sizes = answers["Space and voxel size of the analysed images"]
    assert "3.75 mm" in sizes
    assert "matrix" in sizes
    correction = answers["Correction for multiple testing, and level of significance"]
    assert "2 differences from baselines" in correction
    assert answers["Licence and constraints on use"] == "CC-BY-SA-3.0"
    assert "Ethical approval and informed consent" not in answers

    # the page draws an F test of each voxel
    contrasts = answers[
        "Contrasts, cluster inference, threshold-free cluster enhancement, search "
        "volume"
    ]
    assert "96 trials" in contrasts
    assert "Bonferroni-corrected for 479" in contrasts
    assert "same stimuli" not in contrasts
    maps = answers[
        "Tables of coordinates, thresholded and unthresholded maps, smoothness"
    ]
    assert "sub-01_f_of_categories.nii.gz" in maps


def test_a_checklist_needs_the_format_of_a_file(result, home, run_command):
    with pytest.raises(RecipeError, match="md, tex or csv"):
        run_command("report", "runs=[demo]", "checklist=true")


@pytest.mark.parametrize("suffix", ["md", "csv", "tex"])
def test_report_writes_the_checklist_as_a_file(result, home, run_command, suffix):
    reported = run_command(
        "report", "runs=[demo]", "checklist=true", f"format={suffix}"
    )
    path = home / reported.files["table"]
    assert path.name.endswith(f"-checklist.{suffix}")
    assert "2.5 s" in path.read_text()


def test_a_page_ends_with_the_checklist(retrieval_run, home, run_command):
    reported = run_command("report", f"runs=[{retrieval_run.path}]")
    page = (home / reported.files["page"]).read_text()
    assert page.rfind("COBIDAS checklist for fMRI") > page.rfind("<h2>Recipes")
