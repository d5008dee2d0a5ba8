"""NSD's betas in the published layout, with the published design."""

import sys
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

pytest.importorskip("nibabel")

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.published.nsd import NsdBetas
from tests.soak import nsd_files
from tests.tools.trial_numbers import numbers_of_trials


def make_preparation(root, **keys):
    settings = {"sessions": [1, 2], **keys}
    return NsdBetas(root=str(root), **settings).build(Paths())


def test_voxels_of_the_mask_are_read_in_c_order_as_percent(tmp_path, recorded):
    truth = nsd_files.write(tmp_path)
    preparation = make_preparation(tmp_path, zscore=False)
    assert preparation.subjects == (1,)
    assert preparation.dataset == "nsd"
    recordings = preparation.session(1, 2)
    assert preparation.shapes(1, 2) == {
        split: trials.signal.shape for split, trials in recordings.items()
    }
    is_kept = truth.masks["nsdgeneral"] > 0
    expected = truth.stored[..., 750:][is_kept].T / 300  # [trials, V]
    is_test = truth.is_test[750:]
    for split, is_here in (("train", ~is_test), ("test", is_test)):
        trials = recordings[split]
        np.testing.assert_allclose(trials.signal[:, :, 0], expected[is_here], rtol=1e-6)
        assert trials.image_ids == [
            f"nsd{row + 1:05d}" for row in truth.rows[750:][is_here]
        ]
        assert trials.unit == "% signal change"
        assert trials.rate_hz is None
    z_scored = make_preparation(tmp_path).session(1, 1)
    recorded(
        digits=5,
        **numbers_of_trials(recordings["test"]),
        z_scored={split: trials.signal[:] for split, trials in z_scored.items()},
    )


def test_masks_become_regions_and_the_noise_ceiling_is_kept(
    tmp_path,
):
    truth = nsd_files.write(tmp_path)
    space = make_preparation(tmp_path).session(1, 1)["train"].space
    is_kept = truth.masks["nsdgeneral"] > 0
    visual = truth.masks["prf-visualrois"][is_kept]
    faces = truth.masks["floc-faces"][is_kept]
    expected = {
        "nsdgeneral": is_kept[is_kept],
        "prf-visualrois": visual > 0,
        "hV4": visual == 7,
        "V1v": visual == 1,
        "floc-faces": faces > 0,
        "FFA-1": faces == 2,
        "aTL-faces": faces == 5,
        "higher_vis": visual <= 0,
    }
    for name, mask in expected.items():
        np.testing.assert_array_equal(space.regions[name], mask, name)
    np.testing.assert_array_equal(
        space.maps["ncsnr"], np.arange(24).reshape(is_kept.shape)[is_kept]
    )


OWN_MASKS = {"drawn": "masks/subj{subject:02d}_drawn.nii"}


def write_own_mask(root, mask, affine=None):
    """Write a mask of subject 1 at the path in `OWN_MASKS`, by default with the affine
    of the other masks.
    """
    import nibabel

    path = root / "masks/subj01_drawn.nii"
    path.parent.mkdir(exist_ok=True)
    nibabel.save(
        nibabel.Nifti1Image(mask, nsd_files.AFFINE if affine is None else affine), path
    )
    return path


def test_own_masks_become_regions_of_the_kept_voxels(home):
    truth = nsd_files.write(home / "nsd")
    random_map = np.random.default_rng(0).random(truth.masks["nsdgeneral"].shape) < 0.5
    path = write_own_mask(home, random_map.astype(np.float32))

    preparation = make_preparation(home / "nsd", masks=OWN_MASKS)
    space = preparation.session(1, 1)["train"].space

    is_kept = truth.masks["nsdgeneral"] > 0
    np.testing.assert_array_equal(space.regions["drawn"], random_map[is_kept])
    assert path in preparation.files(1)
    assert (
        "drawn"
        not in make_preparation(home / "nsd").session(1, 1)["train"].space.regions
    )
    whole_train = make_preparation(
        home / "nsd", masks=OWN_MASKS, voxels="drawn"
    ).session(1, 1)["train"]
    assert whole_train.signal.shape[1] == random_map.sum()
    assert whole_train.space.regions["drawn"].all()
    np.testing.assert_array_equal(
        whole_train.space.regions["nsdgeneral"], is_kept[random_map]
    )


def test_sessions_by_default_and_with_982_test_pictures(
    tmp_path,
):
    nsd_files.write(tmp_path)
    assert len(make_preparation(tmp_path, sessions=None).sessions(1)) == 40
    assert (
        len(make_preparation(tmp_path, sessions=None, test_pictures=982).sessions(1))
        == 37
    )
    assert (
        len(make_preparation(tmp_path, sessions=None, test_pictures=982).sessions(4))
        == 30
    )
    with pytest.raises(
        MissingData, match=r"betas_session03\.nii\.gz.*\.hdf5"
    ) as caught:
        make_preparation(tmp_path, sessions=None).files(1)
    assert caught.value.hint.endswith("preparation.sessions=1,2")


@pytest.fixture(scope="module")
def mini_nsd(golden, tmp_path_factory):
    """Files of an independent writer, and the trials and voxels that they hold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(golden / "prepare")
        # only for a table that is not written
        patch.setitem(sys.modules, "pandas", ModuleType("pandas"))
        import mini_raw

        root = tmp_path_factory.mktemp("nsd")
        truth = mini_raw.make_nsd(
            root, mini_raw.Nsd(stimuli=False, stim_info=False), seed=1
        )
    return root, truth


def test_sessions_equal_those_of_mindeye2(mini_nsd, tmp_path):
    root, truth = mini_nsd
    betas = Path("nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR")
    with h5py.File(root / "mindeye2/betas_all_subj01_fp32_renorm.hdf5") as file:
        expected = file["betas"][:]
    for form in ("nii.gz", "hdf5"):
        home = tmp_path / form
        (home / betas).mkdir(parents=True)
        (home / "nsddata").symlink_to(root / "nsddata")
        for path in (root / betas).glob(f"*.{form}"):
            (home / betas / path.name).symlink_to(path)
        for session in (1, 2):
            planned = slice((session - 1) * 750, session * 750)
            for split, trials in make_preparation(home).session(1, session).items():
                is_here = truth["is_test"][planned] == (split == "test")
                np.testing.assert_allclose(
                    trials.signal[:, :, 0], expected[planned][is_here], atol=2e-5
                )
                assert trials.image_ids == [
                    f"nsd{row + 1:05d}" for row in truth["image"][planned][is_here]
                ]


def test_betas_of_another_subject_or_space_are_refused(tmp_path):
    nsd_files.write(tmp_path, sessions=1, ending=".nii.gz")
    folder = (
        tmp_path / "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"
    )
    nsd_files.save(
        folder / "betas_session01.nii.gz", np.zeros((4, 4, 2, 750), np.int16)
    )
    betas = make_preparation(tmp_path, sessions=[1])
    for read_betas in (betas.shapes, betas.session):
        with pytest.raises(
            BrainhiveError, match=r"int16 \[4, 4, 2, 750\].*int16 \[3, 4, 2, 750\]"
        ):
            read_betas(1, 1)


def test_a_design_that_is_damaged_or_not_nsds_is_refused(tmp_path):
    nsd_files.write(tmp_path, sessions=1)
    path = tmp_path / "nsddata/experiments/nsd/nsd_expdesign.mat"
    # too few pictures
    content = {
        "masterordering": np.arange(30000)[None],
        "subjectim": np.ones((8, 10000)),
    }
    nsd_files.savemat(path, content)
    for damaged in (path.read_bytes(), path.read_bytes()[:300]):
        path.write_bytes(damaged)
        with pytest.raises(BrainhiveError, match=r"nsd_expdesign\.mat"):
            make_preparation(tmp_path, sessions=[1]).session(1, 1)
