"""Designs as laboratories run them: the same categories in every run, and which trials are tested."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import Go, at_home

from brainhive_cli.commands import train_align
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.measurements import FOOTNOTE, NOT_INTERLEAVED, SEEN_PICTURES
from brainhive_cli.core.results import Result
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.stores.recordings import SignalStore, path_of
from brainhive_cli.data.trials import Trials

NAMES, RUNS, SENSORS = ("face", "house", "shoe"), 12, 20
LABELS = "encoders=[{kind: concepts, count: 3}]"


def dataset(**holdout: Any) -> str:
    """Write the data set as an override."""
    fields = {"kind": "categories", "name": "of-3", "names": [*NAMES], "holdout": holdout}
    return f"dataset={json.dumps(fields)}"


def record(home: Path, subject: int, effect: float, names: Sequence[str] = NAMES, rare: int = 1) -> None:
    """Record each category twice a run, the last one `rare` times; runs have offsets of their own."""
    random = np.random.default_rng(subject)
    patterns = random.normal(size=(len(names), SENSORS)) * effect
    offsets = random.normal(size=(RUNS, SENSORS))
    times = [*[2 * RUNS] * (len(names) - 1), rare * RUNS]
    signal = np.zeros((len(names), max(times), SENSORS, 1), np.float32)
    runs = np.full(signal.shape[:2], -1, np.int16)
    for row, count in enumerate(times):
        runs[row, :count] = np.arange(count) % RUNS
        noise = random.normal(size=(count, SENSORS))
        signal[row, :count, :, 0] = patterns[row] + offsets[runs[row, :count]] + noise
    space = Sensors([f"E{number}" for number in range(SENSORS)])
    recording = Trials(
        *(signal, names, space, np.zeros(1), None, "µV"), repetitions=np.array(times), runs=runs
    )
    path = path_of(home / "signals", f"of-{len(names)}", "default", subject)
    path.parent.mkdir(parents=True, exist_ok=True)
    SignalStore.write(path, {"train": recording})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, go: Go) -> Iterator[Path]:
    with at_home(tmp_path_factory.mktemp("trials")) as home:
        for subject in (1, 2):
            record(home, subject, 0.6)
        go("embed", dataset(by="runs", folds=12))
        yield home


def decode(go: Go, *words: str, **holdout: Any) -> Result:
    """Train a discriminant analysis on all folds, and evaluate it."""
    go("train-align", dataset(**holdout), "backbone=lda", "seeds=0", *words)
    return go("eval-retrieval", "sheet_rows=0")


@pytest.fixture(scope="module")
def by_runs(home: Path, go: Go) -> Result:
    return decode(go, by="runs", folds=12)


def test_every_trial_of_every_run_is_tested_once_beside_plain_baselines(by_runs: Result) -> None:
    top1, facts = by_runs.metrics.overall["top1"], by_runs.metrics.facts

    assert (top1.n, top1.pool, top1.chance) == (2 * 5 * RUNS, 3, pytest.approx(2 / 5))  # the most frequent
    assert top1.value > 0.6 and facts.verdict == "above chance"
    assert {row.second for row in facts.plain} == {"lda", "logistic", "ridge"}
    lda = next(row for row in facts.plain if row.second == "lda")
    assert lda.difference == pytest.approx(0, abs=1e-9) and lda.low <= 0 <= lda.high
    assert "runs" in top1.interval and "runs held out, 12 folds" in top1.protocol


def test_what_was_seen_is_stamped_wherever_a_number_stands(by_runs: Result) -> None:
    assert all(
        SEEN_PICTURES in metric.caveats
        for metrics in by_runs.metrics.scopes.values()
        for metric in metrics.values()
    )
    assert FOOTNOTE in str(by_runs.tables[0].rows)


def test_unequal_categories_have_balanced_accuracy_and_a_confusion_matrix(by_runs: Result) -> None:
    overall, matrix = by_runs.metrics.overall, by_runs.metrics.facts.confusion_matrix
    counts = np.array(matrix.counts)

    assert matrix.names == sorted(NAMES) and counts.sum(1).tolist() == [4 * RUNS, 4 * RUNS, 2 * RUNS]
    recall = np.diag(counts) / counts.sum(1)
    assert overall["balanced_accuracy"].value == pytest.approx(recall.mean())
    assert overall["top1"].value == pytest.approx(np.diag(counts).sum() / counts.sum())


def test_a_category_that_no_trial_shows_is_no_candidate_and_said(
    tmp_path: Path, go: Go, capsys: pytest.CaptureFixture[str]
) -> None:
    words = dataset(by="runs", folds=3).replace('"shoe"', '"shoe", "hat"')
    with at_home(tmp_path):
        record(tmp_path, 1, 0.6)
        go("embed", words)
        go("train-align", words, "backbone=lda", "seeds=0")
        measured = go("eval-retrieval", "sheet_rows=0").metrics

    assert measured.overall["top1"].pool == 3 and "hat" not in measured.facts.confusion_matrix.names
    assert capsys.readouterr().err.count("no trial shows hat: left out of the candidates") == 1


@pytest.mark.parametrize(
    ("runs", "holdout", "words"),
    [
        ([[0, 1], [0, 1], [0, 1]], {"by": "runs", "folds": 2}, "trains on 3 trials of 3 stimuli"),
        ([[0, 0, 1], [1], [1]], {"by": "runs", "test": [2]}, "trains on 2 trials of 1 stimulus"),
        ([[0], [0], [0]], {"by": "trials", "folds": 2}, "trains on 3 trials of 3 stimuli"),
        ([[0, 0, 0]] * 3, {"by": "trials", "share": 0.01}, "tests 0 trials of 0 stimuli"),
        ([[0, 0, 0]] * 3, {"by": "trials", "share": 0.99}, "tests 0 trials of 0 stimuli"),
        ([[0, 0, 0]] * 3, {"by": "trials", "folds": 50}, "tests 0 trials of 0 stimuli"),
        ([[0, 0, 0]] * 3, {"by": "pictures", "folds": 3}, "lda tells apart what it was trained on"),
    ],
)
def test_a_fold_that_cannot_be_trained_or_tested_is_refused_by_the_check(
    tmp_path: Path, go: Go, runs: list[list[int]], holdout: dict[str, Any], words: str
) -> None:
    counts = [len(row) for row in runs]
    numbers = np.full((3, max(counts)), -1, np.int16)
    for row, listed in enumerate(runs):
        numbers[row, : len(listed)] = listed
    signal = np.random.default_rng(0).normal(size=(*numbers.shape, SENSORS, 1)).astype(np.float32)
    space = Sensors([f"E{number}" for number in range(SENSORS)])
    recording = Trials(
        *(signal, NAMES, space, np.zeros(1), None, "µV"), repetitions=np.array(counts), runs=numbers
    )
    with at_home(tmp_path):
        path = path_of(tmp_path / "signals", "of-3", "default", 1)
        path.parent.mkdir(parents=True)
        SignalStore.write(path, {"train": recording})
        go("embed", dataset(**holdout))
        recipe = train_align.Recipe.resolve(
            "train-align", None, {}, [dataset(**holdout), "backbone=lda", "seeds=0"]
        )
        (error, *_) = [one.error for one in train_align.inputs(recipe) if one.error and one.is_missing]
        with pytest.raises(RecipeError, match=words):
            decode(go, **holdout)

    assert words in error.message and error.hint
    assert not [*tmp_path.glob("runs/train-align/*/cells/*/*")]


def test_shuffled_labels_are_at_chance(home: Path, go: Go) -> None:
    shuffled = decode(go, "train.shuffled_labels=true", by="runs", folds=12)

    assert shuffled.metrics.facts.verdict != "above chance"
    assert shuffled.metrics.overall["top1"].value < 0.5  # the most frequent two make .4 each


def test_a_listed_run_or_a_share_of_trials_is_one_fold(home: Path, go: Go) -> None:
    listed = decode(go, by="runs", test=[3, 4])
    shared = decode(go, by="trials", share=0.25)

    assert listed.metrics.overall["top1"].n == 2 * 2 * 5
    assert listed.metrics.facts.scope == "these 4 runs"  # two of each of two people
    assert shared.metrics.overall["top1"].n == 2 * (6 + 6 + 3)


@pytest.mark.parametrize(
    ("design", "holdout", "verdict"),
    [
        (
            "blocks",
            {"by": "trials", "folds": 4},
            "not testable: labels were shown in blocks, so signal and time",
        ),
        ("same blocks", {"by": "sessions", "folds": 4}, "not testable: blocks came in the same order in all"),
        ("random", {"by": "trials", "folds": 4}, "at chance"),
        ("random", {"by": "sessions", "test": [3]}, "at chance for this session"),
    ],
)
def test_drift_without_any_label_is_never_above_chance(
    tmp_path: Path, go: Go, design: str, holdout: dict[str, Any], verdict: str
) -> None:
    """Four sessions in which signals walk at random, on the same path where blocks have the same order."""
    random, names = np.random.default_rng(0), ("a", "b", "c")
    blocks = np.repeat([0, 1, 2], 8)
    shown = [random.permutation(blocks) if design == "random" else blocks for _ in range(4)]
    walks = 0.5 * random.normal(size=(4, 24, SENSORS)).cumsum(1)
    signal = (walks[:1] if design == "same blocks" else walks) + random.normal(size=walks.shape)
    rows = np.array([[np.flatnonzero(order == label) for order in shown] for label in range(3)])  # [3, 4, 8]
    sessions = np.repeat(np.arange(4), 8)
    recording = Trials(
        *(signal[sessions, rows.reshape(3, 32), :, None].astype(np.float32), names),
        *(Sensors([f"E{number}" for number in range(SENSORS)]), np.zeros(1), None, "µV"),
        sessions=np.tile(sessions.astype(np.int8), (3, 1)),
        onset_s=rows.reshape(3, 32) * 2.0,
    )
    with at_home(tmp_path):
        path = path_of(tmp_path / "signals", "abc", "default", 1)
        path.parent.mkdir(parents=True)
        SignalStore.write(path, {"train": recording})
        fields = {"kind": "categories", "name": "abc", "names": [*names], "holdout": holdout}
        go("embed", f"dataset={json.dumps(fields)}")
        go("train-align", f"dataset={json.dumps(fields)}", "backbone=lda", "seeds=0")
        found = go("eval-retrieval", "sheet_rows=0", "baseline=none").metrics

    assert found.facts.verdict.startswith(verdict)
    assert (NOT_INTERLEAVED in found.overall["top1"].caveats) == (design != "random")


def test_chance_of_each_metric_is_that_of_the_best_constant_guess(by_runs: Result) -> None:
    """Two of three categories are shown twice as often as the third: ranks 1, 2 and 3 of .4, .4 and .2."""
    chance = {name: metric.chance for name, metric in by_runs.metrics.overall.items()}

    assert chance["mrr"] == chance["map"] == pytest.approx(0.4 + 0.4 / 2 + 0.2 / 3)
    assert (chance["mean_rank"], chance["median_rank"]) == (pytest.approx(1.8), 2)
    assert chance["balanced_accuracy"] == pytest.approx(1 / 3)


def test_a_control_permutes_the_labels_of_trials(home: Path, go: Go, by_runs: Result) -> None:
    run = f"run={by_runs.metrics.facts.run}"
    controlled = go("eval-retrieval", run, "sheet_rows=0", "control=shuffled").metrics

    assert controlled.facts.verdict.startswith("at chance")
    assert controlled.facts.control.metrics["top1"].mean == pytest.approx(0.36, abs=0.05)


@pytest.mark.parametrize("by", ["runs", "trials", "pictures"])
def test_copies_of_held_out_trials_are_refused_by_name(home: Path, go: Go, by: str) -> None:
    path = path_of(home / "signals", "of-3", "default", 3)
    record(home, 3, 0.6)
    recording = SignalStore.open(path)["train"]
    signal = np.array(recording.signal)
    signal[0, 1:4] = signal[1 if by == "pictures" else 0, 0]
    path.unlink()
    SignalStore.write(path, {"train": replace(recording, signal=signal)})

    copies = r"subject 3 train: \d of \d+ trials are copies of trials that are tested; .* run \d"
    with pytest.raises(BrainhiveError, match=copies):
        go("train-align", dataset(by=by, folds=3), "backbone=ridge", "subjects=3", "seeds=0")
    path.unlink()


def test_sessions_that_the_store_does_not_say_are_refused(home: Path, go: Go) -> None:
    with pytest.raises(BrainhiveError, match="nothing says which trial is of which session"):
        go("train-align", dataset(by="sessions", folds=2), "backbone=lda", "seeds=0")


def test_claims_of_zero_shot_and_new_subjects_are_refused(home: Path, go: Go) -> None:
    with pytest.raises(RecipeError, match="mode inter"):
        go("train-align", dataset(by="runs", folds=2), "backbone=lda", "mode=inter")
    published = "published={source: a paper, values: {top1: 0.5}}"
    with pytest.raises(RecipeError, match="published results are zero-shot"):
        go("train-align", dataset(by="runs", folds=2), "backbone=lda", published)


def test_a_start_or_a_model_folder_that_may_know_held_out_trials_is_refused(
    home: Path, go: Go, by_runs: Result
) -> None:
    model = f"{by_runs.metrics.facts.run}/cells/sub-01_fold-03_seed-0/model"
    with pytest.raises(RecipeError, match="may have learned from the runs"):
        go("train-align", dataset(by="runs", folds=12), "seeds=0", f"train.start_from={model}")
    with pytest.raises(RecipeError, match="does not say which fold"):
        go("eval-retrieval", f"run={model}", dataset(by="runs", folds=12), "subjects=1")
    with pytest.raises(RecipeError, match="does not hold out what"):
        go("eval-retrieval", f"run={by_runs.metrics.facts.run}", dataset(by="trials", folds=2))


def test_no_picture_is_drawn_of_trials_whose_pictures_were_seen(home: Path, go: Go, by_runs: Result) -> None:
    with pytest.raises(RecipeError, match="drawings are of new ones"):
        go("reconstruct", f"align_run={by_runs.metrics.facts.run}", "prior=identity", "sources=[brain]")


def test_other_ways_to_hold_out_are_another_protocol(home: Path, go: Go, by_runs: Result) -> None:
    other = go("train-align", dataset(by="trials", folds=2), "backbone=lda", "seeds=0")

    with pytest.raises(BrainhiveError, match="galleries"):
        go("eval-retrieval", "sheet_rows=0", f"against={by_runs.metrics.facts.run}", f"run={other.folder}")


def test_two_categories_have_the_area_under_the_curve(home: Path, go: Go) -> None:
    names = ["face", "house"]
    record(home, 1, 0.5, names, rare=2)
    fields = {"kind": "categories", "name": "of-2", "names": names, "holdout": {"by": "runs", "folds": 12}}
    go("embed", f"dataset={json.dumps(fields)}")
    go("train-align", f"dataset={json.dumps(fields)}", "backbone=lda", "seeds=0", "subjects=1")
    found = go("eval-retrieval", "sheet_rows=0")

    auc, top1 = found.metrics.overall["auc"], found.metrics.overall["top1"]
    assert auc.chance == 0.5 and auc.value >= top1.value - 0.1 and auc.value > 0.7
