"""Trials, held-out trials and the input of models, compared with recorded numbers."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.recordings import EventNames
from brainhive_cli.data.recordings.onset_shift import compare_onsets
from brainhive_cli.data.signals import (
    Holdout,
    Overlap,
    Sensors,
    Signal,
    Trials,
)
from brainhive_cli.data.signals.normalisations import Channel
from brainhive_cli.data.targets.model_input import (
    match_recording,
    match_stimuli,
    measure_training,
    model_input,
    spec_of,
)
from tests.tools.trial_numbers import numbers_of_trials

CAP = ("Fp1", "Cz", "P7", "Oz")
PICTURES = 9


def record(**changes):
    """Record nine pictures of three concepts, with one to four trials each.

    They are in random order in two sessions of three runs.
    """
    random = np.random.default_rng(4)
    counts = np.array([4, 3, 4, 1, 2, 4, 4, 3, 4])
    is_there = np.arange(4) < counts[:, None]
    order = np.full((PICTURES, 4), -1)
    order[is_there] = random.permutation(counts.sum())
    signal = random.normal(size=(PICTURES, 4, 4, 10)).astype(np.float32)
    signal[~is_there] = np.nan
    fields = {
        "repetitions": counts,
        "sessions": np.where(is_there, order // 15, -1).astype(np.int8),
        "runs": np.where(is_there, order % 15 // 5, -1).astype(np.int16),
        "onset_s": np.where(is_there, 2 + order % 5 * 1.7 + order / 90, np.nan),
        **changes,
    }
    ids = [f"{'abc'[row % 3]}/{row}" for row in range(PICTURES)]
    times_s = np.arange(10) / 100 - 0.02
    return Trials.from_repetitions(
        signal, ids, Sensors(CAP), times_s, 100.0, "µV", **fields
    )


CONCEPTS = ["abc"[row % 3] for row in range(PICTURES)]
HOLDOUTS = {
    "pictures in folds": {"by": "pictures", "folds": 4, "seed": 2},
    "a share of pictures": {"by": "pictures", "share": 0.35},
    "trials in folds": {"by": "trials", "folds": 3, "seed": 1},
    "a share of trials": {"by": "trials", "share": 0.4},
    "runs in folds": {"by": "runs", "folds": 4},
    "a share of runs": {"by": "runs", "share": 0.34, "seed": 5},
    "listed runs": {"by": "runs", "test": [1, -1, 3]},
    "sessions": {"by": "sessions", "test": [-1]},
}


def test_seeds_determine_the_same_test_trials_as_ever(recorded):
    trials = record()
    tested_items = {}
    for name, fields in HOLDOUTS.items():
        holdout = Holdout(**fields)
        for fold in holdout.fold_numbers:
            if holdout.has_seen_pictures:
                is_tested = holdout.hold_out_trials(trials, fold, "it")
            else:
                is_tested = holdout.hold_out_pictures(trials.pictures, CONCEPTS, fold)
            # as text, because a long list would be recorded as its mean
            rows = np.flatnonzero(is_tested)
            tested_items[f"{name}, fold {fold}"] = " ".join(map(str, rows))
    recorded(tested_items=tested_items)


def test_trials(recorded, monkeypatch):
    trials = record()
    chosen_trials = trials.choose(
        (4 * trials.picture_of_trial + trials.repetition) % 3 > 0
    )
    cut_trials = trials.select(["Oz", "occipital", "P7"], (-20, 41), 0.5, "it")
    scaled = trials.select(None, None, 3.0, "it", normalises_trials=True)
    normaliser = Channel().build(Channel().measure([trials.averages]))
    generator = torch.Generator().manual_seed(3)
    recorded(
        digits=5,
        trials=numbers_of_trials(trials),
        chosen=chosen_trials.averages,
        chosen_onsets_s=chosen_trials.as_repetitions(chosen_trials.onset_s, np.nan),
        cut=cut_trials.averages,
        scaled=scaled.as_repetitions(),
        normalised=scaled.normalise(normaliser).averages,
        drawn=trials.average(2, generator).averages,
    )


def test_input_of_models(recorded):
    trials = replace(record(), subject=3, stimulus=np.arange(PICTURES))
    signal = Signal(channels=["Oz", "Cz"], window_ms=(0, 50), scale=2.0)
    spec = spec_of([signal.select(trials, None, "it")], signal.model_dump())
    other_space = replace(record(), space=Sensors(("Pz", "OZ", "Fp1", "O1")))
    mapped = match_recording(spec, other_space, Signal(), None, "it", "spline")
    # the names of a model whose channels have no names are numbers
    counting = replace(spec, names=("0", "1"), positions=None)
    counted = match_recording(counting, other_space, Signal(), ["Fp1", "O1"], "it")
    recorded(
        digits=5,
        mapped=mapped.averages,
        counted=counted.averages,
        read=model_input(spec, trials, None),
    )


class EvenPictures:
    """A target store that has embeddings of every second picture only."""

    def find_rows(self, names):
        numbers = np.array([int(name[2:]) for name in names])
        return np.where(numbers % 2 == 0, numbers // 2, -1)


def test_trials_of_pictures_without_embedding_are_left_out():
    matched = match_stimuli(record(), EvenPictures(), "it")
    assert matched.pictures == ("a/0", "c/2", "b/4", "a/6", "c/8")
    assert matched.stimulus.tolist() == [0, 1, 2, 3, 4]


def test_only_the_training_fold_is_measured():
    trials = record()
    pictures = SimpleNamespace(
        image_ids=trials.pictures,
        concepts=CONCEPTS,
        find_rows=lambda names: np.array([int(name[2:]) for name in names]),
    )
    source = SimpleNamespace(
        dataset=SimpleNamespace(holdout=Holdout(by="pictures", folds=3)),
        fold=2,
        signal=SimpleNamespace(normalise=Channel()),
    )
    statistics = measure_training(source, trials, pictures)
    # one value for each of the four channels
    mean = [0.037891, -0.036358, 0.041917, 0.10468]
    np.testing.assert_allclose(np.ravel(statistics["mean"]), mean, rtol=1e-4)
    variance = [0.32394, 0.283, 0.22145, 0.27854]
    np.testing.assert_allclose(np.ravel(statistics["covariance"]), variance, rtol=1e-4)


def test_spacing_of_windows_at_uneven_times(recorded):
    onset_s = np.cumsum(np.random.default_rng(0).uniform(0.3, 0.6, (2, 40)), 1)
    times_s = np.arange(25) / 50 - 0.1
    trials = [
        Trials.from_repetitions(
            np.zeros((40, 1, 1, 25), np.float32),
            [str(row) for row in range(40)],
            Sensors(["Oz"]),
            times_s,
            50.0,
            "µV",
            runs=(np.arange(40)[:, None] // 13).astype(np.int16),
            onset_s=onset[:, None],
        )
        for onset in onset_s
    ]
    recorded(digits=5, overlap=Overlap.measure(trials, times_s))


TIMES_S = np.cumsum(np.random.default_rng(1).uniform(0.8, 1.6, 30)) + 2


@pytest.mark.parametrize(
    ("onsets_s", "rate_hz", "delay_s", "facts"),
    [
        (np.rint(TIMES_S), 1000.0, 0.0, ["2 of 30", "0.45"]),
        (TIMES_S + 0.31, 1000.0, 0.0, ["310"]),
        (TIMES_S - 0.2, 500.0, 0.2, []),
        (TIMES_S - 0.2, 500.0, 0.1, ["200"]),
        (TIMES_S - 13.3, 500.0, 0.0, ["13300"]),
        (np.r_[1, 3.3, TIMES_S + 4.62, 99], 250.0, 0.0, ["3 of 33", "4620"]),
        # the clock of the table is slow by a thousandth
        (TIMES_S * 1.001, 100.0, 0.0, ["20"]),
        (np.r_[TIMES_S[:20], 50.3, 51.7], 1000.0, 0.0, ["2 of 22"]),
        (TIMES_S[4::2] + 0.07, 1000.0, 0.0, ["70"]),
        (TIMES_S[:2], 1000.0, 0.0, []),
        (np.cumsum(np.random.default_rng(2).uniform(1, 9, 30)), 1000.0, 0.0, []),
        (TIMES_S + 0.004, 1000.0, 0.0, []),
        (TIMES_S + 0.021, 100.0, 0.0, ["21"]),
    ],
)
def test_onsets_that_differ_from_markers_are_doubted(onsets_s, rate_hz, delay_s, facts):
    markers = [(round(time_s * rate_hz), "S  1") for time_s in TIMES_S]
    try:
        doubt = compare_onsets(onsets_s, markers, rate_hz, delay_s)
    except BrainhiveError as error:
        doubt = f"{error.message} {error.hint}"
    assert bool(doubt) == bool(facts)
    for fact in facts:
        assert re.search(rf"\b{fact}\b", doubt)


def test_part_of_regular_onsets_has_no_single_shift():
    # as many rows belong to markers by other shifts, too
    markers = [(round(1000 * time_s), "S  1") for time_s in np.arange(14) + 2.013]
    doubt = compare_onsets(np.arange(4, 10) + 2.213, markers, 1000.0, 0.0)
    assert "200" in doubt


def test_event_codes_and_picture_names_are_matched(tmp_path):
    table = tmp_path / "events.tsv"
    ids = ["train/ant", "train/007", "test/car", "test/bee 01"]
    rows = ["001\tant.png", "S  2\t007.png", "Comment/3\tcar", "0\tzebra.png", "\tx"]
    rows += ["12\tn/a", "\t", "5\tbee 01.jpg"]
    table.write_text("event\tpicture\n" + "\n".join(rows) + "\n")
    picture_rows = {
        "1": 0,
        "Stimulus/S  1": 0,
        "Stimulus/S  2": 1,
        "Stimulus/2": None,
        "Comment/3": 2,
        "Response/1": None,
        "Stimulus/S  0": None,
        "5": 3,
        "Comment/5": 3,
        "12": None,
        "005": 3,
    }

    names = EventNames(table, ids)

    assert {event: names.find_row(event) for event in picture_rows} == picture_rows
    assert names.account.as_facts() == {"rows": {"without an event or a picture": 2}}
    exact = EventNames(None, ["face", "house"], are_categories=True)
    assert [exact.find_row(name) for name in ("House", "house")] == [None, 1]
