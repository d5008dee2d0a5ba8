"""NSD as MindEye1, MindEye2 and Brain-Diffuser prepare it, compared with its trials."""

import io
import shutil
import sys
import tarfile
from types import ModuleType

import h5py
import numpy as np
import pytest

pytest.importorskip("nibabel")

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.published.nsd_prepared import (
    BrainDiffuserBetas,
    MindEye1Betas,
    MindEye2Betas,
)
from tests.tools.trial_numbers import numbers_of_trials
from tests.worlds.array_trials import arrange

BETAS = "betas_all_subj01_fp32_renorm.hdf5"


@pytest.fixture(scope="module")
def mini_nsd(golden, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(golden / "prepare")
        # only for a table that is not written
        patch.setitem(sys.modules, "pandas", ModuleType("pandas"))
        import mini_raw

        (root := tmp_path_factory.mktemp("data") / "nsd").mkdir()
        truth = mini_raw.make_nsd(
            root, mini_raw.Nsd(stimuli=False, stim_info=False, nifti=False), seed=1
        )
    return root, truth


def open_mindeye2(mini_nsd):
    return MindEye2Betas(root=str(mini_nsd[0] / "mindeye2")).build(
        Paths(data=str(mini_nsd[0]))
    )


def open_mindeye1(mini_nsd):
    return MindEye1Betas(root=str(mini_nsd[0] / "mindeye1")).build(Paths())


def open_brain_diffuser(mini_nsd):
    return BrainDiffuserBetas(root=str(mini_nsd[0] / "brain_diffuser")).build(
        Paths(data=str(mini_nsd[0].parent))
    )


def list_trials(truth, split):
    """List the trials of each picture of a split, in the order of first sight."""
    trials = {}
    for trial in np.flatnonzero(truth["is_test"] == (split == "test")).tolist():
        trials.setdefault(f"nsd{truth['image'][trial] + 1:05d}", []).append(trial)
    return trials


def test_mindeye2_trials_are_grouped_by_picture_in_time_order(mini_nsd, recorded):
    root, truth = mini_nsd
    recording = open_mindeye2(mini_nsd).recording(1, "test")
    trials = dict(sorted(list_trials(truth, "test").items()))
    assert list(recording.pictures) == list(trials)
    np.testing.assert_array_equal(
        recording.repetitions, [len(numbers) for numbers in trials.values()]
    )
    assert set(recording.repetitions) >= {2, 3}
    with h5py.File(root / "mindeye2" / BETAS) as file:
        betas = file["betas"][:]
    arranged = arrange(recording)
    for row, sessions, numbers in zip(
        arranged.signal, arranged.sessions, trials.values(), strict=True
    ):
        np.testing.assert_array_equal(row[: len(numbers), :, 0], betas[numbers])
        assert sessions[: len(numbers)].tolist() == [n // 750 for n in numbers]
        assert not row[len(numbers) :].any()
        assert (sessions[len(numbers) :] == -1).all()
    assert recording.space.regions["nsdgeneral"].all()
    assert len(recording.space.regions["nsdgeneral"]) == recording.signal.shape[1]
    recorded(
        digits=5,
        **numbers_of_trials(recording),
        train=numbers_of_trials(open_mindeye2(mini_nsd).recording(1, "train")),
    )


def test_mindeye1_keeps_each_repetition_once(mini_nsd):
    _, truth = mini_nsd
    voxels = truth["voxels"].astype(np.float16)
    for split in ("train", "test"):
        recording = open_mindeye1(mini_nsd).recording(1, split)
        trials = list_trials(truth, split)
        arranged = arrange(recording)
        for image_id, row, count in zip(
            arranged.image_ids, arranged.signal, recording.repetitions, strict=True
        ):
            assert count == len(trials[image_id])
            np.testing.assert_array_equal(row[:count, :, 0], voxels[trials[image_id]])
        assert recording.space.regions["nsdgeneral"].all()
        assert recording.times_s.tolist() == [0]


def test_brain_diffuser_pictures_are_in_the_order_of_first_sight(mini_nsd, recorded):
    """The means are z-scored by the training pictures."""
    _, truth = mini_nsd
    raw = {}
    for split in ("train", "test"):
        recording = open_brain_diffuser(mini_nsd).recording(1, split)
        trials = list_trials(truth, split)
        assert list(recording.image_ids) == list(trials)
        means = [truth["voxels"][numbers].mean(0) for numbers in trials.values()]
        raw[split] = np.stack(means) / 300
        expected = (raw[split] - raw["train"].mean(0)) / raw["train"].std(0, ddof=1)
        np.testing.assert_allclose(
            recording.signal[0 : len(expected)][:, :, 0], expected, atol=1e-4
        )
    recorded(digits=4, **numbers_of_trials(recording))


def test_test_trials_among_training_ones_are_refused(mini_nsd, tmp_path):
    shutil.copytree(mini_nsd[0] / "mindeye2", tmp_path / "mindeye2")
    behaviour = np.full((1, 17), -1.0)
    behaviour[0, [0, 2, 5, 16]] = 5, 1, 3, 1
    content = io.BytesIO()
    np.save(content, behaviour)
    with tarfile.open(tmp_path / "mindeye2/wds/subj01/train/7.tar", "w") as archive:
        member = tarfile.TarInfo("sample000000000.behav.npy")
        member.size = len(content.getvalue())
        archive.addfile(member, io.BytesIO(content.getvalue()))
    preparation = MindEye2Betas(root=str(tmp_path / "mindeye2")).build(
        Paths(data=str(tmp_path))
    )
    with pytest.raises(BrainhiveError, match=r"7\.tar .*train"):
        preparation.recording(1, "train")


def test_a_file_that_is_missing_or_cut_short_is_named(mini_nsd, tmp_path):
    (tmp_path / "nsd").symlink_to(mini_nsd[0])
    for stem, name in (
        ("mindeye1", "webdataset_avg_split/test/test_subj01_0.tar"),
        ("mindeye2", BETAS),
        (
            "brain_diffuser",
            "processed_data/subj01/nsd_test_fmriavg_nsdgeneral_sub1.npy",
        ),
    ):
        root = shutil.copytree(mini_nsd[0] / stem, tmp_path / stem)
        path = root / name
        preparation = (
            parts.load("preparations", stem)
            .Config(root=str(root))
            .build(Paths(data=str(tmp_path)))
        )
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 3])
        with pytest.raises(BrainhiveError, match=path.name):
            signal = preparation.recording(1, "test").signal
            signal[0 : len(signal)]
        path.unlink()
        with pytest.raises(MissingData):
            preparation.files(1)
