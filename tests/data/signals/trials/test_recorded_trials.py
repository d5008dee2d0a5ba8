"""Trials, held-out trials and the input of models, compared with recorded numbers."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.recordings import Account, EventNames
from brainhive_cli.data.recordings.onset_shift import compare_onsets
from brainhive_cli.data.signals import (
    SEPARATE_TEST,
    Holdout,
    Overlap,
    Sensors,
    Signal,
    Trials,
    digest_trials,
    group_trials,
    make_trial_reader,
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
from tests.tools.trial_numbers import numbers_of_trials
from tests.worlds.array_trials import arrange, make_trials

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


def test_trials(recorded, monkeypatch):
    trials = record()
    chosen_trials = trials.choose(
        (4 * trials.picture_of_trial + trials.repetition) % 3 > 0
    )
    cut_trials = trials.select(["Oz", "occipital", "P7"], (-20, 41), 0.5, "it")
    scaled = trials.select(None, None, 3.0, "it", normalises_trials=True)
    normaliser = Channel().build(Channel().measure([trials.averages]))
    generator = torch.Generator().manual_seed(3)
    taken_scaled = scaled.take(np.array([8, 0, 5]))
    scaled_twice = taken_scaled.choose(
        taken_scaled.repetition == taken_scaled.picture_of_trial
    )
    order, counts = group_trials(np.array(["b", "a", "b", "c", "a", "b"]))
    gather = make_trial_reader(order, (2, 1), "f4", lambda row: np.full((2, 1), row))
    constant = np.ones((4, 3, 4), np.float32)
    constant[2] = np.arange(12).reshape(3, 4)
    arrays = [trials.averages, trials.as_repetitions()]
    digests = trials.digests
    monkeypatch.setattr("brainhive_cli.data.signals.trials.MAX_STIMULI_PER_READ", 4)
    in_blocks = [
        record().averages,
        record().as_repetitions(),
        record().digests == digests,
    ]
    recorded(
        digits=5,
        trials=numbers_of_trials(trials),
        whole=arrays,
        in_blocks=in_blocks,
        chosen=[
            chosen_trials.averages,
            chosen_trials.as_repetitions(chosen_trials.onset_s, np.nan),
            chosen_trials.as_repetitions(chosen_trials.runs, -1),
            chosen_trials.counts,
        ],
        cut=[cut_trials.averages, cut_trials.times_s, cut_trials.rows],
        scaled=[scaled.averages, scaled.as_repetitions()],
        normalised=[
            scaled.normalise(normaliser).averages,
            cut_trials.take(np.array([2, 1])).averages,
            trials.normalise(normaliser).take(np.arange(2, 5)).singles,
        ],
        twice=[
            scaled_twice.averages,
            scaled_twice.index,
            scaled_twice.onset_s[:, None],
        ],
        drawn=[trials.average(count, generator).averages for count in (1, 2, 7)],
        grouped=[order, counts, gather(slice(1, 3))],
        constant=list(digest_trials(constant) == 0),
        copies=len(set(digests.ravel().tolist())),
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


def test_windows_that_overlap(recorded):
    onset_s = np.cumsum(np.random.default_rng(0).uniform(0.3, 0.6, (2, 40)), 1)
    rows = []
    for length_s in (0.2, 0.5, 1.0):
        times_s = np.arange(round(length_s * 50)) / 50 - 0.1
        trials = [
            Trials.from_repetitions(
                np.zeros((40, 1, 1, len(times_s)), np.float32),
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
        overlap = Overlap.measure(trials, times_s)
        rows.append([overlap, overlap.description] if overlap else [])
    recorded(digits=5, rows=rows)


TIMES_S = np.cumsum(np.random.default_rng(1).uniform(0.8, 1.6, 30)) + 2
REGULAR_S = np.arange(14) + 2.013
ONSETS = {
    "equal": (TIMES_S, 1000.0, 0.0),
    "whole seconds": (np.rint(TIMES_S), 1000.0, 0.0),
    "later": (TIMES_S + 0.31, 1000.0, 0.0),
    "earlier by a delay": (TIMES_S - 0.2, 500.0, 0.2),
    "earlier by less": (TIMES_S - 0.2, 500.0, 0.1),
    "much earlier": (TIMES_S - 13.3, 500.0, 0.0),
    "much later with more rows": (np.r_[1, 3.3, TIMES_S + 4.62, 99], 250.0, 0.0),
    "drifting": (TIMES_S * 1.001, 100.0, 0.0),
    "rows that lack a marker": (np.r_[TIMES_S[:20], 50.3, 51.7], 1000.0, 0.0),
    "some rows": (TIMES_S[4::2] + 0.07, 1000.0, 0.0),
    "two rows": (TIMES_S[:2], 1000.0, 0.0),
    "others": (np.cumsum(np.random.default_rng(2).uniform(1, 9, 30)), 1000.0, 0.0),
    "slightly late": (TIMES_S + 0.004, 1000.0, 0.0),
    "late by two samples": (TIMES_S + 0.021, 100.0, 0.0),
    # as many belong together by other shifts
    "a part of regular ones": (REGULAR_S[4:10] + 0.2, 1000.0, 0.0, REGULAR_S),
}
"""Seconds of rows, rate in Hz and delay; also those of markers, if not `TIMES_S`."""


@pytest.mark.parametrize("name", ONSETS)
def test_onsets_beside_markers(recorded, name):
    onsets_s, rate_hz, delay_s, *others_s = ONSETS[name]
    times_s = others_s[0] if others_s else TIMES_S
    markers = [(round(times_ * rate_hz), "S  1") for times_ in times_s]
    hint = ""
    try:
        doubt = compare_onsets(onsets_s, markers, rate_hz, delay_s)
    except BrainhiveError as error:
        doubt, hint = error.message, error.hint
    recorded(is_doubted=bool(doubt), doubt=doubt, hint=hint)


def test_names_of_events(recorded, tmp_path):
    table = tmp_path / "events.tsv"
    ids = ["train/ant", "train/007", "test/car", "test/bee 01"]
    rows = ["001\tant.png", "S  2\t007.png", "Comment/3\tcar", "0\tzebra.png", "\tx"]
    rows += ["12\tn/a", "\t", "5\tbee 01.jpg"]
    table.write_text("event\tpicture\n" + "\n".join(rows) + "\n")
    events = ["1", "Stimulus/S  1", "Stimulus/S  2", "Stimulus/2", "Comment/3"]
    events += ["Response/1", "Stimulus/S  0", "5", "Comment/5", "12", "S  5", "005"]
    header = SimpleNamespace(
        events=list(enumerate(events)), events_without_onset=("1", "unknown")
    )
    names = EventNames(table, ids)
    matched, left_over = names.match([header])
    free = EventNames(None, ids).match([header])
    exact = EventNames(None, ["face", "house"], are_categories=True)
    recorded(
        rows=[matched.get(event, -1) for event in events],
        single=[
            -1 if (row := names.find_row(event)) is None else row for event in events
        ],
        left_over=[
            sorted(map(str, unused_names)) for unused_names in left_over.values()
        ],
        counts=[
            dict(unused_names)
            for unused_names in left_over.values()
            if isinstance(unused_names, dict)
        ],
        pictures=[len(names.find_pictures(events)), names.count_pictures()],
        named=names.name_pictures(events),
        account=names.account.as_facts(),
        without_table=[len(free[0]), len(free[1])],
        exact=[exact.find_row(name) or 0 for name in ("House", "house", "a/house")],
    )


def test_ledgers(recorded):
    account = Account()
    for number, source in enumerate("abcde"):
        account.set_aside("files", "too short", f"{source}.fif", number)
        account.set_aside("files", "too short", f"{source}.fif", 2)
    account.set_aside("rows", "blank", "t.csv")
    recorded(lines=account.describe(), facts=account.as_facts())
    assert [line.endswith("…") for line in account.describe()] == [True, False]


def test_voxels_are_read_by_region(recorded):
    random = np.random.default_rng(0)
    signal = random.normal(size=(5, 2, 12, 1)).astype(np.float32)
    trials = make_trials(
        1, signal, range(5), regions={"V1": range(2, 7), "V2": [5, 6, 10]}
    )
    selected_trials = trials.select(["V2", "V1"], None, 2.0, "it")
    spec = spec_of([replace(selected_trials, subject=1)])
    recorded(
        digits=5,
        rows=selected_trials.rows,
        regions=selected_trials.regions,
        averages=selected_trials.averages,
        spec=[spec.widths, spec.regions],
    )
