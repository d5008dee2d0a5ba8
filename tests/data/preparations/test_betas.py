"""Single-trial betas that a lab estimated, in the formats that programs write."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("nibabel")

import nibabel

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.preparations.betas import Config
from tests.tools.trial_numbers import numbers_of_preparation, numbers_of_stores
from tests.worlds.own_recordings import PICTURES, write_pictures

SHAPE, AFFINE = (3, 4, 5), np.diag([2.0, 2.0, 2.0, 1.0])
INSIDE = np.random.default_rng(0).random(SHAPE) < 0.4
VOXELS = int(INSIDE.sum())
NAMES = [f"{name}.png" for names in PICTURES.values() for name in names]
BY_FILE = "sub-01_ses-01_"


@pytest.fixture
def folder(home):
    write_pictures(home / "data/image-folder")
    folder = home / "data/betas"
    folder.mkdir(parents=True)
    return folder


def save_volume(path, values, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def save_mask(folder, subject=1, values=INSIDE):
    save_volume(folder / f"sub-{subject:02d}_mask.nii.gz", values.astype(np.uint8))


def make_betas(trials, seed=0):
    return np.random.default_rng(seed).normal(1, 2, (trials, VOXELS)).astype(np.float32)


def save_betas(path, values, key="betas"):
    """Save betas [n, V] as the ending of the file says."""
    if path.name.endswith((".nii", ".nii.gz")):
        volumes = np.zeros(tuple(SHAPE) + (len(values),), np.float32)
        volumes[INSIDE] = values.T
        save_volume(path, volumes)
    elif path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, **{key: values})
    else:
        with h5py.File(path, "w") as file:
            file[key] = values


def write_table(path, names, **columns):
    separator = "\t" if path.suffix == ".tsv" else ","
    rows = zip(names, *columns.values(), strict=True)
    lines = [["picture"] + list(columns)] + list(rows)
    path.write_text("".join(separator.join(map(str, line)) + "\n" for line in lines))


def build(**keys):
    return Config(**{"zscore": "no", **keys}).build(Paths())


def save_as(kind, folder, values):
    """Save the betas [8, V] of a session in a program's format.

    Returns:
        Pattern of the files.
    """
    volume = np.zeros(tuple(SHAPE) + (len(values),), np.float32)
    volume[INSIDE] = values.T
    path = folder / "sub-01/ses-01/TYPED"
    path.parent.mkdir(parents=True)
    if kind == "a volume a trial":
        # beta_10 is behind beta_9
        for number, row in enumerate(np.moveaxis(volume, -1, 0), 5):
            save_volume(
                path.with_name(f"beta_{number}.nii"), np.where(INSIDE, row, np.nan)
            )
        return "beta_*.nii"
    if kind == "cifti":
        axes = nibabel.cifti2.BrainModelAxis.from_mask(
            np.ones(VOXELS - 5), "CortexLeft"
        )
        axes = axes + nibabel.cifti2.BrainModelAxis.from_mask(np.ones(5), "CortexRight")
        scalars = nibabel.cifti2.ScalarAxis(
            [f"trial{row}" for row in range(len(values))]
        )
        nibabel.save(
            nibabel.Cifti2Image(values, (scalars, axes)),
            path.with_suffix(".dscalar.nii"),
        )
    elif kind == "matlab":
        with h5py.File(path.with_suffix(".mat"), "w", userblock_size=512) as file:
            file["modelmd"], file["R2"] = volume.T, np.zeros(SHAPE[::-1])
    elif kind == "hdf5":
        save_betas(path.with_suffix(".h5"), volume, "betasmd")
    elif kind == "trials first":
        np.save(path.with_suffix(".npy"), np.moveaxis(volume, -1, 0))
    else:
        betas = values.T[:, None, None, :] if kind == "glmsingle, flat" else volume
        np.save(
            path.with_suffix(".npy"),
            {"betasmd": betas, "pcregressors": [np.zeros((4, 2))]},
        )
    return "TYPED.*"


def test_betas_are_read_as_programs_write_them(folder, recorded):
    values = make_betas(len(NAMES))
    # the first two need no mask
    for kind in (
        "glmsingle, flat",
        "cifti",
        "a volume a trial",
        "glmsingle",
        "hdf5",
        "matlab",
        "trials first",
    ):
        shutil.rmtree(folder / "sub-01", ignore_errors=True)
        pattern = save_as(kind, folder, values)
        write_table(folder / "sub-01/ses-01/sub-01_ses-01_trials.csv", NAMES)
        if kind == "a volume a trial":
            save_mask(folder)
        betas = build(betas=pattern)
        assert betas.shapes(1, 1) == {
            "train": (6, VOXELS, 1),
            "test": (2, VOXELS, 1),
        }, kind
        recordings = betas.session(1, 1)
        np.testing.assert_array_equal(
            recordings["train"].signal[:, :, 0], values[:6], kind
        )
        np.testing.assert_array_equal(
            recordings["test"].signal[:, :, 0], values[6:], kind
        )
        assert list(betas.load_voxels(1).regions) == (
            ["left", "right"] if kind == "cifti" else []
        ), kind
        if kind == "cifti":
            surface = betas.load_voxels(1).surface
            assert surface.sizes == (VOXELS - 5, 5)
            assert surface.vertices[-6:, 1].tolist() == [VOXELS - 6] + list(range(5))
    recorded(digits=5, **numbers_of_preparation(betas))


def test_files_named_by_subject_and_session_need_no_keys(folder):
    values = make_betas(len(NAMES))
    save_mask(folder)
    for number, ending in enumerate(("nii.gz", "nii", "npy", "npz", "h5", "hdf5")):
        table = f"sub-01_ses-02_trials.{'ct'[number % 2]}sv"
        files = folder / f"sub-01_ses-02_betas.{ending}", folder / table
        save_betas(files[0], values)
        write_table(files[1], NAMES)
        betas = build()
        assert (
            betas.subjects == (1,)
            and betas.sessions(1) == [2]
            and betas.dataset == "image-folder"
        )
        assert betas.shapes(1, 2) == {"train": (6, VOXELS, 1), "test": (2, VOXELS, 1)}
        recordings = betas.session(1, 2)
        np.testing.assert_array_equal(recordings["train"].signal[:, :, 0], values[:6])
        np.testing.assert_array_equal(recordings["test"].signal[:, :, 0], values[6:])
        assert recordings["test"].image_ids == PICTURES["test"]
        assert recordings["test"].unit == "% signal change"
        np.testing.assert_array_equal(
            INSIDE[tuple(recordings["test"].space.grid.indices.T)], True
        )
        for path in files:
            path.unlink()


def test_a_file_of_all_sessions_is_divided_by_a_column(folder, recorded):
    values = make_betas(16)
    save_mask(folder)
    save_betas(folder / "sub-1_task-images_betas.nii.gz", values)
    for sessions in (["ses-01", "ses-02"], ["1.0", "2.0"]):
        write_table(
            folder / "sub-1_task-images_trials.csv",
            NAMES * 2,
            session=sessions * 8,
            run=[3] * 16,
        )
        betas = build()
        assert betas.sessions(1) == [1, 2]
        for session in (1, 2):
            rows = range(session - 1, 16, 2)
            recordings = betas.session(1, session)
            for split, is_test in (("train", False), ("test", True)):
                own_rows = [row for row in rows if (row % 8 > 5) == is_test]
                image_names = [f"{name}.png" for name in recordings[split].image_ids]
                assert image_names == [NAMES[row % 8] for row in own_rows]
                np.testing.assert_array_equal(
                    recordings[split].signal[:, :, 0], values[own_rows]
                )
    recorded(digits=5, **numbers_of_preparation(betas))


def test_a_session_without_betas_may_be_left_out(folder):
    save_mask(folder)
    save_betas(folder / "sub-1_ses-1_betas.npy", make_betas(8))
    save_betas(folder / "sub-1_ses-3_betas.npy", make_betas(8))
    sessions = [1] * 8 + [2] * 8 + [3] * 8
    write_table(folder / "sub-1_trials.csv", NAMES * 3, session=sessions)

    assert build(sessions=[1, 3]).sessions(1) == [1, 3]
    with pytest.raises(MissingData, match=r"line 10 .*session 2"):
        build().sessions(1)


def test_another_number_of_lines_than_of_betas_is_refused(folder):
    save_mask(folder)
    save_betas(folder / f"{BY_FILE}betas.nii.gz", make_betas(7))
    write_table(folder / f"{BY_FILE}trials.csv", NAMES)
    with pytest.raises(BrainhiveError, match=r"betas\.nii\.gz .*7 betas.* 8 lines"):
        build().shapes(1, 1)


def test_blank_rows_and_unknown_pictures_are_counted_and_listed(
    folder, run_command, recorded
):
    names = list(NAMES) + [
        "",
        "NaN",
        "train/cat/none.png",
        "train/cat/none.png",
        NAMES[0],
    ]
    save_mask(folder)
    save_betas(folder / f"{BY_FILE}betas.npy", make_betas(len(names)))
    write_table(folder / f"{BY_FILE}trials.csv", names, run=["run-1"] * len(names))
    overview = build().look_over([1])
    assert overview.tables[0].rows == ((1, 1, 1, 7, 2, 8, 1),)
    blank, absent, unmatched = overview.warnings
    assert "session 1" in blank and "2 blank" in blank
    assert "session 1" in absent and "2 trials" in absent
    assert "image-folder" in absent
    assert unmatched.endswith(" 1: train/cat/none.png")
    result = run_command("prepare", "preparation.kind=betas")
    assert result.tables[0].rows[0][:5] == (1, "train", 6, "1 to 2", 7)
    assert "2 blank" in result.tables[0].rows[0][5]
    recorded(digits=5, **numbers_of_stores(folder.parents[1]))


def test_a_missing_file_is_named_with_its_key(folder):
    save_betas(folder / f"{BY_FILE}betas.nii", make_betas(8))
    with pytest.raises(MissingData, match="trials of subject 1 ") as error:
        build().files(1)
    assert "preparation.trials=PATTERN" in error.value.hint
    table = folder / f"{BY_FILE}trials.csv"
    table.write_text("stimulus\nx\n")
    with pytest.raises(MissingData, match="mask of subject 1 "):
        build().shapes(1, 1)
    save_mask(folder)
    write_table(table, [f"x{row}.png" for row in range(8)])
    with pytest.raises(MissingData, match=r"image-folder.* 8: x0") as error:
        build().shapes(1, 1)
    assert "preparation.stimuli.root" in error.value.hint


def test_an_atlas_may_be_the_mask_and_its_labels_are_regions(folder):
    labels = np.where(INSIDE, np.random.default_rng(1).integers(1, 3, SHAPE), 0)
    save_mask(folder, values=labels)
    (folder / "sub-01_mask.tsv").write_text("index\tname\n1\tV1\n2\tV2\n")
    save_betas(folder / f"{BY_FILE}betas.npy", make_betas(8))
    write_table(folder / f"{BY_FILE}trials.csv", NAMES)
    save_volume(folder / "sub-01_ffa.nii.gz", (labels == 2).astype(np.uint8))
    regions = (
        build(regions={"FFA": "sub-{subject:02d}_ffa.nii.gz"}).load_voxels(1).regions
    )
    assert list(regions) == ["V1", "V2", "FFA"]
    np.testing.assert_array_equal(regions["V1"], labels[INSIDE] == 1)
    np.testing.assert_array_equal(regions["FFA"], regions["V2"])


def save_reversible(folder, outside_value, order):
    """Save betas of a grid with X = Z, whose values outside of the mask are noise."""
    random, shape = np.random.default_rng(2), (5, 4, 5)
    mask = random.random(shape) < 0.5
    volumes = random.normal(0, outside_value, tuple(shape) + (8,)).astype(np.float32)
    volumes[mask] = random.normal(size=(mask.sum(), 8))
    save_mask(folder, values=mask)
    with h5py.File(folder / f"{BY_FILE}betas.h5", "w") as file:
        file["betas"] = volumes.transpose(order)
    write_table(folder / f"{BY_FILE}trials.csv", NAMES)
    return volumes[mask].T


@pytest.mark.parametrize("outside_value", [0, 50])
@pytest.mark.parametrize("order", [(3, 0, 1, 2), (3, 2, 1, 0), (2, 1, 0, 3)])
def test_values_decide_between_two_orders_of_axes(folder, outside_value, order):
    values = save_reversible(folder, outside_value, order)
    signal = build().session(1, 1)["train"].signal
    np.testing.assert_array_equal(signal[:, :, 0], values[:6])


def test_orders_of_axes_that_values_do_not_decide_are_refused(folder):
    save_reversible(folder, 1, (3, 0, 1, 2))
    with pytest.raises(BrainhiveError, match=r"betas\.h5.*\[X, Y, Z\].*\[Z, Y, X\]"):
        build().session(1, 1)


def test_a_square_array_of_voxels_and_trials_is_refused(folder):
    save_betas(folder / f"{BY_FILE}betas.npy", np.eye(8, dtype=np.float32))
    write_table(folder / f"{BY_FILE}trials.csv", NAMES)
    with pytest.raises(BrainhiveError, match=r"trials first.*trials last"):
        build().shapes(1, 1)


def test_a_file_with_keys_that_are_no_names_is_refused(folder):
    np.save(folder / f"{BY_FILE}betas.npy", {0: make_betas(8), 1: make_betas(8)})
    save_mask(folder)
    write_table(folder / f"{BY_FILE}trials.csv", [f"x{row}" for row in range(8)])
    with pytest.raises(BrainhiveError) as caught:
        build().shapes(1, 1)
    assert "betas.npy" in caught.value.message
    assert "0, 1" in caught.value.message


@pytest.mark.parametrize("ending", ["nii.gz", "NII", "npy", "h5"])
@pytest.mark.parametrize("has_one_table", [False, True])
def test_runs_in_files_of_their_own_are_joined(folder, ending, has_one_table):
    values = make_betas(8)
    save_mask(folder)
    runs = {2: slice(0, 5), 10: slice(5, 8)}
    for name, rows in runs.items():
        save_betas(folder / f"{BY_FILE}run-{name}_betas.{ending.lower()}", values[rows])
        if not has_one_table:
            write_table(folder / f"{BY_FILE}run-{name}_trials.csv", NAMES[rows])
    if has_one_table:
        write_table(folder / f"{BY_FILE}trials.csv", NAMES, run=[2] * 5 + [10] * 3)
    if ending.isupper():
        for path in folder.glob("*_betas.nii"):
            path.rename(path.with_suffix(f".{ending}"))
    recordings = build().session(1, 1)
    np.testing.assert_array_equal(recordings["train"].signal[:, :, 0], values[:6])
    assert recordings["train"].runs.ravel().tolist() == [2] * 5 + [10]


def test_volumes_that_a_header_names_follow_their_names(folder):
    values = make_betas(8)
    save_mask(folder)
    for number, row in enumerate(np.argsort(NAMES), 1):
        volume = np.zeros(SHAPE, np.float32)
        volume[INSIDE] = values[row]
        image = nibabel.Nifti1Image(volume, AFFINE)
        name = Path(NAMES[row]).stem
        image.header["descrip"] = f"Sn(1) {name}*bf(1)".encode()
        nibabel.save(image, folder / f"{BY_FILE}beta_{number:04d}.nii")
    image.header["descrip"] = b"Sn(1) fish*bf(1)"
    nibabel.save(image, folder / f"{BY_FILE}beta_0009.nii")
    write_table(folder / f"{BY_FILE}trials.csv", NAMES)
    betas = build(betas="*_beta_*.nii")
    signal = betas.session(1, 1)["train"].signal
    np.testing.assert_array_equal(signal[:, :, 0], values[:6])
    with pytest.raises(BrainhiveError, match="fish"):
        betas.look_over([1]).account.require()


def test_axes_of_length_1_are_no_betas(folder):
    values = make_betas(8)
    save_mask(folder)
    volumes = np.zeros(tuple(SHAPE) + (1, 8), np.float32)
    volumes[INSIDE] = values.T[:, None]
    save_volume(folder / f"{BY_FILE}betas.nii.gz", volumes)
    write_table(folder / f"{BY_FILE}trials.csv", NAMES)
    signal = build().session(1, 1)["train"].signal
    np.testing.assert_array_equal(signal[:, :, 0], values[:6])


def test_voxels_of_matlab_are_in_column_order(folder):
    values = make_betas(8)
    save_mask(folder)
    volume = np.zeros(SHAPE, np.float32)
    columns = []
    for row in values:
        volume[INSIDE] = row
        columns.append(volume.T[INSIDE.T])  # volume(mask) in MATLAB
    with h5py.File(folder / f"{BY_FILE}betas.mat", "w") as file:
        file["betas"] = np.array(columns)
    write_table(folder / f"{BY_FILE}trials.csv", NAMES)
    signal = build().session(1, 1)["train"].signal
    np.testing.assert_array_equal(signal[:, :, 0], values[:6])


def write_person(folder, subject=1, scale=1):
    """Write betas of two sessions of two runs, the last of another scale."""
    save_mask(folder, subject)
    for session, factor in ((1, 1), (2, scale)):
        stem = folder / f"sub-{subject:02d}_ses-{session:02d}"
        values = factor * make_betas(16, session)
        save_betas(stem.with_name(f"{stem.name}_betas.npy"), values)
        table = stem.with_name(f"{stem.name}_trials.csv")
        write_table(table, NAMES * 2, run=[1, 2] * 8)


@pytest.mark.parametrize(
    "name",
    ["sub-02_ses-01_betas+orig.HEAD", "sub-2_ses-01_trials.csv", "sub-02/betas.xlsx"],
)
def test_people_whose_files_are_not_read_need_a_yes(folder, name):
    write_person(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("picture\n")
    with pytest.raises(BrainhiveError, match=r"sub-0?2") as raised:
        build().look_over([1]).account.require()
    assert "left-out-people" in raised.value.hint
    build(accept={"left-out-people": 1}).look_over([1]).account.require()


def test_files_that_nothing_reads_are_counted(folder):
    write_person(folder)
    for name in ("sub-01_ses-01_zstat.nii.gz", "design.fsf", "sub-01_V1.nii.gz"):
        save_volume(folder / "sub-01_V1.nii.gz", INSIDE.astype(np.uint8))
        (folder / name).touch()
    overview = build(regions={"V1": "sub-01_V1.nii.gz"}).look_over([1])
    (line,) = (line for line in overview.warnings if "not read" in line)
    assert line.startswith("2 files") and "zstat" in line and "design" in line
    overview.account.require()


@pytest.mark.parametrize(("zscore", "is_refused"), [("no", True), ("session", False)])
def test_a_session_of_another_scale_needs_a_yes(
    folder, run_command, zscore, is_refused
):
    write_person(folder, scale=0.1)
    keys = ["preparation.kind=betas", f"preparation.zscore={zscore}"]
    if is_refused:
        with pytest.raises(BrainhiveError, match=r"session 2 .* 0\.1"):
            run_command("prepare", *keys)
        keys += ("preparation.accept={other-scale: 1}",)
    assert run_command("prepare", *keys).exit_code == 0


def test_a_run_of_another_scale_is_refused(folder):
    write_person(folder)
    values = make_betas(16)
    values[1::2] *= 100
    save_betas(folder / f"{BY_FILE}betas.npy", values)
    with pytest.raises(BrainhiveError, match=r"run [12] "):
        build(zscore="session").session(1, 1)
    build(zscore="run").session(1, 1)


def test_files_of_afni_are_named_with_the_way_to_nifti(folder):
    (folder / f"{BY_FILE}betas+orig.HEAD").touch()
    with pytest.raises(MissingData) as raised:
        build().files(1)
    assert "3dAFNItoNIFTI" in raised.value.hint
