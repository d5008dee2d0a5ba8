"""Single-trial betas of BOLD in BIDS, with the irregularities of a lab's data."""

import json
import re
import shutil
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("nibabel")

import nibabel

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.fmri.bids_bold import find_onset_unit
from brainhive_cli.data.preparations import bold
from brainhive_cli.data.preparations.bold import Bold, Config
from brainhive_cli.data.stores.signal_store import SignalStore

RECOVERED = 0.77
"""Correlation with the true betas in each run: .80; without StartTime .68 to .80, with
one TR for all 0.
"""
TESTED = ["plants/fern_01.jpg", "plants/oak_01.jpg"]
RUN = "sub-01/ses-01/func/sub-01_ses-01_task-images_run-01"
OTHER_RUN = "sub-01/ses-02/func/sub-01_ses-02_task-images_run-2"


@pytest.fixture(scope="session")
def mini_bids(golden):
    spec = spec_from_file_location("mini_bids", golden / "bold/mini_bids.py")
    assert spec
    assert spec.loader
    module = sys.modules["mini_bids"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def written_dataset(mini_bids, tmp_path_factory):
    """A data set that no test changes, with its truth."""
    folder = tmp_path_factory.mktemp("mini_bids")
    return folder, mini_bids.write_bids(folder)


@pytest.fixture
def data(home, written_dataset, mini_bids):
    """A copy of the data set, with pictures of which two are test pictures."""
    shutil.copytree(written_dataset[0], home / "data/bids")
    for number, name in enumerate(mini_bids.PICTURES):
        path = home / "data/image-folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    (home / "test.txt").write_text("\n".join(TESTED))
    return home / "data/bids"


def build(estimator="lsa", **keys):
    stimuli = {"kind": "image-folder", "test_list": "test.txt"}
    return Config(estimator=estimator, stimuli=stimuli, **keys).build(Paths())


def derived(data, name):
    return data / "derivatives/fmriprep" / name


def remove_key(path, key):
    """Remove a key of a JSON file."""
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))


def add_events(path, onsets_s):
    """Add events of a test picture to a table of onset, duration, type and file."""
    lines = [f"{onset}\t2.0\tpicture\timages/{TESTED[0]}\tn/a\n" for onset in onsets_s]
    path.write_text(path.read_text() + "".join(lines))


def correlate(values, truth):
    """Correlate betas [n, V] over trials, on average over voxels that were recorded."""
    varies = np.ptp(values, axis=0) > 0
    pairs = zip(values.T[varies], truth[varies], strict=True)
    return np.mean([np.corrcoef(pair)[0, 1] for pair in pairs])


def test_betas_of_each_run_correlate_with_the_true_betas(
    data, written_dataset, recorded
):
    prepared = build(hrf="spm")
    correlations, numbers = {}, {}
    for subject in (1, 2):
        for session in (1, 2):
            trials = prepared.list_trials(subject, session)
            values = prepared.read_betas(subject, session)[0]
            for run in np.unique(trials.runs).tolist():
                key = (f"sub-{subject:02d}", f"ses-{session:02d}", run)
                rows = np.flatnonzero(trials.runs == run)
                truth = written_dataset[1][key]
                assert [trials.image_ids[row] for row in rows] == truth["ids"]
                correlations[key] = correlate(values[rows], truth["betas"])
            train = prepared.session(subject, session)["train"]
            numbers[f"subject {subject}, session {session}"] = {
                "signal": train.signal,
                "onset_s": train.onset_s,
                "r2": train.space.maps["r2"],
                "tsnr": train.space.maps["tsnr"],
            }
    assert correlations.keys() == written_dataset[1].keys()
    assert min(correlations.values()) > RECOVERED, correlations
    recorded(digits=5, **numbers)


def test_unusual_events_and_confounds_are_counted(data):
    prepared = build()
    zero = "confounds that are zero throughout, left out"  # rot_z
    blank = "events without stim_file (trial_type {})"
    late = "pictures that begin after the end of the run"
    dropped = {blank.format("blank"): 6, blank.format("response"): 2, late: 1}
    assert prepared.list_trials(1, 1).dropped == dropped
    session = prepared.session(1, 1)
    assert session["train"].provenance["dropped"] == dropped
    assert session["test"].provenance["dropped"] == {}
    assert session["train"].provenance["noted"] == {zero: 2}
    assert prepared.list_trials(1, 2).noted == {zero: 2}
    dropped = {blank.format("0"): 3, blank.format("99"): 1}
    assert prepared.list_trials(2, 2).dropped == dropped
    assert prepared.list_trials(2, 2).noted == {zero: 1}

    facts = prepared.list_trials(1, 2).provenance
    assert (facts["stimulus_s"], facts["repeated"]) == (2, 10)
    timing = {"tr_s": 1.6, "start_s": 0.8, "volumes": 125, "source": "StartTime"}
    assert facts["timing"][1] == timing


def test_the_overview_lists_runs_models_and_voxels(data):
    overview = build().look_over([1, 2])
    warning = "subject 1, session 1–2: 4 confounds that are zero throughout, left out"
    assert warning in overview.warnings
    trials, models, voxels, *_ = (table.rows for table in overview.tables)
    # subject, session, runs, trials of train and test, pictures, nuisance regressors
    assert trials == (
        (1, 1, 2, 40, 8, 12, 36),
        (1, 2, 2, 40, 8, 12, 36),
        (2, 1, 2, 40, 8, 12, 36),
        (2, 2, 1, 20, 4, 12, 12),
    )
    assert models[1] == (1, 2, "1.6, 2", "0.8, 1", "StartTime", "6", "2", 10)
    assert models[3][-1] == 0  # without a second run, no picture is repeated
    assert voxels[0] == (1, 112, "1: cuneus (112)")


@pytest.mark.parametrize(
    ("column", "template"),
    [("stimulus_id", ""), ("number", "stim-{task}{number:03d}")],
)
def test_ids_of_a_stimuli_tsv_name_the_same_pictures(data, mini_bids, column, template):
    expected = build().list_trials(1, 1)
    files = [f"images/{name}" for name in mini_bids.PICTURES]
    for path in data.rglob("*_events.tsv"):
        text = path.read_text().replace("stim_file", column)
        for number, file in enumerate(files):
            stimulus_id = number if template else f"stim-images{number:03d}"
            stem = re.escape(file.rpartition(".")[0])
            text = re.sub(rf"{stem}\.\w+", str(stimulus_id), text)
        path.write_text(text)
    table = data / "stimuli/stimuli.tsv"
    lines = ["stimulus_id\tfilename\tpresent"]
    for number, file in enumerate(files):
        lines.append(f"stim-images{number:03d}\t{file}\ttrue")
    table.write_text("\n".join(lines))

    prepared = build(stimulus=template)
    trials = prepared.list_trials(1, 1)
    assert trials.image_ids == expected.image_ids
    assert any(trials.image_ids)
    assert trials.splits.tolist() == expected.splits.tolist()
    assert table in prepared.files(1)
    assert not trials.unmatched

    # a picture that is not distributed
    lines[1] = "stim-images000\tgone/0.jpg\tfalse"
    table.write_text("\n".join(lines))
    unmatched = build(stimulus=template).list_trials(1, 1).unmatched
    assert unmatched == ["gone/0.jpg (present: false)"]


def test_a_template_of_unknown_columns_is_refused(data):
    with pytest.raises(MissingData, match=r"\bnothing\b") as raised:
        build(stimulus="stim-{nothing}").subjects  # noqa: B018
    assert "of onset, duration, trial_type, stim_file" in raised.value.hint


def test_sidecars_are_inherited_by_key_and_agree_with_the_header(data):
    derivative = f"{OTHER_RUN}_space-T1w_desc-preproc_bold.json"
    remove_key(derived(data, derivative), "RepetitionTime")
    timing = build().list_trials(1, 2).provenance["timing"][1]
    assert timing["tr_s"] == 1.6  # of the raw run
    remove_key(data / f"{OTHER_RUN}_bold.json", "RepetitionTime")
    with pytest.raises(BrainhiveError, match=r"\b1\.6 s.*\b2 s"):
        build().list_trials(1, 2)
    remove_key(data / "task-images_bold.json", "RepetitionTime")
    with pytest.raises(BrainhiveError, match="RepetitionTime") as raised:
        build().list_trials(1, 2)
    assert "run-2_space-T1w_desc-preproc_bold.json" in raised.value.hint


def test_pictures_whose_response_peaks_outside_are_left_out(data):
    """Runs take 200 s, and a response peaks 6 s after its picture.

    A picture is modelled if its response changes the first or last volumes.
    """
    expected = build().list_trials(1, 1)
    add_events(data / f"{RUN}_events.tsv", (-30, -6.1, -6, 194, 194.1, 199, "n/a"))

    trials = build().list_trials(1, 1)

    assert len(trials.image_ids) == len(expected.image_ids) + 4
    # -6 and 194
    assert (trials.splits == "test").sum() == (expected.splits == "test").sum() + 2
    assert trials.dropped[bold.PEAK_OUTSIDE] == 4
    assert trials.dropped["events of pictures without an onset"] == 1
    assert np.isfinite(build().read_betas(1, 1)[0]).all()


@pytest.mark.parametrize(
    ("step", "tr_s", "unit"),
    [
        (8, 2, "s"),
        (3.5, 2, "s"),  # the second half of the run shows nothing
        (8, 1, "s"),
        (16, 2, "s"),  # the run was cut short
        (8000, 2, "ms"),
        (8000, 0.8, "ms"),
        (80000, 2, "s"),  # nothing fits
        (8, 0.8, "s"),  # whole seconds also fit as volumes
        (4, 2, ""),  # whole volumes or seconds
        (10, 0.8, ""),
        (20, 0.4, ""),  # only volumes fit
    ],
)
def test_onsets_are_in_seconds_unless_another_unit_fits_better(step, tr_s, unit):
    pictures = [(step * number, tr_s, 160.0) for number in range(1, 17)]
    if unit:
        assert find_onset_unit(pictures, "session 1") == unit
        return
    problem = r"session 1.*in s, or in volumes"
    with pytest.raises(BrainhiveError, match=problem) as error:
        find_onset_unit(pictures, "session 1")
    assert "preparation.onset_unit" in error.value.hint


@pytest.mark.parametrize(("unit", "size_s"), [("ms", 1e-3), ("volumes", 2.0)])
def test_onsets_and_durations_are_read_in_their_unit(data, unit, size_s):
    expected = build().list_trials(1, 1)
    for path in (data / "sub-01/ses-01/func").glob("*_events.tsv"):
        header, *lines = path.read_text().splitlines()
        rows = [line.split("\t") for line in lines if "\tpicture\t" in line]
        for row in rows:
            row[:2] = [str(float(row[0]) / size_s), str(2 / size_s)]
        path.write_text("\n".join([header] + ["\t".join(row) for row in rows]) + "\n")
    trials = build(onset_unit=unit).list_trials(1, 1)
    np.testing.assert_allclose(trials.onset_s, expected.onset_s)
    assert trials.provenance["stimulus_s"] == 2
    noted = trials.noted[f"pictures whose onsets are in {unit}"]
    assert noted == len(trials.image_ids) + trials.dropped[bold.AFTER_END]


def test_infinite_durations_are_refused(data):
    for path in (data / "sub-01/ses-01/func").glob("*_events.tsv"):
        path.write_text(path.read_text().replace("\t2.0\t", "\tinf\t"))
    with pytest.raises(BrainhiveError) as caught:
        build().list_trials(1, 1)
    assert "preparation.stimulus_s" in caught.value.hint


def test_voxels_lie_in_the_masks_of_all_sessions(data, mini_bids):
    path = derived(data, f"{OTHER_RUN}_space-T1w_desc-brain_mask.nii.gz")
    mask = mini_bids.brain_mask()
    voxels = np.argwhere(mask)
    mask[tuple(voxels[3])] = False
    mini_bids.save(path, mask.astype(np.uint8))
    prepared = build()
    assert prepared.count_voxels(1) == len(voxels) - 1
    assert prepared.count_voxels(2) == len(voxels)
    indices = prepared.load_voxels(1).grid.indices
    np.testing.assert_array_equal(indices, np.delete(voxels, 3, axis=0))
    assert prepared.read_betas(1, 1)[0].shape == (48, len(voxels) - 1)
    # the mask that costs a voxel is named
    (line,) = (x for x in prepared.look_over([1, 2]).warnings if "voxels" in x)
    assert line.startswith("1 voxels")
    assert path.name in line

    path.unlink()
    with pytest.raises(MissingData, match=r"desc-brain_mask.*bold\.nii\.gz"):
        build().count_voxels(1)


def test_masks_and_regions_may_be_those_of_the_lab(data, mini_bids):
    mini_bids.save(data / "masks/sub-1.nii.gz", np.ones(mini_bids.SHAPE, np.uint8))
    region = np.zeros(mini_bids.SHAPE, np.uint8)
    region[:4] = 1
    mini_bids.save(data / "rois/sub-01_V1.nii.gz", region)
    prepared = build(
        mask="data/bids/masks/sub-{subject}.nii.gz",
        regions={"V1": "rois/sub-{subject:02d}_V1.nii.gz"},
    )
    assert prepared.count_voxels(1) == region.size
    assert prepared.load_voxels(1).regions["V1"].sum() == region.sum()
    assert data / "rois/sub-01_V1.nii.gz" in prepared.files(1)


def test_maps_lie_on_the_anatomy_or_else_on_the_mean_bold(data, mini_bids, home):
    mean_bold = build().load_voxels(1).underlay
    assert mean_bold.source == "mean BOLD"
    assert mean_bold.values.shape == mini_bids.SHAPE

    anatomy = data / "derivatives/fmriprep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz"
    anatomy.parent.mkdir()
    mini_bids.save(anatomy, np.ones((4, 4, 4), np.uint8))
    mask = anatomy.with_name("sub-01_desc-brain_mask.nii.gz")
    # without a mask of the brain, the face would be shown
    assert build().load_voxels(1).underlay.source == "mean BOLD"
    mini_bids.save(mask, np.ones((4, 4, 4), np.uint8))
    preparation = build()
    assert preparation.load_voxels(1).underlay.source == "T1w"
    assert {anatomy, mask} <= set(preparation.files(1))


def write_cifti(path, left, right, tr_s):
    """Write series [v, T] of vertices, and of a voxel of the thalamus."""
    axis = nibabel.cifti2.BrainModelAxis.from_mask
    models = axis(np.ones(len(left)), "CortexLeft")
    models += axis(np.ones(len(right)), "CortexRight")
    models += axis(np.ones((1, 1, 1)), "ThalamusLeft", np.eye(4))
    values = np.concatenate([left, right, np.full((1, left.shape[1]), 7)]).T
    rows = nibabel.cifti2.SeriesAxis(0, tr_s, len(values))
    nibabel.save(nibabel.Cifti2Image(values.astype(np.float32), (rows, models)), path)


def write_gifti(path, values, is_one_array):
    """Write a series [v, T] as an array a volume, or as a single array (nilearn)."""
    arrays = [np.ascontiguousarray(values)] if is_one_array else values.T
    darrays = [nibabel.gifti.GiftiDataArray(array) for array in arrays]
    nibabel.save(nibabel.gifti.GiftiImage(darrays=darrays), path)


@pytest.mark.parametrize("space", ["fsaverage6", "fsLR_den-91k"])
def test_surfaces_give_the_betas_of_volumes(data, mini_bids, space):
    """Every second voxel is a left vertex, and the others are right vertices."""
    expected = build().read_betas(1, 2)[0]
    provenance = build().list_trials(1, 2).provenance
    volume = "space-T1w_desc-preproc_bold"
    for path in sorted(data.rglob(f"*_{volume}.nii.gz")):
        # [V, T]
        series = np.asarray(nibabel.load(path).dataobj)[mini_bids.brain_mask()]
        series = series.astype(np.float32)
        sidecar = path.with_name(path.name.replace("nii.gz", "json"))
        stem = str(path).removesuffix(".nii.gz")
        if space == "fsLR_den-91k":
            stem = stem.replace(volume, f"space-{space}_bold")
            tr_s = json.loads(sidecar.read_text())["RepetitionTime"]
            path = Path(f"{stem}.dtseries.nii")
            write_cifti(path, series[::2], series[1::2], tr_s)
            shutil.copy(sidecar, f"{stem}.json")
            continue
        for hemisphere, values in (("L", series[::2]), ("R", series[1::2])):
            name = stem.replace(volume, f"hemi-{hemisphere}_space-{space}_bold")
            write_gifti(Path(f"{name}.func.gii"), values, "run-2" in name)
            shutil.copy(sidecar, f"{name}.json")

    prepared = build(space=space.partition("_")[0])

    values = prepared.read_betas(1, 2)[0]
    both_sides = np.concatenate([expected[:, ::2], expected[:, 1::2]], 1)
    np.testing.assert_allclose(values, both_sides, rtol=1e-5)
    voxels = prepared.load_voxels(1)
    assert voxels.grid is None
    assert np.flatnonzero(voxels.regions["left"]).tolist() == list(range(56))
    assert np.flatnonzero(voxels.regions["right"]).tolist() == list(range(56, 112))
    assert voxels.surface.sizes == (56, 56)
    # hemisphere and vertex of each row
    vertices = [[0, vertex] for vertex in range(56)]
    vertices += [[1, vertex] for vertex in range(56)]
    np.testing.assert_array_equal(voxels.surface.vertices, vertices)
    assert prepared.list_trials(1, 2).provenance == provenance


def test_missing_files_are_named_with_a_hint(data, home):
    with pytest.raises(MissingData, match=r"subject 1 .*session 3") as raised:
        build(sessions=[1, 3]).sessions(1)
    assert raised.value.hint.endswith("preparation.sessions=1,2")
    with pytest.raises(MissingData, match=r"events\.tsv .*\bpicture\b") as raised:
        build(stimulus="picture").subjects  # noqa: B018
    assert "of onset, duration, trial_type, stim_file" in raised.value.hint
    shutil.rmtree(derived(data, ""))
    with pytest.raises(MissingData, match=r"derivatives/fmriprep") as raised:
        build().subjects  # noqa: B018
    assert "--output-spaces T1w" in raised.value.hint
    shutil.rmtree(data)
    with pytest.raises(MissingData, match=str(data)) as raised:
        build().subjects  # noqa: B018
    folders = f"{data.parent} && ln -s /FOLDER {data}"
    assert raised.value.hint == f"mkdir -p {folders}  # a BIDS data set"


@pytest.mark.nightly
def test_an_interrupted_command_writes_the_same_bytes(
    data, home, run_command, monkeypatch
):
    overrides = [
        "preparation.kind=bold",
        "preparation.estimator=hrf",
        "preparation.stimuli.test_list=test.txt",
    ]
    run_command("prepare", *overrides)
    read_betas = Bold.read_betas
    sessions = []

    def interrupt(self, subject, session):
        if session == 2:
            raise KeyboardInterrupt
        return read_betas(self, subject, session)

    def note_session(self, subject, session):
        sessions.append((subject, session))
        return read_betas(self, subject, session)

    monkeypatch.setattr(Bold, "read_betas", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_command("prepare", *overrides, "name=again")
    monkeypatch.setattr(Bold, "read_betas", note_session)
    run_command("prepare", *overrides, "name=again")

    assert (1, 1) not in sessions
    assert (1, 2) in sessions
    folder = home / "signals/image-folder"
    for name in ("sub-01.h5", "sub-02.h5"):
        content = (folder / "again" / name).read_bytes()
        assert content == (folder / "default" / name).read_bytes()

    stored = SignalStore.open(folder / "default/sub-01.h5").splits
    assert set(stored) == {"train", "test"}
    assert set(stored["test"].image_ids) == {"plants/fern_01", "plants/oak_01"}
    voxels = stored["train"].provenance["voxels"]
    # one out of view in a run, one constant
    assert voxels["constant_or_missing_in_a_session"] == 2
    assert {"r2", "tsnr", "hrf_index"} <= stored["train"].space.maps.keys()
    assert stored["train"].signal.shape[1] == voxels["kept"] == voxels["read"] - 2


def test_repetitions_of_test_pictures_choose_nothing(data, monkeypatch):
    """To the estimator, each trial of a test picture is a picture of its own."""
    runs = []
    monkeypatch.setattr(bold, "estimate_trials", lambda given, *_: runs.extend(given))
    build("denoised").read_betas(1, 1)

    numbers = np.concatenate([run.stimuli for run in runs])
    is_test = build("denoised").list_trials(1, 1).splits == "test"
    counts = np.array([(numbers == number).sum() for number in numbers])
    assert is_test.sum() == 8
    assert (counts[is_test] == 1).all()
    assert (counts[~is_test] == 4).all()


def test_a_run_without_events_is_counted_and_named(data):
    (data / f"{RUN}_events.tsv").unlink()
    (line,) = (x for x in build().look_over([1]).warnings if "run-01" in x)
    assert line.startswith("1 runs")


def rename_derivatives(data, old_text, new_text):
    for path in sorted(data.rglob(f"sub-*{old_text}*")):
        path.rename(path.with_name(path.name.replace(old_text, new_text)))


def test_bold_without_a_space_is_read_with_a_note(data):
    expected = build().read_betas(1, 1)[0]
    rename_derivatives(derived(data, ""), "_space-T1w", "")
    prepared = build()
    np.testing.assert_array_equal(prepared.read_betas(1, 1)[0], expected)
    assert bold.OWN_GRID in prepared.look_over([1]).warnings
    assert prepared.load_voxels(1).underlay.source == "mean BOLD"


@pytest.mark.parametrize("kind", ["desc-denoised_bold", "desc-coreg_boldref"])
def test_other_derivatives_are_named(data, kind):
    rename_derivatives(derived(data, ""), "desc-preproc_bold", kind)
    with pytest.raises(MissingData, match=kind[5:].replace("_", " ")) as raised:
        build().subjects  # noqa: B018
    assert "--level full" in raised.value.hint


def test_a_folder_of_derivatives_below_the_named_one_is_the_hint(data):
    nested = derived(data, "fmriprep")
    nested.mkdir()
    for path in derived(data, "").glob("sub-*"):
        path.rename(nested / path.name)
    with pytest.raises(MissingData) as raised:
        build().subjects  # noqa: B018
    assert raised.value.hint == f"preparation.derivatives={nested}"


@pytest.mark.parametrize("folder", ["", "derivatives/fmriprep"])
def test_people_without_bold_that_is_read_need_a_yes(data, folder):
    subjects = build().subjects
    build().look_over(subjects).account.require()
    (data / folder / "sub-09/ses-01/func").mkdir(parents=True)
    with pytest.raises(BrainhiveError, match="sub-09"):
        build().look_over(subjects).account.require()
    if len(subjects) > 1:  # whom `subjects` leaves out needs none
        build().look_over(subjects[:1]).account.require()


def test_bold_of_two_tasks_needs_a_choice(data):
    for folder in (data, derived(data, "")):
        for path in list(folder.rglob("sub-*/**/*_task-images_*")):
            shutil.copy(path, path.with_name(path.name.replace("images", "rest")))

    with pytest.raises(MissingData, match="BOLD of several tasks") as caught:
        build().sessions(1)

    assert caught.value.hint == "choose one: preparation.task=images or rest"
    assert build(task="images").sessions(1)
