"""Steps from betas to recordings: z-scores, noise ceilings and the choice of voxels."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.files import Names
from brainhive_cli.data.fmri.betas import (
    NOT_ESTIMATED,
    Betas,
    BetaSteps,
    SessionTrials,
    choose_estimates,
)
from brainhive_cli.data.media import StimulusSet
from brainhive_cli.data.recordings.shown_pictures import list_pictures, match_pictures
from brainhive_cli.data.signals import Voxels
from brainhive_cli.data.stores import SignalStore, describe_store, make_count_rows
from brainhive_cli.data.stores.session_store import complete_session, join_sessions

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


def make(seed=0, train=30, test=6, repetitions=3, noise=1.0, **keys):
    """Simulate responses and noise in two sessions that show all pictures.

    A run shows each picture once: first the training pictures a0, a1, …, then the test
    pictures z0, z1, …
    """
    random = np.random.default_rng(seed)
    names = [f"a{row}" for row in range(train)] + [f"z{row}" for row in range(test)]
    splits = ["train"] * train + ["test"] * test
    responses = random.normal(size=(train + test, VOXELS))
    held = {}
    for session in (1, 2):
        shape = (len(names) * repetitions, VOXELS)
        values = np.tile(responses, (repetitions, 1))
        values = values + noise * random.normal(size=shape)
        betas = (session * values + 5).astype(np.float32)
        runs = np.repeat(np.arange(repetitions), train + test)
        held[session] = [betas, names * repetitions, splits * repetitions, runs]
    return InMemory(Steps(**keys), held=held)


def change(betas, split, session=1):
    """Give all trials of a split other values."""
    values, names, splits, runs = betas.held[session]
    others = np.random.default_rng(9).normal(3, 7, values.shape).astype(np.float32)
    is_changed = np.array(splits) == split
    values = np.where(is_changed[:, None], others, values)
    held = betas.held | {session: [values, names, splits, runs]}
    return replace(betas, held=held)


@pytest.mark.parametrize("zscore", ["session", "run"])
def test_training_values_scale_the_test_trials(zscore):
    betas = make(zscore=zscore)
    expected = betas.session(1, 1)
    other_test = change(betas, "test").session(1, 1)
    other_train = change(betas, "train").session(1, 1)
    np.testing.assert_array_equal(other_test["train"].signal, expected["train"].signal)
    assert (other_test["test"].signal != expected["test"].signal).any()
    assert (other_train["test"].signal != expected["test"].signal).any()


@pytest.mark.parametrize("zscore", ["session", "run"])
def test_training_trials_have_mean_0_and_spread_1(zscore):
    signal = make(zscore=zscore).session(1, 2)["train"].signal[:, :, 0]
    # three runs of 30 training trials
    blocks = np.split(signal, 3) if zscore == "run" else [signal]
    for block in blocks:
        np.testing.assert_allclose(block.mean(0), 0, atol=1e-5)  # of float32
        np.testing.assert_allclose(block.std(0), 1, atol=1e-5)


def test_voxels_must_vary_in_every_session(tmp_path):
    betas = make()
    betas.held[1][0][:20, 2] = np.nan
    betas.held[2][0][:, 5] = 4
    recordings = betas.prepare(tmp_path)
    for trials in recordings.values():
        assert trials.signal.shape[1] == VOXELS - 2
    assert recordings["train"].provenance["voxels"] == {
        "read": VOXELS,
        "constant_or_missing_in_a_session": 2,
        "kept": VOXELS - 2,
    }
    expected = np.delete(betas.session(1, 1)["train"].signal[0], [2, 5], 0)
    np.testing.assert_array_equal(recordings["train"].signal[0:1][0], expected)


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


def test_missing_voxels_are_counted_for_the_worst_session(tmp_path):
    betas = make()
    betas.held[2][0][10:, 3:] = np.nan
    betas.held[2][0][5, :] = 0
    recordings = betas.prepare(tmp_path)
    assert recordings["train"].signal.shape[1] == 3
    row = next(make_count_rows(describe_store(SignalStore(tmp_path, recordings))))
    assert f"{VOXELS - 3} of {VOXELS} voxels" in row[-1]
    assert "session 2" in row[-1]
    assert f"1 {NOT_ESTIMATED}" in row[-1]


@pytest.fixture
def ncsnr(tmp_path):
    """The noise ceiling [V] of all voxels."""
    return make().prepare(tmp_path)["train"].space.maps["ncsnr"]


def test_only_repetitions_of_training_pictures_choose_voxels(tmp_path, ncsnr):
    betas = make(max_voxels=4)
    train = betas.prepare(tmp_path / "one")["train"]
    best = np.sort(np.argsort(-ncsnr)[:4])
    np.testing.assert_array_equal(train.space.maps["ncsnr"], ncsnr[best])
    assert train.provenance["voxels"]["chosen_by_training_stimuli"] == 30

    other_test = change(change(betas, "test"), "test", 2).prepare(tmp_path / "other")
    np.testing.assert_array_equal(other_test["train"].signal[:], train.signal[:])
    assert other_test["test"].space.maps.keys() == train.space.maps.keys()


def test_a_least_ratio_keeps_the_voxels_that_reach_it(tmp_path, ncsnr):
    fifth_best = float(np.sort(ncsnr)[-5])
    betas = make(min_ncsnr=fifth_best, max_voxels=9)
    kept = betas.prepare(tmp_path / "one")["train"].space.maps["ncsnr"]
    np.testing.assert_array_equal(kept, ncsnr[ncsnr >= fifth_best])
    with pytest.raises(BrainhiveError, match=r"subject 1.*\b12\b.*ncsnr"):
        make(min_ncsnr=99).prepare(tmp_path / "none")


def test_too_few_repeated_training_pictures_choose_no_voxels(tmp_path):
    betas = make(train=19, max_voxels=4)
    with pytest.raises(BrainhiveError, match=r"\b19\b.*\b20\b") as error:
        betas.prepare(tmp_path)
    assert "preparation.max_voxels" in error.value.hint
    with pytest.raises(BrainhiveError, match=r"\b19\b.*\b20\b"):
        betas.shapes(1, 1)  # as a plan does


def make_dataset(**names):
    """Make a data set of the pictures of each split."""

    def images(split):
        image_ids = Names.of(names[split])
        return StimulusSet("mine", split, image_ids, image_ids, open=Path)

    return Dataset("mine", tuple(names), images)


def test_missing_pictures_are_not_replaced_by_equal_file_names():
    stimuli = make_dataset(train=["cat/01", "cat/02"], test=["tree/oak"])
    # no other picture is called oak, but two are called 02
    names = ["images/cat/01.jpg", "images/dog/01.jpg", "", "plants/oak.jpg"]
    names += ["s/bee/02.jpg", "s/owl/02.jpg"]
    pictures = list_pictures(stimuli)
    image_ids, splits, dropped = match_pictures(names, stimuli, pictures)
    assert image_ids == ["cat/01", "", "", "tree/oak", "", ""]
    assert splits.tolist() == ["train", "", "", "test", "", ""]
    absent = "trials of pictures that mine does not have"
    assert dropped == {"blank trials": 1, absent: 3}

    names = ["images/dog/01.jpg", "images/bee/01.jpg", "plants/oak.jpg"]
    assert match_pictures(names, stimuli, pictures)[0] == ["", "", "tree/oak"]


def test_a_matched_path_is_not_shortened_further():
    """The end of the path alone would match two pictures."""
    stimuli = make_dataset(train=["a/b/c", "z/b/c", "y/q"])
    names = ["a/b/c.png", "more/y/q.png"]
    image_ids, _, dropped = match_pictures(names, stimuli, list_pictures(stimuli))
    assert image_ids == ["a/b/c", "y/q"]
    assert not dropped


def test_trials_and_voxels_without_missing_betas_are_kept():
    betas = np.random.default_rng(0).normal(size=(12, 9)).astype(np.float32)
    betas[2, :7] = 0  # trial 2 was not estimated in most voxels
    betas[5, 3] = np.nan  # costs a trial or a voxel
    betas[7, [1, 2]] = 0  # a quarter of the eight voxels that are not always 0
    betas[8] = np.inf
    betas[:, 6] = 0
    betas[9:, 8] = np.nan  # costs a voxel rather than three trials

    trials, voxels = choose_estimates(betas)

    assert np.flatnonzero(~trials).tolist() == [2, 5, 7, 8]
    assert np.flatnonzero(~voxels).tolist() == [8]
    trials, voxels = choose_estimates(betas[:3, :2])
    assert (trials.tolist(), voxels.tolist()) == ([True, True, False], [True, True])


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
