"""Trials, held-out trials and the input of models, compared with recorded numbers."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from brainhive_cli.data.signals import (
    SEPARATE_TEST,
    Holdout,
    Sensors,
    Signal,
    Trials,
)
from brainhive_cli.data.signals.normalisations import Channel
from brainhive_cli.data.targets import model_input as model_input_module
from brainhive_cli.data.targets.model_input import (
    match_recording,
    match_stimuli,
    measure_training,
    model_input,
    spec_of,
)
from tests.worlds.array_trials import arrange

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
STIMULI = SimpleNamespace(
    image_ids=record().pictures,
    concepts=CONCEPTS,
    find_rows=lambda names: np.array([int(name[2:]) for name in names]),
)


def write_split(path):
    """Write a split of two variants that leave out a picture."""
    ids = list(record().pictures)
    variants = [
        {"test_ids": ids[:2], "train_ids": ids[2:8]},
        {"test_ids": ids[3:5], "train_ids": ids[5:]},
    ]
    path.write_text(json.dumps({"variants": variants}))
    return str(path)


HOLDOUTS = {
    "pictures in folds": {"by": "pictures", "folds": 4, "seed": 2},
    "a share of pictures": {"by": "pictures", "share": 0.35},
    "listed pictures": {"by": "pictures", "test": ["a/*", "b/4"]},
    "a split of pictures": {"by": "pictures", "split": "split.json"},
    "trials in folds": {"by": "trials", "folds": 3, "seed": 1},
    "a share of trials": {"by": "trials", "share": 0.4},
    "runs in folds": {"by": "runs", "folds": 4},
    "a share of runs": {"by": "runs", "share": 0.34, "seed": 5},
    "listed runs": {"by": "runs", "test": [1, -1, 3]},
    "sessions": {"by": "sessions", "test": [-1]},
    "the split test": {},
}


def arrange_shape(trials):
    """Return the shape [N, R, C, T] of trials that are arranged by picture."""
    return (len(trials.counts), trials.max_repetitions) + tuple(trials.signal.shape[1:])


@pytest.mark.parametrize("name", HOLDOUTS)
def test_holdouts(recorded, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_split(tmp_path / "split.json")
    holdout = Holdout(**HOLDOUTS[name]) if HOLDOUTS[name] else SEPARATE_TEST
    trials = record()
    folds = {}
    for fold in holdout.fold_numbers:
        for split in ("train", "test"):
            selected_trials = holdout.choose_trials(trials, split, fold, "it")
            # labels of trials of seen pictures are groups that were tested together
            groups = (
                holdout.name_groups(selected_trials, "1", fold)
                if holdout.has_seen_pictures
                else []
            )
            folds[f"{fold}, {split}"] = {
                "stimuli": holdout.choose_stimuli(STIMULI, split, fold),
                "index": selected_trials.index,
                "averages": selected_trials.averages,
                "runs": arrange(selected_trials).runs.ravel(),
                "groups": len(set(groups)),
                "other": [
                    arrange_shape(other_opposite_trial)
                    for other_opposite_trial in holdout.list_opposite_trials(
                        {"train": trials, "test": trials.take(np.arange(2))},
                        split,
                        fold,
                        "it",
                    )
                ],
            }
    numbers = [
        holdout.number_folds(trials, STIMULI, split, "it")
        for split in ("train", "test")
    ]
    recorded(
        digits=5,
        folds=folds,
        numbers=numbers,
        words=holdout.description,
        claims=[holdout.describe_claims(9, number) for number in (0, 1, 3)],
        caveats=len(holdout.caveats(trials)),
        fingerprint=len(holdout.inputs()),
    )


def test_input_of_models(recorded, monkeypatch):
    trials = replace(record(), subject=3, stimulus=np.arange(PICTURES))
    signal = Signal(channels=["Oz", "Cz"], window_ms=(0, 50), scale=2.0)
    spec = spec_of([signal.select(trials, None, "it")], signal.model_dump())
    other_space = replace(
        record(), space=Sensors(("Pz", "OZ", "Fp1", "O1")), times_s=trials.times_s
    )
    mapped = {
        kind: match_recording(spec, other_space, Signal(), None, "it", kind).averages
        for kind in ("spline", "common")
    }
    counting = replace(spec, names=("0", "1"), positions=None)
    recording = match_recording(counting, other_space, Signal(), ["Fp1", "O1"], "it")
    monkeypatch.setattr(model_input_module, "MAX_STIMULI_PER_READ", 4)
    fractions = {}
    for name, holdout in (
        ("all", SEPARATE_TEST),
        ("fold", Holdout(by="pictures", folds=3)),
    ):
        source = SimpleNamespace(
            dataset=SimpleNamespace(holdout=holdout), fold=2, signal=signal
        )
        source.signal = SimpleNamespace(normalise=Channel())
        fractions[name] = measure_training(source, trials, STIMULI)
    stand_in = SimpleNamespace(find_rows=lambda ids: np.arange(PICTURES) * 2 % 5 - 1)
    recorded(
        digits=5,
        spec=spec,
        mapped=mapped,
        counted=recording.averages,
        read=model_input(spec, trials, None),
        statistics=fractions,
        matched=match_stimuli(trials, stand_in, "it").stimulus,
    )
