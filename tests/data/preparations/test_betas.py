"""Single-trial betas that a lab estimated, in the formats that programs write."""

from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("nibabel")

import nibabel

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.preparations.betas import Config
from tests.worlds.own_recordings import PICTURES, write_pictures

SHAPE, AFFINE = (3, 4, 5), np.diag([2.0, 2.0, 2.0, 1.0])
INSIDE = np.random.default_rng(0).random(SHAPE) < 0.4
VOXELS = int(INSIDE.sum())
NAMES = [f"{name}.png" for names in PICTURES.values() for name in names]
BY_FILE = "sub-01_ses-01_"


@pytest.fixture
def folder(home):
    """The usual folder of betas, beside the pictures that they respond to."""
    write_pictures(home / "data/image-folder")
    (home / "data/betas").mkdir()
    return home / "data/betas"


def save_volume(path, values, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def save_mask(folder, subject=1, values=INSIDE):
    save_volume(folder / f"sub-{subject:02d}_mask.nii.gz", values.astype(np.uint8))


def make_betas(trials, seed=0):
    return np.random.default_rng(seed).normal(1, 2, (trials, VOXELS)).astype(np.float32)


def make_volumes(values):
    """Make volumes [X, Y, Z, n] of betas [n, V]. Voxels outside the mask are 0."""
    volumes = np.zeros(SHAPE + (len(values),), np.float32)
    volumes[INSIDE] = values.T
    return volumes


def save_betas(path, values):
    """Save betas [n, V] as the ending of the file says."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, betas=values)
    elif path.suffix in (".h5", ".hdf5"):
        with h5py.File(path, "w") as file:
            file["betas"] = values
    else:
        save_volume(path, make_volumes(values))


def write_table(path, names=NAMES, **columns):
    separator = "\t" if path.suffix == ".tsv" else ","
    rows = zip(names, *columns.values(), strict=True)
    lines = [["picture"] + list(columns)] + list(rows)
    path.write_text("".join(separator.join(map(str, line)) + "\n" for line in lines))


def assert_betas(recordings, values):
    """Compare the betas [8, V] of the six training and the two test pictures."""
    np.testing.assert_array_equal(recordings["train"].signal[:, :, 0], values[:6])
    np.testing.assert_array_equal(recordings["test"].signal[:, :, 0], values[6:])


def build(**keys):
    return Config(**{"zscore": "no", **keys}).build(Paths())


def save_as(kind, folder, values):
    """Save the betas [8, V] of a session in a program's format.

    Returns:
        Pattern of the files.
    """
    volumes = make_volumes(values)
    path = folder / "TYPED"
    if kind == "a volume a trial":
        # beta_10 is behind beta_9
        for number, values in enumerate(np.moveaxis(volumes, -1, 0), 5):
            volume = np.where(INSIDE, values, np.nan)
            save_volume(folder / f"beta_{number}.nii", volume)
        return "beta_*.nii"
    if kind == "matlab":
        with h5py.File(path.with_suffix(".mat"), "w", userblock_size=512) as file:
            file["modelmd"] = volumes.T
            file["R2"] = np.zeros(SHAPE[::-1])
    elif kind == "hdf5":
        with h5py.File(path.with_suffix(".h5"), "w") as file:
            file["betasmd"] = volumes
    elif kind == "trials first":
        np.save(path.with_suffix(".npy"), np.moveaxis(volumes, -1, 0))
    else:
        betas = values.T[:, None, None, :] if kind == "glmsingle, flat" else volumes
        content = {"betasmd": betas, "pcregressors": [np.zeros((4, 2))]}
        np.save(path.with_suffix(".npy"), content)
    return "TYPED.*"


@pytest.mark.parametrize(
    ("kind", "has_mask"),
    [
        ("glmsingle, flat", False),
        ("a volume a trial", True),
        ("glmsingle", True),
        ("hdf5", True),
        ("matlab", True),
        ("trials first", True),
    ],
)
def test_betas_are_read_as_programs_write_them(folder, kind, has_mask):
    session_folder = folder / "sub-01/ses-01"
    session_folder.mkdir(parents=True)
    values = make_betas(8)
    pattern = save_as(kind, session_folder, values)
    write_table(session_folder / "sub-01_ses-01_trials.csv")
    if has_mask:
        save_mask(folder)
    assert_betas(build(betas=pattern).session(1, 1), values)
    betas = build(betas=pattern)
    assert betas.shapes(1, 1) == {"train": (6, VOXELS, 1), "test": (2, VOXELS, 1)}
    assert not betas.load_voxels(1).regions


def test_rows_of_cifti_are_vertices_of_both_hemispheres(folder):
    values = make_betas(8)
    axis = nibabel.cifti2.BrainModelAxis.from_mask
    axes = axis(np.ones(VOXELS - 5), "CortexLeft") + axis(np.ones(5), "CortexRight")
    scalars = nibabel.cifti2.ScalarAxis([f"trial{row}" for row in range(8)])
    path = folder / f"{BY_FILE}betas.dscalar.nii"
    nibabel.save(nibabel.Cifti2Image(values, (scalars, axes)), path)
    write_table(folder / f"{BY_FILE}trials.csv")
    assert_betas(build().session(1, 1), values)
    voxels = build().load_voxels(1)
    assert list(voxels.regions) == ["left", "right"]
    assert voxels.surface.sizes == (VOXELS - 5, 5)
    # vertices begin at 0 in each hemisphere
    vertices = voxels.surface.vertices[-6:, 1].tolist()
    assert vertices == [VOXELS - 6, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("ending", ["nii.gz", "npz", "hdf5"])
def test_files_named_by_subject_and_session_need_no_keys(folder, ending):
    values = make_betas(8)
    save_mask(folder)
    save_betas(folder / f"{BY_FILE}betas.{ending}", values)
    write_table(folder / f"{BY_FILE}trials.tsv")
    assert_betas(build().session(1, 1), values)
    betas = build()
    assert (betas.subjects, betas.sessions(1)) == ((1,), [1])
    assert betas.dataset == "image-folder"
    test = betas.session(1, 1)["test"]
    assert test.image_ids == PICTURES["test"]
    assert test.unit == "% signal change"
    np.testing.assert_array_equal(test.space.grid.indices, np.argwhere(INSIDE))
    np.testing.assert_array_equal(test.space.grid.affine, AFFINE)


@pytest.mark.parametrize("labels", [["ses-01", "ses-02"], ["1.0", "2.0"]])
def test_a_file_of_all_sessions_is_divided_by_a_column(folder, labels):
    """Trials of sessions 1 and 2 alternate."""
    values = make_betas(16)
    save_mask(folder)
    save_betas(folder / "sub-1_task-images_betas.nii.gz", values)
    table = folder / "sub-1_task-images_trials.csv"
    write_table(table, NAMES * 2, session=labels * 8, run=[3] * 16)
    betas = build()
    assert betas.sessions(1) == [1, 2]
    for session in (1, 2):
        for split, trials in betas.session(1, session).items():
            rows = [
                row
                for row in range(session - 1, 16, 2)
                if NAMES[row % 8].startswith(split)
            ]
            names = [f"{name}.png" for name in trials.image_ids]
            assert names == [NAMES[row % 8] for row in rows]
            np.testing.assert_array_equal(trials.signal[:, :, 0], values[rows])
            assert trials.runs.tolist() == [3] * len(rows)


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
    write_table(folder / f"{BY_FILE}trials.csv")
    with pytest.raises(BrainhiveError, match=r"betas\.nii\.gz .*7 betas.* 8 lines"):
        build().shapes(1, 1)


def test_blank_rows_and_unknown_pictures_are_counted_and_listed(folder, run_command):
    unknown = "train/cat/none.png"
    names = NAMES + ["", "NaN", unknown, unknown, NAMES[0]]
    save_mask(folder)
    save_betas(folder / f"{BY_FILE}betas.npy", make_betas(len(names)))
    write_table(folder / f"{BY_FILE}trials.csv", names, run=["run-1"] * len(names))
    overview = build().look_over([1])
    assert overview.tables[0].rows == ((1, 1, 1, 7, 2, 8, 1),)
    blank, absent, unmatched = overview.warnings
    assert "session 1" in blank
    assert "2 blank" in blank
    assert "session 1" in absent
    assert "2 trials" in absent
    assert "image-folder" in absent
    assert unmatched.endswith(f" 1: {unknown}")
    result = run_command("prepare", "preparation.kind=betas")
    assert result.tables[0].rows[0][:5] == (1, "train", 6, "1 to 2", 7)
    assert "2 blank" in result.tables[0].rows[0][5]


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
    write_table(folder / f"{BY_FILE}trials.csv")
    save_volume(folder / "sub-01_ffa.nii.gz", (labels == 2).astype(np.uint8))
    betas = build(regions={"FFA": "sub-{subject:02d}_ffa.nii.gz"})
    regions = betas.load_voxels(1).regions
    assert list(regions) == ["V1", "V2", "FFA"]
    np.testing.assert_array_equal(regions["V1"], labels[INSIDE] == 1)
    np.testing.assert_array_equal(regions["FFA"], regions["V2"])


def save_reversible(folder, outside_value, order):
    """Save betas of a grid with X = Z, whose values outside of the mask are noise."""
    random = np.random.default_rng(2)
    mask = random.random((5, 4, 5)) < 0.5
    volumes = random.normal(0, outside_value, (5, 4, 5, 8)).astype(np.float32)
    volumes[mask] = random.normal(size=(mask.sum(), 8))
    save_mask(folder, values=mask)
    with h5py.File(folder / f"{BY_FILE}betas.h5", "w") as file:
        file["betas"] = volumes.transpose(order)
    write_table(folder / f"{BY_FILE}trials.csv")
    return volumes[mask].T


@pytest.mark.parametrize("outside_value", [0, 50])
@pytest.mark.parametrize("order", [(3, 0, 1, 2), (3, 2, 1, 0), (2, 1, 0, 3)])
def test_values_decide_between_two_orders_of_axes(folder, outside_value, order):
    values = save_reversible(folder, outside_value, order)
    assert_betas(build().session(1, 1), values)


def test_orders_of_axes_that_values_do_not_decide_are_refused(folder):
    save_reversible(folder, 1, (3, 0, 1, 2))
    with pytest.raises(BrainhiveError, match=r"betas\.h5.*\[X, Y, Z\].*\[Z, Y, X\]"):
        build().session(1, 1)


def test_a_square_array_of_voxels_and_trials_is_refused(folder):
    save_betas(folder / f"{BY_FILE}betas.npy", np.eye(8, dtype=np.float32))
    write_table(folder / f"{BY_FILE}trials.csv")
    with pytest.raises(BrainhiveError, match=r"trials first.*trials last"):
        build().shapes(1, 1)


def test_a_file_with_keys_that_are_no_names_is_refused(folder):
    np.save(folder / f"{BY_FILE}betas.npy", {0: make_betas(8), 1: make_betas(8)})
    save_mask(folder)
    write_table(folder / f"{BY_FILE}trials.csv")
    with pytest.raises(BrainhiveError, match=r"betas\.npy .*0, 1"):
        build().shapes(1, 1)


@pytest.mark.parametrize(
    ("ending", "has_one_table"),
    [("nii.gz", False), ("NII", True), ("npy", True), ("h5", False)],
)
def test_runs_in_files_of_their_own_are_joined(folder, ending, has_one_table):
    values = make_betas(8)
    save_mask(folder)
    for run, rows in ((2, slice(0, 5)), (10, slice(5, 8))):
        path = folder / f"{BY_FILE}run-{run}_betas.{ending.lower()}"
        save_betas(path, values[rows])
        if ending.isupper():
            path.rename(path.with_suffix(f".{ending}"))
        if not has_one_table:
            write_table(folder / f"{BY_FILE}run-{run}_trials.csv", NAMES[rows])
    if has_one_table:
        write_table(folder / f"{BY_FILE}trials.csv", run=[2] * 5 + [10] * 3)
    assert_betas(build().session(1, 1), values)
    runs = build().session(1, 1)["train"].runs
    assert runs.tolist() == [2] * 5 + [10]


def test_volumes_that_a_header_names_follow_their_names(folder):
    """SPM writes the regressor into the header. The last volume names no picture."""
    values = make_betas(8)
    save_mask(folder)
    volumes = make_volumes(values)
    for number, row in enumerate(np.append(np.argsort(NAMES), -1), 1):
        image = nibabel.Nifti1Image(volumes[..., row], AFFINE)
        name = "fish" if row < 0 else Path(NAMES[row]).stem
        image.header["descrip"] = f"Sn(1) {name}*bf(1)".encode()
        nibabel.save(image, folder / f"{BY_FILE}beta_{number:04d}.nii")
    write_table(folder / f"{BY_FILE}trials.csv")
    assert_betas(build(betas="*_beta_*.nii").session(1, 1), values)
    with pytest.raises(BrainhiveError, match="fish"):
        build(betas="*_beta_*.nii").look_over([1]).account.require()


def test_axes_of_length_1_are_no_betas(folder):
    values = make_betas(8)
    save_mask(folder)
    volumes = make_volumes(values)[:, :, :, None]
    save_volume(folder / f"{BY_FILE}betas.nii.gz", volumes)
    write_table(folder / f"{BY_FILE}trials.csv")
    assert_betas(build().session(1, 1), values)


def test_voxels_of_matlab_are_in_column_order(folder):
    values = make_betas(8)
    save_mask(folder)
    # volume(mask) in MATLAB
    columns = [volume[INSIDE.T] for volume in make_volumes(values).T]
    with h5py.File(folder / f"{BY_FILE}betas.mat", "w") as file:
        file["betas"] = np.array(columns)
    write_table(folder / f"{BY_FILE}trials.csv")
    assert_betas(build().session(1, 1), values)


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
    assert line.startswith("2 files")
    assert "zstat" in line
    assert "design" in line
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
