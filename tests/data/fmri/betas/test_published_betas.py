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
from tests.tools.trial_numbers import numbers_of_trials

nibabel = pytest.importorskip("nibabel")

VOLUME = (3, 4, 2)
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


def read_trials(recording, image_id):
    """Read the trials [R, V] of a picture."""
    is_shown = np.array(recording.image_ids) == image_id
    return np.asarray(recording.signal[is_shown])[..., 0]


def list_trials(recording):
    """List the trials in the order of time.

    Returns:
        Picture, session (from 0) and run of each trial, and the betas [trials, V].
    """
    order = np.lexsort((recording.trial_numbers, recording.sessions))
    trials = []
    for row in order:
        picture = recording.image_ids[row]
        trials.append((picture, recording.sessions[row], recording.runs[row]))
    return trials, np.asarray(recording.signal[:])[order, :, 0]


def images(kind, split, **keys):
    dataset = parts.resolve("datasets", {"kind": kind, **keys}).build(Paths())
    return dataset.images(split)


def write_table(path, columns, rows):
    """Write a table whose columns are separated by commas."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        csv.writer(file, delimiter=delimiter).writerows(
            [columns.split(",")] + list(rows)
        )


def paint(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (level, level, level)).save(path)


# LAION-fMRI


@pytest.fixture
def mini_bids(golden):
    """Module that writes LAION-fMRI's files."""
    spec = spec_from_file_location("mini_bids", golden / "bold/mini_bids.py")
    assert spec
    assert spec.loader
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


def test_laion_betas_match_their_pictures_without_edge_voxels(home, laion):
    betas = laion("sub-01")
    root = home / "data/laion-fmri"
    values, rows = np.concatenate(list(betas.values())), []
    for path in sorted(root.rglob("*_trials.tsv")):
        rows += csv.DictReader(path.read_text().splitlines(), delimiter="\t")
        # lines may stand in any order
        head, *lines = path.read_text().splitlines()
        path.write_text("\n".join([head] + lines[::-1]))
    split_file = root / "splits/shared/random_0.json"
    split_ids = json.loads(split_file.read_text())["variants"][0]

    prepare("laion-fmri", SESSIONS, "preparation.zscore=no")

    for split in ("train", "test"):
        expected, numbers = [], []
        for number, row in enumerate(rows):
            if row["label"] in split_ids[f"{split}_ids"]:
                session = int(row["session"].removeprefix("ses-")) - 1
                run = int(row["run"].removeprefix("run-"))
                expected.append((row["label"].rpartition(".")[0], session, run))
                numbers.append(number)
        trials, signal = list_trials(stored(home, "laion-fmri", split))
        assert trials == expected
        # voxel 3 is NaN in the first trial of each session
        expected_betas = np.delete(values[numbers], 3, axis=1)
        np.testing.assert_allclose(signal, expected_betas, rtol=1e-6)


def test_all_sessions_of_laion_are_needed_by_default(home, laion):
    laion("sub-01")
    shutil.rmtree(home / "data/laion-fmri/derivatives/glmsingle-tedana/sub-01/ses-01")
    assert "ses-01" in prepare("laion-fmri", code=3)


def test_laion_regions_are_found_in_both_layouts(home, laion, recorded):
    laion("sub-01")
    prepare("laion-fmri", SESSIONS)
    recording = stored(home, "laion-fmri", "test")
    first_space = recording.space
    assert set(first_space.regions) == {"hlvis", "V1v", "hV4", "laionventral"}

    # later versions have no mask, but R² in percent
    (mask,) = (home / "data").rglob("*meanR2gt15mask_mask.nii.gz")
    (r2,) = (home / "data").rglob("*R2mean_statmap.nii.gz")
    image = nibabel.load(r2)
    values = image.get_fdata(dtype=np.float32)
    values[values == 0] = 14  # outside
    values[0, 0, 0] = np.nan
    mask.unlink()
    nibabel.save(nibabel.Nifti1Image(values, image.affine), r2)
    prepare("laion-fmri", SESSIONS, "name=r2")
    by_r2 = SignalStore.open(home / "signals/laion-fmri/r2/sub-01.h5")["test"]
    assert by_r2.provenance["voxels"] == recording.provenance["voxels"]
    np.testing.assert_array_equal(by_r2.space.grid.indices, first_space.grid.indices)
    numbers = numbers_of_trials(recording)
    recorded(digits=5, signal=numbers["signal"], space=numbers["space"])


def test_laions_pictures_are_rows_of_their_table_with_captions(home, laion):
    """The picture in row r is 9 + r % 3 pixels wide, and 3 r bright."""
    laion("sub-01")
    root = home / "data/laion-fmri/stimuli"
    table = (root / "task-images_metadata.csv").read_text().splitlines()
    labels = [row["image_name"] for row in csv.DictReader(table)]
    with h5py.File(root / "task-images_stimuli.h5", "w") as file:
        kind = h5py.vlen_dtype(np.uint8)
        pictures = file.create_dataset("images", (len(labels),), kind)
        for row in range(len(labels)):
            content = BytesIO()
            Image.new("RGB", (9 + row % 3, 8), (3 * row,) * 3).save(content, "JPEG")
            pictures[row] = np.frombuffer(content.getvalue(), np.uint8)
    rows = []
    for label in labels:
        rows += [(label, 1, "x", f"{label}, 1"), (label, 0, "x", f"{label}, 0")]
    columns = "image_name,caption_idx,source,caption"
    write_table(root / "task-images_desc-captions.csv", columns, rows)

    listed_images = images("laion-fmri", "test", root=str(root.parent))

    assert listed_images.dataset == "laion-fmri"  # wherever it lies
    stems = [label.rpartition(".")[0] for label in labels]
    for index, image_id in enumerate(listed_images.image_ids):
        row = stems.index(image_id)
        picture = listed_images.open(index)
        assert picture.width == 9 + row % 3
        assert abs(picture.getpixel((4, 4))[0] - 3 * row) < 4
        expected = [f"{labels[row]}, 0", f"{labels[row]}, 1"]
        assert listed_images.get_captions(index) == expected


# THINGS-fMRI


@pytest.fixture
def things_trials(home):
    """Write 2 sessions of 11 trials, and return the responses [V, trials].

    A session shows nine pictures, and the test picture dog_12s in trials 2, 9 and 10.
    """
    root = home / "data/things-fmri"
    pictures = []
    for concept in ("dog", "cat", "axe"):
        pictures += [(concept, f"{concept}_{name}") for name in ("01b", "02s", "12s")]
    rows = []
    for number, picture in enumerate([0, 1, 2, 3, 4, 5, 6, 7, 8, 2, 2] * 2):
        concept, name = pictures[picture]
        kind = "test" if name == "dog_12s" else "train"
        session, run = 1 + number // 11, 1 + number % 2
        rows.append([kind, session, run, 1, number, f"{name}.jpg", concept])
    columns = "trial_type,session,run,subject_id,trial_id,stimulus,concept"
    write_table(root / "betas_csv/sub-01_StimulusMetadata.csv", columns, rows)
    voxels = [
        [k, 1, 3 * k, 10.5 + k, int(k < 2), int(k == 3), "" if k else 1.5]
        for k in range(5)
    ]
    columns = "voxel_id,subject_id,voxel_x,nc_singletrial,V1,LO1 (prf),prf-size"
    write_table(root / "betas_csv/sub-01_VoxelMetadata.csv", columns, voxels)
    random = np.random.default_rng(29)
    betas = random.standard_normal((5, len(rows)))
    # the columns are in another order, but have the numbers of the trials as names
    order = random.permutation(len(rows))
    with h5py.File(root / "betas_csv/sub-01_ResponseData.h5", "w") as file:
        group = file.create_group("ResponseData")
        group["block0_items"] = order.astype(bytes)
        group["block0_values"] = betas[:, order]
        group["block1_items"] = [b"voxel_id"]
        group["block1_values"] = np.arange(5)[:, None]
    return betas


def test_things_responses_match_their_trials(home, things_trials):
    check_output = prepare("things-fmri", "--check")
    # two pictures of dogs in each session
    dropped = "training trials of concepts that test pictures show"
    assert f"session 1–2: 4 {dropped}" in check_output
    prepare("things-fmri")
    train = stored(home, "things-fmri", "train")
    test = stored(home, "things-fmri", "test")

    assert test.unit == "z-score"
    for recording, names, numbers in (
        (train, ["cat_01b", "cat_02s", "cat_12s"], [3, 4, 5, 14, 15, 16]),
        (train, ["axe_01b", "axe_02s", "axe_12s"], [6, 7, 8, 17, 18, 19]),
        (test, ["dog_12s"] * 3, [2, 9, 10, 13, 20, 21]),
    ):
        trials, signal = list_trials(recording)
        expected = [
            (name, number // 11, 1 + number % 2)
            for name, number in zip(names * 2, numbers, strict=True)
        ]
        rows = [row for row, trial in enumerate(trials) if trial[0] in names]
        assert [trials[row] for row in rows] == expected
        expected_betas = things_trials[:, numbers].T
        np.testing.assert_allclose(signal[rows], expected_betas, rtol=1e-6)
    assert (len(train.signal), len(test.signal)) == (12, 6)
    space = train.space
    assert space.regions.keys() == {"V1", "LO1-prf"}
    np.testing.assert_array_equal(space.regions["V1"], [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(space.regions["LO1-prf"], [0, 0, 0, 1, 0])
    np.testing.assert_allclose(space.maps["nc_singletrial"], 10.5 + np.arange(5))
    np.testing.assert_allclose(space.maps["prf-size"], [1.5, 0, 0, 0, 0])


def test_things_columns_whose_names_pandas_pickled_are_in_order(home, things_trials):
    path = home / "data/things-fmri/betas_csv/sub-01_ResponseData.h5"
    with h5py.File(path, "r+") as file:
        group = file["ResponseData"]
        del group["block0_items"], group["block0_values"]
        names = group.create_dataset("block0_items", (1,), h5py.vlen_dtype(np.uint8))
        names[0] = np.frombuffer(b"cos\n.", np.uint8)
        group["block0_values"] = things_trials
    prepare("things-fmri")
    betas = read_trials(stored(home, "things-fmri", "train"), "axe_02s")
    np.testing.assert_allclose(betas, things_trials[:, [7, 18]].T, rtol=1e-6)


# BOLD5000

TYPE_D = "TYPED-FITHRF-GLMDENOISE-RR"


def save_without_origin(path, betas):
    """Write a session as the publisher's make_nii(betas, [2 2 2], [], 16) does:
    float32, 2 mm, no origin.
    """
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
    names = ["ImageNet/n01440764_10110.JPEG", "COCO/COCO_train2014_000000000036.jpg"]
    names += ["Scene/abbey1.jpg", "Scene/abbey2.jpg"]
    for name in names:
        folder = "BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli"
        paint(root / folder / name, 99)
    stimuli = [name.partition("/")[2] for name in names]
    stimuli += [f"scene{number}.jpg" for number in range(67)]
    # four pictures are repeated: those of the test
    stimuli += [stimuli[0], stimuli[2]] * 3 + stimuli[5:7]
    random = np.random.default_rng(29)
    stimuli = random.permutation(stimuli).tolist()
    volumes = random.standard_normal(VOLUME + (len(stimuli),)).astype(np.float32)
    inside = random.random(VOLUME) < 0.6
    nsd_files.save(root / "CSI1_brainmask.nii.gz", inside.astype(np.uint8))
    for session, betas in enumerate((volumes[..., :40], volumes[..., 40:]), 1):
        name = f"_ses-{session:02d}.nii.gz"
        save_without_origin(root / f"CSI1_GLMbetas-{TYPE_D}{name}", betas)
        save_without_origin(root / f"b/CSI1_GLMbetas-TYBEB-FITHRF{name}", 2 * betas)
    (root / "CSI1_imgnames.txt").write_text("\n".join(stimuli) + "\n")
    return stimuli, volumes[inside].T


def test_repeated_pictures_of_bold5000_are_the_test_split(home, bold5000):
    stimuli, volumes = bold5000
    prepare("bold5000", "preparation.zscore=no")

    for split in ("train", "test"):
        is_test = split == "test"
        rows = [
            row
            for row, name in enumerate(stimuli)
            if (stimuli.count(name) > 1) == is_test
        ]
        assert len(rows) == (12 if is_test else 67)
        recording = stored(home, "bold5000", split)
        trials, signal = list_trials(recording)
        # runs have 37 trials
        assert trials == [
            (stimuli[row].rpartition(".")[0], row // 40, 1 + row % 40 // 37)
            for row in rows
        ]
        np.testing.assert_array_equal(signal, volumes[rows])
    (session, _) = recording.provenance["sessions"]
    fitted = "over groups of five sessions, training and test together"
    assert session["fitted"] == fitted

    test, train = images("bold5000", "test"), images("bold5000", "train")
    assert list(test.image_ids) == ["ImageNet/n01440764_10110", "Scene/abbey1"]
    assert list(test.concepts) == ["n01440764", "abbey"]
    assert len(train) == 2


def test_bold5000_betas_without_an_origin_take_that_of_the_mask(home, bold5000):
    path = home / "data/bold5000/CSI1_brainmask.nii.gz"
    affine = [[-2, 0, 0, 70], [0, 2, 0, -90], [0, 0, 2, -60], [0, 0, 0, 1]]
    mask = np.asarray(nibabel.load(path).dataobj)
    nibabel.save(nibabel.Nifti1Image(mask, affine), path)
    prepare("bold5000")
    space = stored(home, "bold5000", "test").space
    np.testing.assert_array_equal(space.grid.affine, affine)


def test_bold5000_regions_hold_all_trials_of_their_voxels(home, bold5000):
    stimuli, _ = bold5000
    root = home / "data/bold5000"
    folder = root / "BOLD5000_GLMsingle_ROI_betas/py"
    folder.mkdir(parents=True)
    areas = ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
    names = [f"LH{area}" for area in areas] + [f"RH{area}" for area in areas]
    random = np.random.default_rng(29)
    betas = []  # of 2, 3, 4, 2, … voxels
    for row, name in enumerate(names):
        betas.append(random.standard_normal((len(stimuli), 2 + row % 3)))
        np.save(folder / f"CSI1_GLMbetas-{TYPE_D}_allses_{name}.npy", betas[-1])
    (root / "CSI1_brainmask.nii.gz").unlink()
    assert "no CSI1_brainmask.nii.gz in" in prepare("bold5000", code=3)

    prepare("bold5000", "preparation.form=regions", "preparation.zscore=no")

    test = stored(home, "bold5000", "test")
    rows = [row for row, name in enumerate(stimuli) if stimuli.count(name) > 1]
    expected = np.concatenate(betas, axis=1)[rows]
    trials, signal = list_trials(test)
    np.testing.assert_allclose(signal, expected, rtol=1e-6)
    # sessions are not known
    assert [trial[1:] for trial in trials] == [(0, 1 + row // 37) for row in rows]
    assert isinstance(test.space, Voxels)
    assert list(test.space.regions) == names
    assert np.flatnonzero(test.space.regions["LHLOC"]).tolist() == [2, 3, 4]
    assert test.provenance["preparation"]["form"] == "regions"


# Generic Object Decoding, Deep Image Reconstruction


def write_bdata(path, samples, names, vmap=None):
    """Write a table of samples as bdpy does, with two regions of its voxels.

    Args:
        path: File.
        samples: Columns [n] or [n, columns] by key, such as VoxelData.
        names: HDF5 names of the table and of the keys of its columns.
        vmap: Names of pictures by number.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = []  # of each column
    for key, values in samples.items():
        keys += [key] * (values.shape[1] if values.ndim == 2 else 1)
    is_column = {key: np.array(keys) == key for key in samples}
    is_column["ROI_V1"] = is_column["VoxelData"] & (is_column["VoxelData"].cumsum() < 3)
    is_column["ROI_VC"] = is_column["VoxelData"]
    with h5py.File(path, "w") as file:
        file[names[0]] = np.column_stack(list(samples.values()))
        file[f"{names[1]}/key"] = [key.encode() for key in is_column]
        # other columns are NaN
        masks = np.array(list(is_column.values()))
        file[f"{names[1]}/value"] = np.where(masks, 1, np.nan)
        file["header/ran_by"] = b"import os"
        for number, name in (vmap or {}).items():
            file[f"vmap/stimulus_name/{number}"] = name.encode()


ANIMAL, TOOL, LAST = 1443537.022563, 1621127.019020, 2071294.046212


def test_god_samples_leave_out_immediate_repetitions(home):
    voxels = np.random.default_rng(29).standard_normal((9, 4))
    samples = {
        # training, test and imagery
        "DataType": np.array([1, 1, 1, 1, 2, 2, 2, 3, 1.0]),
        "VoxelData": voxels,
        "stimulus_id": np.array(
            [ANIMAL, TOOL, TOOL, ANIMAL, LAST, LAST, LAST, LAST, np.nan]
        ),
        "Run": np.full(9, 2.0),
    }
    write_bdata(home / "data/god/Subject1.h5", samples, ("dataSet", "metaData"))
    output = prepare("god", "preparation.zscore=no", "--check")
    assert "1 training samples of the picture before" in output
    assert "1 samples of no picture" in output

    prepare("god", "preparation.zscore=no")

    animal, tool, last = "n01443537_22563", "n01621127_19020", "n02071294_46212"
    for split, names, rows in (
        ("train", [animal, tool, animal], [0, 1, 3]),
        ("test", [last] * 3, [4, 5, 6]),
        ("imagery", [last], [7]),
    ):
        recording = stored(home, "god", split)
        trials, signal = list_trials(recording)
        assert trials == [(name, 0, 2) for name in names]
        np.testing.assert_allclose(signal, voxels[rows], rtol=1e-6)
        assert isinstance(recording.space, Voxels)
        assert recording.space.regions["V1"].tolist() == [1, 1, 0, 0]
    for split in ("training", "test"):
        paint(home / f"data/god/images/{split}/{last}.JPEG", 9)
    assert list(images("god", "imagery").image_ids) == [f"test/{last}"]
    assert list(images("god", "train").concepts) == ["n02071294"]


def test_current_files_of_deeprecon_are_preferred_to_older_files(home):
    """Training is session 1, and test session 2."""
    values = np.random.default_rng(29).standard_normal((3, 3))
    samples = {"VoxelData": values, "stimulus_name": np.array([1.0, 2.0, 1.0])}
    older_samples = samples | {"VoxelData": -values}
    names = ["n01443537_22563", "n01621127_19020"]
    folder = home / "data/deeprecon"
    for split in ("Training", "Test"):
        for file, content in (
            (f"sub-02_ImageNet{split}_fmriprep_volume_native.h5", samples),
            (f"sub-02_perceptionNaturalImage{split}_original_VC.h5", older_samples),
        ):
            vmap = dict(enumerate(names, 1))
            write_bdata(folder / file, content, ("dataset", "metadata"), vmap)

    prepare("deeprecon", "preparation.zscore=no")

    for session, split in enumerate(("train", "test"), 1):
        recording = stored(home, "deeprecon", split, subject=2)
        trials, signal = list_trials(recording)
        assert [trial[0] for trial in trials] == [names[0], names[1], names[0]]
        np.testing.assert_allclose(signal, values, rtol=1e-6)
        assert recording.provenance["sessions"][0]["session"] == session
    assert len(recording.provenance["files"]) == 2


# NSD-Imagery


@pytest.fixture
def imagery(home):
    """Write NSD and 5 blocks of imagery.

    Returns:
        Betas [trials, V] in percent, and the block and the cue of each.
    """
    import pickle

    truth = nsd_files.write(home / "data/nsd", sessions=1)
    random = np.random.default_rng(29)
    counts = {"visA": 12, "attA": 8, "imgA_1": 6, "visB": 12, "imgA_2": 6}
    letters = {"A": "XLKTHS", "B": "FGWUVZ"}
    # pictures come in another order in each block
    blocks, cues = [], []
    for block, count in counts.items():
        blocks += [block] * count
        cues += [letters[block[3]][number % 6] for number in random.permutation(count)]
    stored = random.integers(-900, 900, VOLUME + (len(blocks),)).astype(np.int16)
    x, y, z = np.argwhere(truth.masks["nsdgeneral"] > 0)[1]
    stored[x, y, z] = 7  # a voxel that never varies keeps its place
    folder = home / "data/nsd" / IMAGERY
    folder.mkdir(parents=True)
    with h5py.File(folder / "betas_nsdimagery.hdf5", "w") as file:
        file["betas"] = stored.T
    content = pickle.dumps({"exps": np.array(blocks), "cues": np.array(cues)}, 3)
    (home / "data/nsd/nsdimagery_stimuli.pkl3").write_bytes(content)
    return stored[truth.masks["nsdgeneral"] > 0].T / 300, blocks, cues


def score_block(betas, blocks, block):
    """Z-score the betas [trials, V] by those of a block. Constant voxels become 0."""
    block_betas = betas[np.array(blocks) == block]
    spread = block_betas.std(0)
    return (betas - block_betas.mean(0)) / np.where(spread == 0, np.inf, spread)


def test_imagery_has_the_voxels_of_nsd_z_scored_by_run(home, imagery, recorded):
    betas, blocks, cues = imagery
    assert "8 trials of the attention task" in prepare("nsd-imagery", "--check")
    prepare("nsd-imagery")
    prepare("nsd", "preparation.sessions=1")

    test = stored(home, "nsd-imagery", "test")
    nsd = stored(home, "nsd", "test").space
    assert list(test.space.regions) == list(nsd.regions)
    np.testing.assert_array_equal(test.space.grid.indices, nsd.grid.indices)
    for split, block, cue in (("test", "visA", "H"), ("imagery", "imgA_2", "X")):
        shown = zip(blocks, cues, strict=True)
        rows = [row for row, trial in enumerate(shown) if trial == (block, cue)]
        expected = score_block(betas, blocks, block)[rows]
        trials = read_trials(stored(home, "nsd-imagery", split), f"A-{cue}")
        # the imagery of a picture has two runs, of which the second is imgA_2
        np.testing.assert_allclose(trials[-len(rows) :], expected, atol=1e-4)
    assert len(read_trials(stored(home, "nsd-imagery", "imagery"), "A-H")) == 2
    (session,) = test.provenance["sessions"]
    assert session["z_scored_without_training_trials"] == [1, 3, 4, 5]
    numbers = numbers_of_trials(test)
    recorded(digits=5, signal=numbers["signal"], space=numbers["space"])


RUNS = "visA attA imgA_1 visB attB imgB_1 visC attC imgC_1 imgA_2 imgB_2 imgC_2".split()


def test_imagery_is_read_by_public_tables_in_the_order_of_runs(home):
    """Each of the 12 runs has 48 trials. A trial of attention has two betas."""
    root = home / "data/nsd"
    truth = nsd_files.write(root, sessions=1)
    random = np.random.default_rng(29)
    blocks, conditions = [], []  # of each beta
    for block in RUNS:
        shown = [f"{block[3]}{code}" for code in random.permutation(48) % 6 + 1]
        rows = [(1, trial, name, "x.png") for trial, name in enumerate(shown)]
        table = f"nsddata/bdata/nsdimagery/nsdimagery_subj01_{block}.tsv"
        write_table(root / table, "SUBJECT,TRIAL,CONDITION,IMAGEFILE", rows)
        betas_per_trial = 2 if block.startswith("att") else 1
        blocks += [block] * 48 * betas_per_trial
        conditions += np.repeat(shown, betas_per_trial).tolist()
    values = random.integers(-900, 900, VOLUME + (len(blocks),)).astype(np.int16)
    path = root / IMAGERY / "betas_nsdimagery.hdf5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["betas"] = values.T
    betas = values[truth.masks["nsdgeneral"] > 0].T / 300
    check_output = prepare("nsd-imagery", "--check")
    assert "288 trials of the attention task" in check_output

    prepare("nsd-imagery")

    for split, runs in (("test", ["visB"]), ("imagery", ["imgB_1", "imgB_2"])):
        expected = []
        for block in runs:
            shown = zip(blocks, conditions, strict=True)
            is_shown = [trial == (block, "B4") for trial in shown]
            assert sum(is_shown) == 8
            expected.append(score_block(betas, blocks, block)[is_shown])
        recording = stored(home, "nsd-imagery", split)
        trials = read_trials(recording, "B-B4")
        np.testing.assert_allclose(trials, np.concatenate(expected), atol=1e-4)
        assert len(recording.pictures) == 18
        is_picture = np.array(recording.image_ids) == "B-B4"
        numbers = np.repeat([RUNS.index(block) + 1 for block in runs], 8)
        assert recording.runs[is_picture].tolist() == numbers.tolist()


@pytest.mark.nightly
def test_an_nsd_model_is_tested_on_seen_and_imagined_pictures(
    home, imagery, run_command, code_allowed
):
    root = home / "data/nsd"
    with h5py.File(root / "nsd_stimuli.hdf5", "w") as file:
        pixels = np.random.default_rng(29).integers(0, 255, (73000, 1, 1, 3), np.uint8)
        file["imgBrick"] = pixels
    prepare("nsd", "preparation.sessions=1")
    test_ids = set(stored(home, "nsd", "test").image_ids)
    # rows of the table are counted from 0, and names from 1
    rows = []
    for name in sorted(test_ids | set(stored(home, "nsd", "train").image_ids)):
        rows.append([int(name[3:]) - 1, name in test_ids, 1])
    columns = "nsdId,shared1000,subject1_rep0"
    write_table(root / "nsd_stim_info_merged.csv", columns, rows)
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
        (name,) = (name for name in result.metrics.items if "backward" not in name)
        items = result.metrics.items[name]
        assert sorted(name[2:] for name in items["image_ids"]) == names
        assert len(set(items["units"])) == len(names)
        # by the layer of the subject, who is no stranger
        assert "zero-shot" not in result.tables[0].title


def test_pictures_that_are_not_here_are_listed_by_split(home):
    dataset = parts.resolve("datasets", "bold5000").build(Paths())
    for split in dataset.splits:
        (absent,) = dataset.files(split, ())
        assert absent.is_missing
        assert split in absent.name
