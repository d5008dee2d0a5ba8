"""NSD's betas, in the real layout and with the real design."""

import sys
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

pytest.importorskip("nibabel")

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.published.nsd import NsdBetas
from tests.soak import nsd_files
from tests.tools.trial_numbers import numbers_of_splits, numbers_of_trials


def made(root: Path, **knobs):
    return NsdBetas(root=str(root), **{"sessions": [1, 2], **knobs}).build(Paths())


def test_voxels_of_the_mask_are_read_in_c_order_as_percent(
    tmp_path: Path, recorded
) -> None:
    truth = nsd_files.write(tmp_path)
    preparation = made(tmp_path, zscore=False)
    assert preparation.subjects == (1,) and preparation.dataset == "nsd"
    found = preparation.session(1, 2)
    assert preparation.shapes(1, 2) == {
        split: trials.signal[:, 0].shape for split, trials in found.items()
    }
    kept = truth.masks["nsdgeneral"] > 0
    expected = truth.stored[..., 750:][kept].T / 300  # [trials, V]
    for split, own in (("train", ~truth.is_test[750:]), ("test", truth.is_test[750:])):
        np.testing.assert_allclose(
            found[split].signal[:, 0, :, 0], expected[own], rtol=1e-6
        )
        assert found[split].image_ids == [
            f"nsd{row + 1:05d}" for row in truth.rows[750:][own]
        ]
        assert found[split].unit == "% signal change" and found[split].rate_hz is None
    recorded(
        digits=5,
        **numbers_of_splits(found),
        z_scored=numbers_of_splits(made(tmp_path).session(1, 1)),
    )


def test_masks_are_regions_by_label_and_the_noise_ceiling_is_kept(
    tmp_path: Path,
) -> None:
    truth = nsd_files.write(tmp_path)
    space = made(tmp_path).session(1, 1)["train"].space
    kept = truth.masks["nsdgeneral"] > 0
    visual, faces = (
        truth.masks[name][kept] for name in ("prf-visualrois", "floc-faces")
    )
    expected = {
        **{
            "nsdgeneral": kept[kept],
            "prf-visualrois": visual > 0,
            "hV4": visual == 7,
            "V1v": visual == 1,
        },
        **{
            "floc-faces": faces > 0,
            "FFA-1": faces == 2,
            "aTL-faces": faces == 5,
            "higher_vis": visual <= 0,
        },
    }
    for name, mask in expected.items():
        np.testing.assert_array_equal(space.regions[name], mask, name)
    np.testing.assert_array_equal(
        space.maps["ncsnr"], np.arange(24).reshape(kept.shape)[kept]
    )


OWN = {"drawn": "masks/subj{subject:02d}_drawn.nii"}


def draw(root: Path, mask: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write a mask of subject 1 where `OWN` has it, in the space of the others."""
    import nibabel

    path = root / "masks/subj01_drawn.nii"
    path.parent.mkdir(exist_ok=True)
    nibabel.save(
        nibabel.Nifti1Image(mask, nsd_files.AFFINE if affine is None else affine), path
    )
    return path


def test_own_masks_become_regions_of_the_kept_voxels(home: Path, recorded) -> None:
    truth = nsd_files.write(home / "nsd")
    drawn = np.random.default_rng(0).random(truth.masks["nsdgeneral"].shape) < 0.5
    path = draw(home, drawn.astype(np.float32))

    preparation = made(home / "nsd", masks=OWN)
    space = preparation.session(1, 1)["train"].space

    kept = truth.masks["nsdgeneral"] > 0
    np.testing.assert_array_equal(space.regions["drawn"], drawn[kept])
    assert path in preparation.files(1)
    assert "drawn" not in made(home / "nsd").session(1, 1)["train"].space.regions
    whole = made(home / "nsd", masks=OWN, voxels="drawn").session(1, 1)["train"]
    assert whole.signal.shape[2] == drawn.sum() and whole.space.regions["drawn"].all()
    recorded(digits=5, whole=numbers_of_trials(whole))


def test_all_sessions_are_needed_by_default_and_the_982_are_those_of_37(
    tmp_path: Path,
) -> None:
    nsd_files.write(tmp_path)
    assert len(made(tmp_path, sessions=None).sessions(1)) == 40
    assert len(made(tmp_path, sessions=None, test_pictures=982).sessions(1)) == 37
    assert len(made(tmp_path, sessions=None, test_pictures=982).sessions(4)) == 30
    with pytest.raises(
        MissingData, match=r"no .*betas_session03\.nii\.gz, nor \.hdf5"
    ) as caught:
        made(tmp_path, sessions=None).files(1)
    assert caught.value.hint.endswith(
        ", or take what is there: preparation.sessions=1,2"
    )


@pytest.fixture(scope="module")
def mini(golden: Path, tmp_path_factory: pytest.TempPathFactory):
    """Files of an independent writer, with what they should give."""
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


def test_sessions_are_those_that_mindeye2_made_of_the_same_files(
    mini, tmp_path: Path
) -> None:
    root, truth = mini
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
            own = slice((session - 1) * 750, session * 750)
            for split, trials in made(home).session(1, session).items():
                is_own = truth["is_test"][own] == (split == "test")
                np.testing.assert_allclose(
                    trials.signal[:, 0, :, 0], expected[own][is_own], atol=2e-5
                )
                assert trials.image_ids == [
                    f"nsd{row + 1:05d}" for row in truth["image"][own][is_own]
                ]


def test_betas_of_another_subject_or_space_are_refused(tmp_path: Path) -> None:
    nsd_files.write(tmp_path, sessions=1, ending=".nii.gz")
    folder = (
        tmp_path / "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"
    )
    nsd_files.save(
        folder / "betas_session01.nii.gz", np.zeros((4, 4, 2, 750), np.int16)
    )
    betas = made(tmp_path, sessions=[1])
    for read in (betas.shapes, betas.session):
        with pytest.raises(
            BrainhiveError, match=r"int16 \[4, 4, 2, 750\], not int16 \[3, 4, 2, 750\]"
        ):
            read(1, 1)


def test_a_design_that_is_damaged_or_not_nsds_is_refused(tmp_path: Path) -> None:
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
        with pytest.raises(BrainhiveError, match=r"nsd_expdesign\.mat is damaged"):
            made(tmp_path, sessions=[1]).session(1, 1)
