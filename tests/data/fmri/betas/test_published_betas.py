"""Published betas, from files as their publishers write them to stores."""

import csv
import json
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.core.results.measurements import TWINS
from brainhive_cli.data.published import laion_fmri
from brainhive_cli.data.signals import Voxels
from brainhive_cli.data.stores.signal_store import SignalStore
from tests.soak import nsd_files
from tests.tools.trial_numbers import numbers_of_stores

pytest.importorskip("nibabel")

VOLUME = (3, 4, 2)
RANDOM = np.random.default_rng(29)
IMAGERY = Path(
    "nsddata_betas/ppdata/subj01/func1pt8mm",
    "nsdimagerybetas_fithrf_GLMdenoise_RR",
)


def prepare(name, *arguments, code=0):
    """Run the command, and return its output as a single line."""
    ended = CliRunner().invoke(app, ["prepare", "--from", name] + list(arguments))
    text = " ".join(f"{ended.stdout} {ended.stderr}".split())
    assert ended.exit_code == code, text
    return text


def stored(home, dataset, split, subject=1):
    return SignalStore.open(home / f"signals/{dataset}/default/sub-{subject:02d}.h5")[
        split
    ]


def trials_of(recording, image_id):
    """Return the trials [R, V] of a picture."""
    is_shown = np.array(recording.image_ids) == image_id
    return np.asarray(recording.signal[is_shown])[..., 0]


def images(kind, split, **keys):
    return (
        parts.resolve("datasets", {"kind": kind, **keys}).build(Paths()).images(split)
    )


def write_table(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(
            [columns] + list(rows)
        )


def paint(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (level, level, level)).save(path)


@pytest.fixture(autouse=True)
def seed_numbers(monkeypatch):
    """Reset the random numbers before each test."""
    monkeypatch.setitem(globals(), "RANDOM", np.random.default_rng(29))


# LAION-fMRI


@pytest.fixture
def mini_bids(golden):
    """Module that writes LAION-fMRI's files."""
    spec = spec_from_file_location("mini_bids", golden / "bold/mini_bids.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


SESSIONS = "preparation.sessions=1,2"


@pytest.fixture
def laion(home, mini_bids):
    def write(*subjects):
        root = home / "data/laion-fmri"
        betas = [mini_bids.write_laion(root, subject=subject) for subject in subjects]
        mini_bids.write_laion_splits(root / "splits", subjects=subjects)
        return betas[0]

    return write


def list_shown_trials(home, subject="sub-01"):
    """List the session and the label of each trial from the tables."""
    paths = sorted(
        (home / "data/laion-fmri/derivatives").rglob(f"{subject}_*_trials.tsv")
    )
    rows = [
        row for path in paths for row in csv.DictReader(path.open(), delimiter="\t")
    ]
    return [(row["session"], row["label"]) for row in rows]


@pytest.mark.parametrize("pool", ["shared", "sub-01", "sub-03"])
@pytest.mark.parametrize("split", ["tau", "cluster_k5_0", "random_0", "ood"])
def test_laions_split_files_say_which_pictures_are_in_test(
    golden, tmp_path, pool, split
):
    """Golden values: files of the publisher, of which the first variant counts."""
    shutil.copytree(golden / "bold/laion_split_example", tmp_path / "splits")
    file = golden / f"bold/laion_split_example/{pool}/{split}.json"
    first_variant = json.loads(file.read_text())["variants"][0]
    expected = {
        label.rpartition(".")[0]: name
        for name in ("train", "test")
        for label in first_variant[f"{name}_ids"]
    }

    pictures = laion_fmri.LaionFmriPictures(pool=pool, split=split)
    test_ids, path = pictures.read_split(tmp_path)

    assert test_ids == expected
    assert path == tmp_path / f"splits/{pool}/{split}.json"


def test_laion_betas_match_their_pictures_without_edge_voxels(home, laion, recorded):
    betas = laion("sub-01")
    values, labels = (
        np.concatenate(list(betas.values())),
        [label for _, label in list_shown_trials(home)],
    )
    # all sessions are needed by default
    folder = home / "data/laion-fmri/derivatives/glmsingle-tedana/sub-01"
    first_session = folder / "ses-01"
    first_session.rename(folder / "moved")
    assert "ses-01" in prepare("laion-fmri", code=3)
    (folder / "moved").rename(first_session)
    # whose rows may stand in any order
    for path in (home / "data/laion-fmri").rglob("*_trials.tsv"):
        head, *rows = path.read_text().splitlines()
        path.write_text("\n".join([head] + list(reversed(rows))))
    prepare("laion-fmri", SESSIONS, "preparation.zscore=no")
    sides = json.loads(
        (home / "data/laion-fmri/splits/shared/random_0.json").read_text()
    )["variants"][0]
    for split in ("train", "test"):
        recording = stored(home, "laion-fmri", split)
        assert sorted(recording.pictures) == sorted(
            file_name.rpartition(".")[0] for file_name in sides[f"{split}_ids"]
        )
        for label in sides[f"{split}_ids"]:
            rows = [
                row for row, other_label in enumerate(labels) if other_label == label
            ]
            # where trial 0 of each session is NaN
            expected = np.delete(values[rows], 3, axis=1)
            np.testing.assert_allclose(
                trials_of(recording, label.rpartition(".")[0]), expected, rtol=1e-6
            )
    recorded(digits=5, **numbers_of_stores(home))


def test_laion_regions_are_found_in_both_layouts(home, laion, recorded):
    import nibabel

    laion("sub-01")
    prepare("laion-fmri", SESSIONS)
    recording = stored(home, "laion-fmri", "train")
    first_space = recording.space
    assert (
        set(first_space.regions) == {"hlvis", "V1v", "hV4", "laionventral"}
        and first_space.grid is not None
    )
    (mask,) = (home / "data").rglob("*meanR2gt15mask_mask.nii.gz")
    (r2,) = (home / "data").rglob("*R2mean_statmap.nii.gz")
    image = nibabel.load(r2)
    values = image.get_fdata(dtype=np.float32)
    values[values == 0] = 14  # outside
    values[0, 0, 0] = np.nan
    mask.unlink()
    nibabel.save(nibabel.Nifti1Image(values, image.affine), r2)
    prepare("laion-fmri", SESSIONS, "name=r2")
    store = SignalStore.open(home / "signals/laion-fmri/r2/sub-01.h5")
    np.testing.assert_array_equal(
        store["train"].space.grid.indices, first_space.grid.indices
    )
    assert store["train"].provenance["voxels"] == recording.provenance["voxels"]
    recorded(digits=5, **numbers_of_stores(home))


def test_laions_pictures_are_rows_of_their_table_with_captions(home, laion):
    laion("sub-01")
    root = home / "data/laion-fmri/stimuli"
    labels = [
        row["image_name"]
        for row in csv.DictReader((root / "task-images_metadata.csv").open())
    ]
    with h5py.File(root / "task-images_stimuli.h5", "w") as file:
        pictures = file.create_dataset(
            "images", (len(labels),), h5py.vlen_dtype(np.uint8)
        )
        for row in range(len(labels)):
            content = BytesIO()
            Image.new("RGB", (9 + row % 3, 8), (3 * row,) * 3).save(content, "JPEG")
            pictures[row] = np.frombuffer(content.getvalue(), np.uint8)
    rows = [
        (label, value, "x", f"{label}, {value}") for label in labels for value in (1, 0)
    ]
    write_table(
        root / "task-images_desc-captions.csv",
        ("image_name", "caption_idx", "source", "caption"),
        rows,
    )
    listed_images = images("laion-fmri", "test", root=str(root.parent))
    assert listed_images.dataset == "laion-fmri"  # wherever it lies
    for index, image_id in enumerate(listed_images.image_ids):
        (row,) = (
            row
            for row, label in enumerate(labels)
            if label.rpartition(".")[0] == image_id
        )
        picture = listed_images.open(index)
        assert (
            picture.width == 9 + row % 3
            and abs(picture.getpixel((4, 4))[0] - 3 * row) < 4
        )
        assert listed_images.get_captions(index) == [
            f"{labels[row]}, {value}" for value in (0, 1)
        ]


# THINGS-fMRI


@pytest.fixture
def things_trials(home):
    """Write 2 sessions of 11 trials, and return the responses [V, trials]."""
    root = home / "data/things-fmri"
    pictures = [
        f"{concept}/{concept}_{single_name}"
        for concept in ("dog", "cat", "axe")
        for single_name in ("01b", "02s", "12s")
    ]
    for level, picture in enumerate(pictures):
        paint(root / f"images/{picture}.jpg", 20 * level)
    paint(root / "images/dog/dog_13s.jpg", 250)  # of THINGS, and never shown
    trials = [(s, row) for s in (1, 2) for row in list(range(9)) + [2, 2]]
    rows = []
    for number, (session, row) in enumerate(trials):
        concept, _, name = pictures[row].partition("/")
        kind = "test" if row == 2 else "train"  # dog_12s
        rows.append([kind, session, 1 + number % 2, 1, number, f"{name}.jpg", concept])
    columns = (
        "trial_type",
        "session",
        "run",
        "subject_id",
        "trial_id",
        "stimulus",
        "concept",
    )
    write_table(root / "betas_csv/sub-01_StimulusMetadata.csv", columns, rows)
    voxels = [
        [k, 1, 3 * k, 1, 7, 10.5 + k, int(k < 2), int(k == 3), "" if k else 1.5]
        for k in range(5)
    ]
    columns = (
        "voxel_id",
        "subject_id",
        "voxel_x",
        "voxel_y",
        "voxel_z",
        "nc_singletrial",
        "V1",
        "LO1 (prf)",
    )
    columns = tuple(columns) + ("prf-size",)
    write_table(root / "betas_csv/sub-01_VoxelMetadata.csv", columns, voxels)
    betas = RANDOM.standard_normal((5, len(rows)))
    order = RANDOM.permutation(len(rows))  # of the columns, which their names undo
    with h5py.File(root / "betas_csv/sub-01_ResponseData.h5", "w") as file:
        group = file.create_group("ResponseData")
        group["axis1"] = np.arange(5)
        group["axis0"] = np.array(
            [b"voxel_id"] + [str(number).encode() for number in order]
        )
        group["block0_items"] = np.array([str(number).encode() for number in order])
        group["block0_values"] = betas[:, order]
        group["block1_items"], group["block1_values"] = (
            np.array([b"voxel_id"]),
            np.arange(5)[:, None],
        )
    return betas


def test_things_responses_match_their_trials(home, things_trials, recorded):
    check_output = prepare("things-fmri", "--check")
    assert (
        "session 1–2: 4 training trials of concepts that test pictures show"
        in check_output
    )
    prepare("things-fmri")
    train, test = (stored(home, "things-fmri", split) for split in ("train", "test"))
    assert list(test.pictures) == ["dog_12s"] and test.unit == "z-score"
    np.testing.assert_allclose(
        trials_of(test, "dog_12s"),
        things_trials[:, [2, 9, 10, 13, 20, 21]].T,
        rtol=1e-6,
    )
    assert {name.partition("_")[0] for name in train.image_ids} == {"cat", "axe"}
    np.testing.assert_allclose(
        trials_of(train, "axe_02s"), things_trials[:, [7, 18]].T, rtol=1e-6
    )
    space = train.space
    assert {"V1", "LO1-prf"} <= set(space.regions) and "subject_id" not in space.regions
    np.testing.assert_array_equal(space.regions["V1"], [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(space.regions["LO1-prf"], [0, 0, 0, 1, 0])
    np.testing.assert_allclose(space.maps["nc_singletrial"], 10.5 + np.arange(5))
    recorded(digits=5, **numbers_of_stores(home))


def test_things_columns_whose_names_pandas_pickled_are_in_order(home, things_trials):
    with h5py.File(
        home / "data/things-fmri/betas_csv/sub-01_ResponseData.h5", "r+"
    ) as file:
        group = file["ResponseData"]
        del group["block0_items"], group["block0_values"]
        group.create_dataset("block0_items", (1,), h5py.vlen_dtype(np.uint8))[0] = (
            np.frombuffer(b"cos\n.", "u1")
        )
        group["block0_values"] = things_trials
    prepare("things-fmri")
    np.testing.assert_allclose(
        trials_of(stored(home, "things-fmri", "train"), "axe_02s"),
        things_trials[:, [7, 18]].T,
        rtol=1e-6,
    )


# BOLD5000

TYPE_D = "TYPED-FITHRF-GLMDENOISE-RR"


def save_without_origin(path, betas):
    """Write a session as the publisher's make_nii(betas, [2 2 2], [], 16) does:
    float32, 2 mm, no origin.
    """
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(betas.astype(np.float32), None)
    image.header.set_zooms((2, 2, 2, 1))
    nibabel.save(image, path)


@pytest.fixture
def bold5000(home, monkeypatch):
    """Write sessions of 40 and 39 trials, and return their pictures and all volumes."""
    from brainhive_cli.data.published import bold5000

    monkeypatch.setattr(bold5000, "SESSIONS", {1: 2})
    root = home / "data/bold5000"
    names = [
        "n01440764_10110.JPEG",
        "COCO_train2014_000000000036.jpg",
        "abbey1.jpg",
        "abbey2.jpg",
    ]
    names += [f"scene{number}.jpg" for number in range(67)]
    stimuli = (
        list(names) + list(names[:1] * 3) + list(names[2:3] * 3) + list(names[5:7])
    )
    stimuli = [stimuli[index] for index in RANDOM.permutation(len(stimuli))]
    volumes = RANDOM.standard_normal(tuple(VOLUME) + (len(stimuli),)).astype(np.float32)
    inside = RANDOM.random(VOLUME) < 0.6
    nsd_files.save(root / "CSI1_brainmask.nii.gz", inside.astype(np.uint8))
    for session, volume_part in enumerate((volumes[..., :40], volumes[..., 40:]), 1):
        save_without_origin(
            root / f"CSI1_GLMbetas-{TYPE_D}_ses-{session:02d}.nii.gz", volume_part
        )
        save_without_origin(
            root / f"b/CSI1_GLMbetas-TYBEB-FITHRF_ses-{session:02d}.nii.gz",
            2 * volume_part,
        )
    (root / "CSI1_imgnames.txt").write_text("\n".join(stimuli) + "\n")
    for folder, name in (
        ("ImageNet", names[0]),
        ("COCO", names[1]),
        ("Scene", names[2]),
        ("Scene", names[3]),
    ):
        paint(
            root / f"BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli/{folder}/{name}",
            99,
        )
    return stimuli, volumes[inside].T


def test_repeated_pictures_of_bold5000_are_the_test_split(home, bold5000, recorded):
    stimuli, volumes = bold5000
    prepare("bold5000", "preparation.zscore=no")
    for split, name, count in (
        ("test", "abbey1", 4),
        ("test", "n01440764_10110", 4),
        ("train", "abbey2", 1),
    ):
        rows = [
            row
            for row, stimulus in enumerate(stimuli)
            if stimulus.startswith(name + ".")
        ]
        assert len(rows) == count
        np.testing.assert_array_equal(
            trials_of(stored(home, "bold5000", split), name), volumes[rows]
        )
    assert len(stored(home, "bold5000", "test").pictures) == 4
    test, train = images("bold5000", "test"), images("bold5000", "train")
    assert list(test.image_ids) == ["ImageNet/n01440764_10110", "Scene/abbey1"]
    assert list(test.concepts) == ["n01440764", "abbey"] and len(train) == 2
    # 333 or 370 trials a session are runs of 37
    (session, _) = stored(home, "bold5000", "train").provenance["sessions"]
    assert (
        session["fitted"] == "over groups of five sessions, training and test together"
    )
    recorded(digits=5, **numbers_of_stores(home))


def test_bold5000_betas_without_an_origin_take_that_of_the_mask(home, bold5000):
    import nibabel

    root = home / "data/bold5000"
    mask = nibabel.load(root / "CSI1_brainmask.nii.gz")
    moved = nibabel.Nifti1Image(
        np.asarray(mask.dataobj),
        [[-2, 0, 0, 70], [0, 2, 0, -90], [0, 0, 2, -60], [0, 0, 0, 1]],
    )
    nibabel.save(moved, root / "CSI1_brainmask.nii.gz")
    prepare("bold5000")
    space = stored(home, "bold5000", "test").space
    np.testing.assert_array_equal(space.grid.affine, moved.affine)


def test_bold5000_regions_hold_all_trials_of_their_voxels(home, bold5000, recorded):
    stimuli, _ = bold5000
    root = home / "data/bold5000"
    folder = root / "BOLD5000_GLMsingle_ROI_betas/py"
    folder.mkdir(parents=True)
    names = [
        f"{hemisphere}{name}"
        for hemisphere in ("LH", "RH")
        for name in ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
    ]
    betas = {
        name: RANDOM.standard_normal((len(stimuli), 2 + row % 3))
        for row, name in enumerate(names)
    }
    for name, values in betas.items():
        np.save(folder / f"CSI1_GLMbetas-{TYPE_D}_allses_{name}.npy", values)
    (root / "CSI1_brainmask.nii.gz").unlink()
    assert "no CSI1_brainmask.nii.gz in" in prepare("bold5000", code=3)
    prepare("bold5000", "preparation.form=regions", "preparation.zscore=no")
    test = stored(home, "bold5000", "test")
    rows = [row for row, name in enumerate(stimuli) if name == "abbey1.jpg"]
    expected = np.concatenate([values[rows] for values in betas.values()], axis=1)
    np.testing.assert_allclose(trials_of(test, "abbey1"), expected, rtol=1e-6)
    assert isinstance(test.space, Voxels) and list(test.space.regions) == names
    np.testing.assert_array_equal(
        np.flatnonzero(test.space.regions["LHLOC"]), [2, 3, 4]
    )
    assert test.provenance["preparation"]["form"] == "regions"
    recorded(digits=5, **numbers_of_stores(home))


# Generic Object Decoding, Deep Image Reconstruction


def write_bdata(path, columns, names, vmap=None):
    """Write a table as bdpy does, with two regions of its VoxelData columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    widths = [np.atleast_2d(values.T).shape[0] for values in columns.values()]
    keys = list(columns) + ["ROI_V1", "ROI_VC", "voxel_x"]
    value = np.full((len(keys), sum(widths)), np.nan)
    for row, (start, width) in enumerate(
        zip(np.cumsum([0] + list(widths)), widths, strict=False)
    ):
        value[row, start : start + width] = 1
    index = list(columns).index("VoxelData")
    voxels = np.flatnonzero(value[index] == 1)
    value[-3, voxels[:2]], value[-2, voxels], value[-1, voxels] = (
        1,
        1,
        np.arange(len(voxels)),
    )
    with h5py.File(path, "w") as file:
        file[names[0]] = np.column_stack(list(columns.values()))
        group = file.create_group(names[1])
        group["key"], group["value"] = [key.encode() for key in keys], value
        group["description"] = [b"" for _ in keys]
        file["header/ran_by"] = b"import os"
        for key, labels in (vmap or {}).items():
            for number, name in labels.items():
                file[f"vmap/{key}/{number}"] = name.encode()


ANIMAL, TOOL, LAST = 1443537.022563, 1621127.019020, 2071294.046212


def test_god_samples_leave_out_immediate_repetitions(home, recorded):
    types = np.array([1, 1, 1, 1, 2, 2, 2, 3, 1.0])
    ids = np.array([ANIMAL, TOOL, TOOL, ANIMAL, LAST, LAST, LAST, LAST, np.nan])
    voxels = RANDOM.standard_normal((9, 4))
    columns = {
        "DataType": types,
        "VoxelData": voxels,
        "stimulus_id": ids,
        "Run": np.ones(9),
    }
    write_bdata(home / "data/god/Subject1.h5", columns, ("dataSet", "metaData"))
    output = prepare("god", "preparation.zscore=no", "--check")
    assert (
        "1 training samples of the picture before" in output
        and "1 samples of no picture" in output
    )
    prepare("god", "preparation.zscore=no")
    for split, name, rows in (
        ("train", "n01443537_22563", [0, 3]),
        ("train", "n01621127_19020", [1]),
        ("test", "n02071294_46212", [4, 5, 6]),
        ("imagery", "n02071294_46212", [7]),
    ):
        recording = stored(home, "god", split)
        np.testing.assert_allclose(trials_of(recording, name), voxels[rows], rtol=1e-6)
        assert isinstance(recording.space, Voxels) and list(
            recording.space.regions["V1"]
        ) == [1, 1, 0, 0]
    for split in ("training", "test"):
        paint(home / f"data/god/images/{split}/n02071294_46212.JPEG", 9)
    assert list(images("god", "imagery").image_ids) == ["test/n02071294_46212"]
    assert list(images("god", "train").concepts) == ["n02071294"]
    recorded(digits=5, **numbers_of_stores(home))


def test_current_files_of_deeprecon_are_preferred_to_older_files(home, recorded):
    values, folder = RANDOM.standard_normal((3, 3)), home / "data/deeprecon"
    for split in ("Training", "Test"):
        columns = {"VoxelData": values, "stimulus_name": np.array([1.0, 2.0, 1.0])}
        vmap = {"stimulus_name": {1: "n01443537_22563", 2: "n01621127_19020"}}
        path = folder / f"sub-02_ImageNet{split}_fmriprep_volume_native.h5"
        write_bdata(path, columns, ("dataset", "metadata"), vmap)
        path = folder / f"sub-02_perceptionNaturalImage{split}_original_VC.h5"
        write_bdata(
            path, {**columns, "VoxelData": -values}, ("dataset", "metadata"), vmap
        )
    prepare("deeprecon", "preparation.zscore=no")
    test = stored(home, "deeprecon", "test", subject=2)
    np.testing.assert_allclose(
        trials_of(test, "n01443537_22563"), values[[0, 2]], rtol=1e-6
    )
    assert len(test.provenance["files"]) == 2
    recorded(digits=5, **numbers_of_stores(home))


# NSD-Imagery


@pytest.fixture
def imagery(home):
    """Write NSD and 6 blocks of imagery.

    Returns betas [trials, V] in percent, blocks and cues.

    """
    import pickle

    truth = nsd_files.write(home / "data/nsd", sessions=1)
    counts = {"visA": 12, "attA": 8, "imgA_1": 6, "visB": 12, "imgA_2": 6}
    letters = {"A": "XLKTHS", "B": "FGWUVZ"}
    # pictures come in another order in each block
    blocks, cues = [], []
    for block, count in counts.items():
        blocks += [block] * count
        cues += [letters[block[3]][number % 6] for number in RANDOM.permutation(count)]
    stored = RANDOM.integers(-900, 900, tuple(VOLUME) + (len(blocks),)).astype(np.int16)
    x, y, z = np.argwhere(truth.masks["nsdgeneral"] > 0)[1]
    stored[x, y, z] = 7  # a voxel that never varies keeps its place
    folder = home / "data/nsd" / IMAGERY
    folder.mkdir(parents=True)
    with h5py.File(folder / "betas_nsdimagery.hdf5", "w") as file:
        file["betas"] = stored.T
    content = {"exps": np.array(blocks), "cues": np.array(cues)}
    (home / "data/nsd/nsdimagery_stimuli.pkl3").write_bytes(
        pickle.dumps(content, protocol=3)
    )
    return stored[truth.masks["nsdgeneral"] > 0].T / 300, blocks, cues


def test_imagery_has_the_voxels_of_nsd_z_scored_by_run(home, imagery, recorded):
    betas, blocks, cues = imagery
    assert "8 trials of the attention task" in prepare("nsd-imagery", "--check")
    prepare("nsd-imagery")
    prepare("nsd", "preparation.sessions=1")
    space, nsd = (stored(home, name, "test").space for name in ("nsd-imagery", "nsd"))
    assert list(space.regions) == list(nsd.regions)
    np.testing.assert_array_equal(space.grid.indices, nsd.grid.indices)
    array = np.array(blocks)
    for split, block, name, cue in (
        ("test", "visA", "A-H", "H"),
        ("imagery", "imgA_2", "A-X", "X"),
    ):
        beta = betas[array == block]
        rows = [
            row
            for row, trial_code in enumerate(zip(blocks, cues, strict=True))
            if trial_code == (block, cue)
        ]
        with np.errstate(invalid="ignore"):
            expected = np.nan_to_num((betas[rows] - beta.mean(0)) / beta.std(0))
        trials = trials_of(stored(home, "nsd-imagery", split), name)[-len(rows) :]
        np.testing.assert_allclose(trials, expected, atol=1e-4)
    assert trials_of(stored(home, "nsd-imagery", "imagery"), "A-H").shape == (
        2,
        nsd.grid.indices.shape[0],
    )
    (session,) = stored(home, "nsd-imagery", "test").provenance["sessions"]
    assert session["z_scored_without_training_trials"] == [1, 3, 4, 5]
    recorded(digits=5, **numbers_of_stores(home))


RUNS = "visA attA imgA_1 visB attB imgB_1 visC attC imgC_1 imgA_2 imgB_2 imgC_2".split()


def write_imagery_tables(root):
    """Write the public tables and 720 betas.

    Returns run, condition and picture of each beta.

    """
    folder = root / IMAGERY
    folder.mkdir(parents=True, exist_ok=True)
    stimuli = []
    for run_number in RUNS:
        order = RANDOM.permutation(48) % 6 + 1
        rows = [
            [
                1,
                trial,
                f"{run_number[3]}{trial_code}",
                f"{run_number[3]}_{trial_code}.png",
            ]
            for trial, trial_code in enumerate(order)
        ]
        table = root / f"nsddata/bdata/nsdimagery/nsdimagery_subj01_{run_number}.tsv"
        write_table(table, ("SUBJECT", "TRIAL", "CONDITION", "IMAGEFILE"), rows)
        for _, _, condition, picture in rows:
            stimuli += [(run_number, condition, picture)] * (
                2 if run_number.startswith("att") else 1
            )
    with h5py.File(folder / "betas_nsdimagery.hdf5", "w") as file:
        file["betas"] = RANDOM.integers(
            -900, 900, (len(stimuli),) + tuple(VOLUME[::-1])
        ).astype(np.int16)
    return stimuli


def test_imagery_is_read_by_public_tables_in_the_order_of_runs(home, recorded):
    truth, root = nsd_files.write(home / "data/nsd", sessions=1), home / "data/nsd"
    imagery_tables = write_imagery_tables(root)
    path = next(root.rglob("betas_nsdimagery.hdf5"))
    with h5py.File(path) as file:
        betas = file["betas"][:].T[truth.masks["nsdgeneral"] > 0].T / 300
    assert len(betas) == 720 and "288 trials of the attention task" in prepare(
        "nsd-imagery", "--check"
    )
    prepare("nsd-imagery")
    for split, runs, count in (
        ("test", ["visB"], 8),
        ("imagery", ["imgB_1", "imgB_2"], 16),
    ):
        recording = stored(home, "nsd-imagery", split)
        expected = [
            (
                betas[row]
                - (
                    beta := betas[
                        [block_code[0] == block for block_code in imagery_tables]
                    ]
                ).mean(0)
            )
            / beta.std(0)
            for row, (block, condition, _) in enumerate(imagery_tables)
            if block in runs and condition == "B4"
        ]
        assert len(expected) == count and len(recording.pictures) == 18
        np.testing.assert_allclose(trials_of(recording, "B-B4"), expected, atol=1e-4)
    recorded(digits=5, **numbers_of_stores(home))


@pytest.mark.nightly
def test_an_nsd_model_is_tested_on_seen_and_imagined_pictures(
    home, imagery, run_command, code_allowed
):
    root = home / "data/nsd"
    with h5py.File(root / "nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = RANDOM.integers(0, 255, (73000, 1, 1, 3), np.uint8)
    prepare("nsd", "preparation.sessions=1")
    store = SignalStore.open(home / "signals/nsd/default/sub-01.h5")
    stimuli_by_split = {
        int(name[3:]) - 1 for split in store.splits.values() for name in split.image_ids
    }
    test_rows = {int(name[3:]) - 1 for name in store["test"].image_ids}
    rows = [[row, row in test_rows, 1] for row in sorted(stimuli_by_split)]
    write_table(
        root / "nsd_stim_info_merged.csv",
        ("nsdId", "shared1000", "subject1_rep0"),
        rows,
    )
    prepare("nsd-imagery")
    for level, cue in enumerate("XLKTHS"):
        paint(home / f"data/nsd-imagery/stimuli/A-{cue}.png", 40 * level)
    for level, cue in enumerate("FGWUVZ"):
        paint(home / f"data/nsd-imagery/stimuli/B-{cue}.png", 40 * level + 15)

    nsd = "dataset={kind: nsd, subjects: [1]}"
    encoder = "encoders=['python:brainhive_cli.models.encoders.python:example']"
    run_command("embed", nsd, encoder)
    run_command("embed", "dataset=nsd-imagery", encoder)
    run_command(
        "train-align",
        nsd,
        encoder,
        "backbone.kind=voxel-ridge",
        "train.epochs=1",
        "seeds=0",
        "subjects=1",
        "signal.normalise=null",
    )
    (run_folder,) = (home / "runs/train-align").glob("nsd-1-*")
    for split in ("test", "imagery"):
        result = run_command(
            "eval-retrieval",
            f"run={run_folder}",
            "dataset=nsd-imagery",
            f"gallery={split}",
        )
        names = list("FGHKLSTUVWXZ") if split == "test" else list("HKLSTX")
        # plain pictures have equal embeddings
        assert result.metrics is not None
        assert result.metrics.facts.caveats == [TWINS]
        (items,) = (
            items
            for name, items in result.metrics.items.items()
            if "backward" not in name
        )
        assert sorted(name[2:] for name in items["image_ids"]) == names and len(
            set(items["units"])
        ) == len(names)
        # by the layer of the subject, who is no stranger
        assert "zero-shot" not in result.tables[0].title


def test_pictures_that_are_not_here_are_listed_by_split(home):
    dataset = parts.resolve("datasets", "bold5000").build(Paths())
    for split in dataset.splits:
        (absent,) = dataset.files(split, ())
        assert absent.is_missing and split in absent.name
