"""Tests of categories that are shown in every run, with runs or trials held out."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli import api
from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.core.results.measurements import (
    CAVEATS,
    NORMALISED_BY_TESTED,
    NOT_INTERLEAVED,
    ORDER_UNKNOWN,
    SEEN_PICTURES,
)
from brainhive_cli.data.signals import Sensors, Trials
from brainhive_cli.data.stores.signal_store import SignalStore, build_store_path
from brainhive_cli.reports.sentences.sentences import MEANINGS
from brainhive_cli.training.alignment.trained import open_model, open_test_set
from tests.tools.changed_stores import resealed
from tests.worlds.command_fixtures import use_home

NAMES, RUNS, SENSORS = ("face", "house", "shoe"), 12, 20


def dataset(**holdout):
    """Write the override of the data set with a holdout."""
    fields = {
        "kind": "categories",
        "name": "of-3",
        "names": list(NAMES),
        "holdout": holdout,
    }
    return f"dataset={json.dumps(fields)}"


def record(home, subject, effect, names=NAMES, rare=1):
    """Write the trials of a subject, where each run has an offset of its own.

    Args:
        home: Home of the commands.
        subject: Number of the subject.
        effect: Size of the response to a category.
        names: Categories, each with two trials per run.
        rare: Trials per run of the last category.
    """
    random = np.random.default_rng(subject)
    patterns = random.normal(size=(len(names), SENSORS)) * effect
    offsets = random.normal(size=(RUNS, SENSORS))
    trial_counts = [2 * RUNS] * (len(names) - 1) + [rare * RUNS]
    signal = np.zeros((len(names), max(trial_counts), SENSORS, 1), np.float32)
    runs = np.full(signal.shape[:2], -1, np.int16)
    for row, count in enumerate(trial_counts):
        runs[row, :count] = np.arange(count) % RUNS
        noise = random.normal(size=(count, SENSORS))
        signal[row, :count, :, 0] = patterns[row] + offsets[runs[row, :count]] + noise
    space = Sensors([f"E{number}" for number in range(SENSORS)])
    recording = Trials.from_repetitions(
        signal,
        names,
        space,
        times_s=np.zeros(1),
        rate_hz=None,
        unit="µV",
        repetitions=np.array(trial_counts),
        runs=runs,
    )
    path = build_store_path(home / "signals", f"of-{len(names)}", "default", subject)
    path.parent.mkdir(parents=True, exist_ok=True)
    SignalStore.write(path, {"train": recording})


@pytest.fixture(scope="module")
def home(tmp_path_factory, run_command):
    with use_home(tmp_path_factory.mktemp("trials")) as home:
        for subject in (1, 2):
            record(home, subject, 0.6)
        run_command("embed", dataset(by="runs", folds=12))
        yield home


def decode(run_command, *overrides, **holdout):
    """Train a discriminant analysis on all folds, and evaluate it."""
    run_command(
        "train-align", dataset(**holdout), "backbone=lda", "seeds=0", *overrides
    )
    return run_command("eval-retrieval", "sheet_rows=0")


@pytest.fixture(scope="module")
def by_runs(home, run_command):
    return decode(run_command, by="runs", folds=12)


@pytest.mark.nightly
def test_every_trial_of_every_run_is_tested_once(
    by_runs,
):
    accuracy, facts = by_runs.metrics.overall["accuracy"], by_runs.metrics.facts

    # chance is the share of the most frequent category
    assert (accuracy.n, accuracy.pool) == (2 * 5 * RUNS, 3)
    assert accuracy.chance == pytest.approx(2 / 5)
    assert accuracy.value > 0.6
    assert facts.answers[0].outcome == "above chance"
    # the store has no onsets
    assert ORDER_UNKNOWN in accuracy.caveats
    assert facts.answers[0].side == "conditional"
    # folds share training data, so they are not independent
    assert facts.inflation > 1
    baselines = {"lda", "logistic", "ridge"}
    assert {row.second for row in facts.plain} == baselines
    (lda,) = (row for row in facts.plain if row.second == "lda")
    assert lda.difference == pytest.approx(0, abs=1e-9)
    assert lda.low <= 0 <= lda.high
    assert "runs" in accuracy.interval
    assert "runs" in accuracy.protocol
    assert "12 folds" in accuracy.protocol
    # every number has the caveat of seen pictures
    for metrics in by_runs.metrics.scopes.values():
        for metric in metrics.values():
            assert SEEN_PICTURES in metric.caveats
    assert CAVEATS[SEEN_PICTURES] in str(by_runs.tables[0].rows)


def test_what_cannot_be_held_out_or_claimed_is_refused(home, run_command, by_runs):
    source_run, holdout = by_runs.metrics.facts.run, {"by": "runs", "folds": 12}
    with pytest.raises(RecipeError, match="lda"):
        decode(run_command, by="pictures", folds=3)
    with pytest.raises(BrainhiveError, match="session"):
        decode(run_command, by="sessions", folds=2)
    with pytest.raises(RecipeError, match="inter"):
        decode(run_command, "mode=inter", **holdout)
    # a model of other folds was trained on the held-out runs
    model = f"train.start_from={source_run}/cells/sub-01_fold-03_seed-0/model"
    with pytest.raises(RecipeError, match="runs"):
        run_command("train-align", dataset(**holdout), "seeds=0", model)
    with pytest.raises(RecipeError, match="hold"):
        run_command(
            "eval-retrieval", f"run={source_run}", dataset(by="trials", folds=2)
        )


def test_next_lines_hold_out_runs(home, run_command, capsys):
    fields = {"kind": "categories", "name": "of-3", "names": NAMES}
    all_trials = f"dataset={json.dumps(fields)}"

    # embed names the held-out runs and a classifier of labels
    arguments = shlex.split(str(run_command("embed", all_trials).hint))
    assert arguments[:2] == ["brainhive", "train-align"]
    assert f"holdout: {{by: runs, folds: {RUNS}}}" in arguments[2]
    assert "backbone=lda" in arguments
    trained = run_command("train-align", *arguments[2:], "subjects=1")
    arguments = shlex.split(str(trained.hint))
    assert arguments[:2] == ["brainhive", "eval-retrieval"]
    result = run_command("eval-retrieval", f"run={arguments[3]}", "baseline=none")
    assert result.metrics.overall["accuracy"].n == 5 * RUNS

    # models of all trials decode other recordings; the warning has the key to add
    capsys.readouterr()
    untested = run_command("train-align", all_trials, "backbone=ridge", "subjects=1")
    assert f"dataset.holdout={{by: runs, folds: {RUNS}}}" in capsys.readouterr().err
    assert "eval-retrieval" not in str(untested.hint)


def test_copies_of_held_out_trials_are_refused_by_name(home, run_command):
    """Copies of training trials would be decoded even from noise."""
    path = build_store_path(home / "signals", "of-3", "default", 3)
    record(home, 3, 0.6)
    recording = SignalStore.open(path)["train"]
    signal = np.array(recording.signal)
    signal[1:4] = signal[0]
    path.unlink()
    SignalStore.write(path, {"train": replace(recording, signal=signal)})
    with pytest.raises(BrainhiveError, match=r"subject 3 train: \d of \d+ .* run \d"):
        run_command(
            "train-align",
            dataset(by="runs", folds=3),
            "backbone=ridge",
            "subjects=3",
            "seeds=0",
        )
    path.unlink()


def test_one_run_is_tested_where_labels_are_as_frequent(home, run_command):
    names = NAMES[:2]
    record(home, 1, 0.6, names, rare=2)
    holdout = {"by": "runs", "test": [RUNS]}
    fields = {"kind": "categories", "name": "of-2", "names": names, "holdout": holdout}
    two_categories = f"dataset={json.dumps(fields)}"
    run_command("embed", two_categories)
    run_folder = run_command(
        "train-align", two_categories, "backbone=lda", "seeds=0"
    ).folder

    metrics = run_command(
        "eval-retrieval", f"run={run_folder}", "sheet_rows=0", "baseline=none"
    ).metrics

    assert (metrics.overall["accuracy"].n, metrics.overall["accuracy"].pool) == (4, 2)
    assert not any("backward" in name for name in metrics.scopes)


def open_test_trials(text):
    """Open the held-out trials of the first subject, as the model of a run reads them.

    Args:
        run: Folder of the run.
    """
    models = open_model(text, Paths())
    tests = open_test_set(models, "test")
    return tests.open_person(models.open_first(), 1).trials


@pytest.mark.parametrize("normalise_by", ["subject", "tested_trials"])
def test_test_trials_change_others_only_with_a_stamp(
    tmp_path, run_command, normalise_by
):
    """Most trials of the tested run get another offset and size after the training."""
    is_stamped = normalise_by == "tested_trials"
    path = build_store_path(tmp_path / "signals", "of-3", "default", 1)
    with use_home(tmp_path):
        record(tmp_path, 1, 0.6)
        holdout = dataset(by="runs", test=[RUNS])
        run_command("embed", holdout)
        trained = run_command(
            "train-align",
            holdout,
            "backbone=ridge",
            "signal.normalise=channel",
            f"signal.normalise_by={normalise_by}",
            "seeds=0",
        ).folder
        evaluated = run_command("eval-retrieval", "sheet_rows=0")
        page = run_command("report").files["page"].read_text()
        recording = SignalStore.open(path)["train"]
        tested_recording = recording.hold_out(recording.runs == RUNS - 1, "test")
        ranks = api.decode(trained, tested_recording, 1)
        initial_test_trials = open_test_trials(str(trained))
        signal_before = initial_test_trials.averages
        with resealed(path) as file:
            is_changed = file["train/runs"][:] == RUNS - 1  # [n]
            # trials of the first category stay
            is_changed[: file["train/repetitions"][0]] = False
            signal = file["train/signal"][:]
            signal[is_changed] = 5 * signal[is_changed] + 20
            file["train/signal"][:] = signal
        final_test_trials = open_test_trials(str(trained))

    is_first = np.asarray(initial_test_trials.image_ids) == NAMES[0]  # [n]
    assert is_first.sum() == 2
    difference = np.abs(final_test_trials.averages - signal_before)[is_first].max()
    assert (difference > 0.1) == is_stamped
    assert (difference == 0) != is_stamped
    has_own_mean = np.allclose(signal_before.mean(0), 0, atol=1e-5)
    assert has_own_mean == is_stamped

    assert (NORMALISED_BY_TESTED in evaluated.metrics.caveats) == is_stamped
    for metrics in evaluated.metrics.scopes.values():
        for metric in metrics.values():
            assert (NORMALISED_BY_TESTED in metric.caveats) == is_stamped
    assert (MEANINGS[NORMALISED_BY_TESTED] in page) == is_stamped
    assert (NORMALISED_BY_TESTED in ranks.caveats) == is_stamped


@pytest.mark.nightly
def test_shuffled_labels_are_at_chance(home, run_command):
    shuffled = decode(run_command, "train.shuffled_labels=true", by="runs", folds=12)

    assert shuffled.metrics.facts.verdict != "above chance"
    # chance is 0.4, the share of each of the two most frequent categories
    assert shuffled.metrics.overall["accuracy"].value < 0.5


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("design", "holdout", "text"),
    [
        ("blocks", {"by": "trials", "folds": 4}, "not testable"),
        ("same blocks", {"by": "sessions", "folds": 4}, "not testable"),
        ("random", {"by": "trials", "folds": 4}, "at chance"),
    ],
)
def test_drift_without_any_label_is_never_above_chance(
    tmp_path,
    run_command,
    design,
    holdout,
    text,
):
    """The signals of four sessions are random walks without any response.

    If the blocks have the same order in all sessions, the walks are the same, too.
    """
    random, names = np.random.default_rng(0), ("a", "b", "c")
    blocks = np.repeat([0, 1, 2], 8)
    labels = [
        random.permutation(blocks) if design == "random" else blocks for _ in range(4)
    ]
    walks = 0.5 * random.normal(size=(4, 24, SENSORS)).cumsum(1)
    noise = random.normal(size=walks.shape)
    signal = noise + (walks[:1] if design == "same blocks" else walks)

    # position of each trial in its session [labels, sessions × trials]
    positions = np.zeros((3, 4, 8), np.int64)
    for label in range(3):
        for session, order in enumerate(labels):
            positions[label, session] = np.flatnonzero(order == label)
    positions = positions.reshape(3, 32)
    sessions = np.repeat(np.arange(4), 8)
    recording = Trials.from_repetitions(
        signal[sessions, positions, :, None].astype(np.float32),
        names,
        Sensors([f"E{number}" for number in range(SENSORS)]),
        times_s=np.zeros(1),
        rate_hz=None,
        unit="µV",
        sessions=np.tile(sessions.astype(np.int8), (3, 1)),
        onset_s=positions * 2.0,
    )
    with use_home(tmp_path):
        path = build_store_path(tmp_path / "signals", "abc", "default", 1)
        path.parent.mkdir(parents=True)
        SignalStore.write(path, {"train": recording})
        fields = {
            "kind": "categories",
            "name": "abc",
            "names": list(names),
            "holdout": holdout,
        }
        run_command("embed", f"dataset={json.dumps(fields)}")
        run_command(
            "train-align", f"dataset={json.dumps(fields)}", "backbone=lda", "seeds=0"
        )
        metrics = run_command("eval-retrieval", "sheet_rows=0", "baseline=none").metrics

    assert metrics.facts.answers[0].side == text
    assert (NOT_INTERLEAVED in metrics.overall["accuracy"].caveats) == (
        design != "random"
    )


def test_chance_is_the_score_of_the_best_constant_guess(
    by_runs,
):
    """Two of three categories have twice as many trials as the third."""
    chance = {name: metric.chance for name, metric in by_runs.metrics.overall.items()}

    assert chance == {
        "accuracy": pytest.approx(2 / 5),
        "balanced_accuracy": pytest.approx(1 / 3),
        "auc": 0.5,
    }

    # the baselines have the same chance
    scopes = by_runs.metrics.scopes
    chances = [scopes[name]["accuracy"].chance for name in scopes if "plain" in name]
    assert len(chances) >= 2
    assert chances == pytest.approx([0.4] * len(chances))
    overall, matrix = by_runs.metrics.overall, by_runs.metrics.facts.confusion_matrix
    counts = np.array(matrix.counts)
    assert matrix.names == sorted(NAMES)
    assert counts.sum(1).tolist() == [4 * RUNS, 4 * RUNS, 2 * RUNS]
    recall = np.diag(counts) / counts.sum(1)
    assert overall["balanced_accuracy"].value == pytest.approx(recall.mean())
    n_right = np.trace(counts)
    assert overall["accuracy"].value == pytest.approx(n_right / counts.sum())


def test_categories_have_no_metrics_of_ranks_anywhere(by_runs):
    names = set[str]()
    for scope_name, metrics in by_runs.metrics.scopes.items():
        if "ceiling" not in scope_name:
            names.update(metrics)
    columns = " ".join(str(table.columns) for table in by_runs.tables)

    assert names == {"accuracy", "balanced_accuracy", "auc"}
    assert by_runs.metrics.facts.plain[0].metric == "accuracy"
    assert "accuracy" in columns
    for name in ("top-", "rank", "MRR", "mAP"):
        assert name not in columns
