"""Steps from betas to recordings: z-scores, noise ceilings and the choice of voxels."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.fmri.betas import (
    NOT_ESTIMATED,
    Betas,
    BetaSteps,
    SessionTrials,
    choose_estimates,
    measure_ncsnr,
)
from brainhive_cli.data.recordings.shown_pictures import list_pictures, match_pictures
from brainhive_cli.data.signals import Voxels
from brainhive_cli.data.stores import SignalStore, describe_store, make_count_rows
from brainhive_cli.data.stores.session_store import complete_session, join_sessions
from tests.worlds.array_trials import make_trials

VOXELS = 12


class Steps(BetaSteps):
    """Steps of betas with pictures in a folder."""

    name: ClassVar[str] = "image-folder"


@dataclass(frozen=True)
class InMemory(Betas):
    """Betas [n, V], pictures, splits and runs of each session of a subject."""

    root: Path = Path()
    held: dict = field(default_factory=dict)
    subjects = (1,)

    def files(self, subject):
        return []

    def sessions(self, subject):
        return sorted(self.held)

    def load_voxels(self, subject):
        return Voxels({})

    def count_voxels(self, subject):
        return VOXELS

    def list_trials(self, subject, session):
        _, names, splits, runs = self.held[session]
        return SessionTrials(
            names, np.array(splits), np.array(runs), {"blank trials": 3}
        )

    def read_betas(self, subject, session):
        return self.held[session][0].copy(), {}, {}

    def prepare(self, folder):
        """Prepare, join and finish all sessions, as the command does."""
        stores = []
        for session in self.held:
            path = folder / f"ses-{session}.h5"
            trials = complete_session(session, self.session(1, session), "float32")
            SignalStore.write(path, trials)
            stores.append(SignalStore.open(path))
        return self.finish(1, join_sessions(stores, None, {}))


def make(seed=0, sessions=2, train=30, test=6, repetitions=3, noise=1.0, **keys):
    """Simulate responses and noise in sessions that show all pictures."""
    random = np.random.default_rng(seed)
    names = (
        [f"a{row}" for row in range(train)] + [f"z{row}" for row in range(test)]
    ) * repetitions
    splits = (["train"] * train + ["test"] * test) * repetitions
    responses = random.normal(size=(train + test, VOXELS))
    held_rows = {}
    for session in range(1, sessions + 1):
        values = np.tile(responses, (repetitions, 1)) + noise * random.normal(
            size=(len(names), VOXELS)
        )
        runs = np.repeat(np.arange(repetitions), train + test)
        held_rows[session] = [
            (session * values + 5).astype(np.float32),
            names,
            splits,
            runs,
        ]
    return InMemory(Steps(**keys), held=held_rows)


def change(betas, split, session=1):
    """Give all trials of a split other values."""
    values, names, splits, runs = betas.held[session]
    random = np.random.default_rng(9)
    changed = np.where(
        (np.array(splits) == split)[:, None], random.normal(3, 7, values.shape), values
    )
    return replace(
        betas,
        held={**betas.held, session: [changed.astype(np.float32), names, splits, runs]},
    )


def test_training_values_scale_the_test_trials():
    for zscore in ("session", "run"):
        betas = make(zscore=zscore)
        single_session, other_session = (
            betas.session(1, 1),
            change(betas, "test").session(1, 1),
        )
        np.testing.assert_array_equal(
            single_session["train"].signal, other_session["train"].signal
        )
        assert (single_session["test"].signal != other_session["test"].signal).any()
        assert (
            single_session["test"].signal
            != change(betas, "train").session(1, 1)["test"].signal
        ).any()

        # training trials have mean 0 and standard deviation 1 in each session or run
        runs = np.array(betas.held[2][3])[np.array(betas.held[2][2]) == "train"]
        signal = betas.session(1, 2)["train"].signal[:, :, 0]
        for rows in (
            [slice(None)]
            if zscore == "session"
            else [runs == index for index in range(3)]
        ):
            np.testing.assert_allclose(signal[rows].mean(0), 0, atol=1e-5)  # of float32
            np.testing.assert_allclose(signal[rows].std(0), 1, atol=1e-5)


def test_voxels_must_vary_in_every_session(
    tmp_path,
):
    betas = make()
    betas.held[1][0][:20, 2] = np.nan
    betas.held[2][0][:, 5] = 4
    recordings = betas.prepare(tmp_path)
    assert (
        recordings["train"].signal.shape[1]
        == recordings["test"].signal.shape[1]
        == VOXELS - 2
    )
    counts = recordings["train"].provenance["voxels"]
    assert counts == {
        "read": VOXELS,
        "constant_or_missing_in_a_session": 2,
        "kept": VOXELS - 2,
    }
    expected = np.delete(betas.session(1, 1)["train"].signal[0, :, 0], [2, 5])
    np.testing.assert_array_equal(
        np.asarray(recordings["train"].signal[0:1])[0, :, 0], expected
    )


@pytest.mark.parametrize("missing", [np.nan, np.inf, 0])
@pytest.mark.parametrize("width", [VOXELS, VOXELS // 2])
def test_trials_without_an_estimate_are_left_out_and_counted(tmp_path, missing, width):
    """NaN in three trials must not cost half of the voxels."""
    betas = make()
    rows = np.arange(len(betas.held[1][0]))
    betas.held[1][0][rows % 50 == 7, :width] = missing
    recordings = betas.prepare(tmp_path)
    assert recordings["train"].signal.shape[1] == VOXELS
    store = SignalStore(tmp_path, recordings)
    (train, test) = describe_store(store)["splits"].values()
    assert train["dropped"][NOT_ESTIMATED] == 3
    assert train["trials"] + test["trials"] == 2 * len(rows) - 3


def test_missing_voxels_are_counted_for_the_worst_session(
    tmp_path,
):
    betas = make()
    betas.held[2][0][10:, 3:] = np.nan
    betas.held[2][0][5, :] = 0
    recordings = betas.prepare(tmp_path)
    assert recordings["train"].signal.shape[1] == 3
    row = next(make_count_rows(describe_store(SignalStore(tmp_path, recordings))))
    lost = VOXELS - 3
    assert f"{lost} of {VOXELS} voxels" in row[-1] and "session 2" in row[-1]
    assert f"1 {NOT_ESTIMATED}" in row[-1]


def test_the_noise_ceiling_equals_nsd_with_unequal_repetitions(
    tmp_path,
):
    betas = make(sessions=1)
    values, names, splits, runs = betas.held[1]
    # two or three repetitions, of some pictures one
    rows = np.array(
        [row for row in range(len(names)) if row % 7 or splits[row] == "test"]
    )
    rows = rows[~np.isin(np.array(names)[rows], ["a3", "a4"]) | (rows < 36)]
    selected_rows = [
        values[rows],
        [names[row] for row in rows],
        [splits[row] for row in rows],
        runs[rows],
    ]
    recordings = replace(betas, held={1: selected_rows}).prepare(tmp_path)

    is_train = np.array(selected_rows[2]) == "train"
    scored, array = (
        selected_rows[0][is_train].astype(np.float64),
        np.array(selected_rows[1])[is_train],
    )
    scored = (scored - scored.mean(0)) / scored.std(0)
    trials = [scored[array == name] for name in np.unique(array)]
    assert {len(trial) for trial in trials} == {1, 2, 3}
    noise = np.mean(
        [trial.var(0, ddof=1) for trial in trials if len(trial) > 1], axis=0
    )
    expected = np.sqrt(np.maximum(1 - noise, 0) / noise)
    # of float32
    np.testing.assert_allclose(
        recordings["train"].space.maps["ncsnr"], expected, rtol=1e-4
    )


def test_only_repetitions_of_training_pictures_choose_voxels(tmp_path):
    betas = make(max_voxels=4)
    recordings = betas.prepare(tmp_path / "one")
    ncsnr = make().prepare(tmp_path / "all")["train"].space.maps["ncsnr"]
    best = np.sort(np.argsort(-ncsnr)[:4])
    np.testing.assert_array_equal(recordings["train"].space.maps["ncsnr"], ncsnr[best])
    assert recordings["train"].provenance["voxels"]["chosen_by_training_stimuli"] == 30

    changed_test = change(change(betas, "test"), "test", 2).prepare(tmp_path / "other")
    np.testing.assert_array_equal(
        changed_test["train"].signal[:], recordings["train"].signal[:]
    )
    assert (
        changed_test["test"].space.maps.keys()
        == changed_test["train"].space.maps.keys()
    )


def test_a_least_ratio_keeps_the_voxels_that_reach_it(tmp_path):
    ncsnr = make().prepare(tmp_path / "all")["train"].space.maps["ncsnr"]
    value = float(np.sort(ncsnr)[-5])
    train = make(min_ncsnr=value, max_voxels=9).prepare(tmp_path / "one")["train"]
    np.testing.assert_array_equal(train.space.maps["ncsnr"], ncsnr[ncsnr >= value])
    with pytest.raises(
        BrainhiveError,
        match=r"subject 1.*\b12\b.*ncsnr",
    ):
        make(min_ncsnr=99).prepare(tmp_path / "none")


def test_too_few_repeated_training_pictures_choose_no_voxels(tmp_path):
    betas = make(train=19, max_voxels=4)
    with pytest.raises(BrainhiveError, match=r"\b19\b.*\b20\b") as error:
        betas.prepare(tmp_path)
    assert "preparation.max_voxels" in error.value.hint
    with pytest.raises(BrainhiveError, match=r"\b19\b.*\b20\b"):
        betas.shapes(1, 1)  # as a plan does


def test_missing_pictures_are_not_replaced_by_equal_file_names():
    listed_names = {"train": ["cat/01", "cat/02"], "test": ["tree/oak"]}
    stimuli = SimpleNamespace(
        name="mine",
        are_categories=False,
        splits=list(listed_names),
        images=lambda split: SimpleNamespace(image_ids=listed_names[split]),
    )
    pictures = list_pictures(stimuli)
    names = [
        "images/cat/01.jpg",
        "images/dog/01.jpg",
        "",
        "plants/oak.jpg",
        "s/bee/02.jpg",
        "s/owl/02.jpg",
    ]
    image_ids, splits, dropped = match_pictures(names, stimuli, pictures)
    assert image_ids == ["cat/01", "", "", "tree/oak", "", ""]
    assert splits.tolist() == ["train", "", "", "test", "", ""]
    assert dropped == {
        "blank trials": 1,
        "trials of pictures that mine does not have": 3,
    }
    image_ids, _, _ = match_pictures(
        ["images/dog/01.jpg", "images/bee/01.jpg", "plants/oak.jpg"], stimuli, pictures
    )
    assert image_ids == ["", "", "tree/oak"]


def test_a_matched_path_is_not_shortened_further():
    """The end of the path alone would match two pictures."""
    ids = ["a/b/c", "z/b/c", "y/q"]
    stimuli = SimpleNamespace(name="set", are_categories=False)
    image_ids, splits, dropped = match_pictures(
        ["a/b/c.png", "more/y/q.png", ""], stimuli, (ids, np.array(["s", "t", "u"]))
    )
    assert (image_ids, splits.tolist()) == (["a/b/c", "y/q", ""], ["s", "u", ""])
    assert dropped == {"blank trials": 1}


def test_measures_of_betas_are_those_recorded(recorded):
    random = np.random.default_rng(0)
    counts = np.array([3, 1, 2, 3, 2, 3])
    signal = random.normal(size=(6, 1, 5, 1)) * np.arange(5)[:, None]
    signal = signal + random.normal(size=(6, 3, 5, 1))
    trials = make_trials(1, signal, range(6), counts=counts, rate_hz=None)
    betas = random.normal(size=(12, 9)).astype(np.float32)
    betas[2, :7] = 0
    betas[5, 3] = np.nan
    betas[7, [1, 2]] = 0
    betas[8] = np.inf
    betas[:, 6] = 0
    betas[9:, 8] = np.nan
    recorded(
        digits=5,
        ncsnr=measure_ncsnr(trials),
        chosen=choose_estimates(betas),
        chosen_of_few=choose_estimates(betas[:3, :2]),
    )


@pytest.mark.parametrize(
    ("train", "test", "repetitions", "scale", "is_refused"),
    [
        (1, 0, 2, "session", False),
        (1, 0, 1, "session", True),
        (1, 4, 1, "session", True),
        (0, 2, 1, "session", False),
        (2, 0, 1, "run", False),
        (1, 3, 2, "run", True),
        (1, 0, 1, "no", False),
    ],
)
def test_two_trials_or_more_are_needed_to_z_score_by(
    train, test, repetitions, scale, is_refused
):
    betas = make(train=train, test=test, repetitions=repetitions, zscore=scale)
    if is_refused:
        with pytest.raises(BrainhiveError):
            betas.shapes(1, 1)
    else:
        counts = {split: shape[0] for split, shape in betas.shapes(1, 1).items()}
        assert sum(counts.values()) == (train + test) * repetitions
