"""Single-trial betas of BOLD in BIDS, with the irregularities of a lab's data."""

import json
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
from tests.tools.trial_numbers import (
    numbers_in,
    numbers_of_preparation,
    numbers_of_space,
)

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
    assert spec and spec.loader
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


def edit_json(path, **changes):
    """Change keys of a JSON file. A key that becomes None is removed."""
    content = {**(json.loads(path.read_text()) if path.is_file() else {}), **changes}
    path.write_text(
        json.dumps({key: value for key, value in content.items() if value is not None})
    )


def edit_table(path, edit):
    """Change the lines of a table, given as lists of cells, below its header."""
    header, *lines = path.read_text().splitlines()
    edited = edit([line.split("\t") for line in lines])
    path.write_text(
        "\n".join([header] + ["\t".join(map(str, cells)) for cells in edited]) + "\n"
    )


def correlate(values, truth):
    """Correlate betas [n, V] over trials, on average over voxels that were recorded."""
    varies = np.ptp(values, axis=0) > 0
    pairs = zip(values.T[varies], truth[varies], strict=True)
    return np.mean(
        [np.corrcoef(column, true_column)[0, 1] for column, true_column in pairs]
    )


def test_betas_of_each_run_correlate_with_the_true_betas(
    data, written_dataset, recorded
):
    prepared = build(hrf="spm")
    correlations = {}
    for subject in prepared.subjects:
        for session in prepared.sessions(subject):
            trials, values = (
                prepared.list_trials(subject, session),
                prepared.read_betas(subject, session)[0],
            )
            for run_number in np.unique(trials.runs).tolist():
                key = (f"sub-{subject:02d}", f"ses-{session:02d}", run_number)
                rows, truth = trials.runs == run_number, written_dataset[1][key]
                image_ids = [trials.image_ids[row] for row in np.flatnonzero(rows)]
                assert image_ids == truth["ids"]
                correlations[key] = correlate(values[rows], truth["betas"])
    assert correlations.keys() == written_dataset[1].keys()
    assert min(correlations.values()) > RECOVERED, correlations
    recorded(digits=5, **numbers_of_preparation(prepared))


def test_unusual_events_and_confounds_are_counted(data, recorded):
    prepared = build()
    zero = {"confounds that are zero throughout, left out": 2}  # rot_z
    first_run, second, last_run = (
        prepared.list_trials(*session_and_run)
        for session_and_run in ((1, 1), (1, 2), (2, 2))
    )
    assert first_run.dropped == {
        "events without stim_file (trial_type blank)": 6,
        "events without stim_file (trial_type response)": 2,
        "pictures that begin after the end of the run": 1,
    }
    assert first_run.noted == zero
    assert second.noted == zero
    assert last_run.dropped == {
        "events without stim_file (trial_type 0)": 3,
        "events without stim_file (trial_type 99)": 1,
    }
    assert last_run.noted == {"confounds that are zero throughout, left out": 1}
    overview = prepared.look_over([1, 2])
    assert (
        "subject 1, session 1–2: 4 confounds that are zero throughout, left out"
        in overview.warnings
    )
    models = {row[:2]: row[2:] for row in overview.tables[1].rows}
    # and two test pictures
    assert models[1, 2] == ("1.6, 2", "0.8, 1", "StartTime", "6", "2", 10)
    assert models[2, 2][-1] == 0  # no second run
    assert overview.tables[0].rows[0] == (1, 1, 2, 40, 8, 12, 36)
    assert overview.tables[2].rows[0] == (1, 112, "1: cuneus (112)")
    recorded(
        facts=[
            numbers_in(run_facts.provenance)
            for run_facts in (first_run, second, last_run)
        ],
        tables=[table.rows for table in overview.tables],
    )


@pytest.mark.parametrize(
    ("column", "template"),
    [("stimulus_id", ""), ("number", "stim-{task}{number:03d}")],
)
def test_ids_of_a_stimuli_tsv_name_the_same_pictures(data, mini_bids, column, template):
    expected = build().list_trials(1, 1)
    files = [f"images/{name}" for name in mini_bids.PICTURES]
    stems = [file.rpartition(".")[0] for file in files]
    for path in data.rglob("*_events.tsv"):
        header, *lines = [line.split("\t") for line in path.read_text().splitlines()]
        index = header.index("stim_file")
        header[index] = column
        for cells in lines:
            if cells[index] != "n/a":
                number = stems.index(cells[index].rpartition(".")[0])
                cells[index] = str(number) if template else f"stim-images{number:03d}"
        path.write_text(
            "".join("\t".join(cells) + "\n" for cells in [header] + list(lines))
        )

    def write_stimuli(missing_ids=()):
        """Write a stimuli.tsv that says of some numbers that they are not present."""
        rows = [
            f"stim-images{n:03d}\t{f'gone/{n}.jpg' if n in missing_ids else file}"
            f"\t{str(n not in missing_ids).lower()}\n"
            for n, file in enumerate(files)
        ]
        table = data / "stimuli/stimuli.tsv"
        table.write_text("stimulus_id\tfilename\tpresent\n" + "".join(rows))
        return table

    table, prepared = write_stimuli(), build(stimulus=template)
    trials = prepared.list_trials(1, 1)
    assert trials.image_ids == expected.image_ids and any(trials.image_ids)
    assert trials.splits.tolist() == expected.splits.tolist()
    assert table in prepared.files(1) and not trials.unmatched

    # a picture that is not distributed, and a template that fits no table
    write_stimuli(missing_ids=[0])
    unmatched = build(stimulus=template).list_trials(1, 1).unmatched
    assert unmatched == ["gone/0.jpg (present: false)"]
    with pytest.raises(MissingData, match=r"\bnothing\b") as raised:
        build(stimulus="stim-{nothing}").subjects  # noqa: B018
    assert f"of onset, duration, trial_type, {column}" in raised.value.hint


def test_sidecars_are_inherited_by_key_and_agree_with_the_header(data):
    sidecar = derived(data, f"{OTHER_RUN}_space-T1w_desc-preproc_bold.json")
    edit_json(sidecar, RepetitionTime=None)
    assert (
        build().list_trials(1, 2).provenance["timing"][1]["tr_s"] == 1.6
    )  # of the raw run
    edit_json(data / f"{OTHER_RUN}_bold.json", RepetitionTime=None)
    with pytest.raises(BrainhiveError, match=r"\b1\.6 s.*\b2 s"):
        build().list_trials(1, 2)
    edit_json(data / "task-images_bold.json", RepetitionTime=None)
    with pytest.raises(BrainhiveError, match="RepetitionTime") as raised:
        build().list_trials(1, 2)
    assert "run-2_space-T1w_desc-preproc_bold.json" in raised.value.hint


def test_pictures_whose_response_peaks_outside_are_left_out(
    data,
):
    """A late picture is modelled if its response changes the last volumes."""
    path = data / f"{RUN}_events.tsv"
    expected = build().list_trials(1, 1)
    extra_events = [
        [onset_s, 2.0, "picture", f"images/{TESTED[0]}", "n/a"]
        for onset_s in (-30, -8, -4, 193, 195, 199, "n/a")
    ]
    edit_table(path, lambda rows: list(rows) + list(extra_events))
    trials = build().list_trials(1, 1)
    assert len(trials.image_ids) == len(expected.image_ids) + 4  # -8, -4, 193 and 195
    # -4 and 193
    assert (trials.splits == "test").sum() == (expected.splits == "test").sum() + 2
    assert trials.dropped[bold.PEAK_OUTSIDE] == 4  # -30, -8, 195 and 199
    assert trials.dropped["events of pictures without an onset"] == 1
    assert np.isfinite(build().read_betas(1, 1)[0]).all()


@pytest.mark.parametrize("number", [-6, 194])
def test_a_response_may_peak_at_the_start_or_end_of_a_run(data, number):
    """Runs take 200 s; a response peaks 6 s after its picture."""
    path, expected = data / f"{RUN}_events.tsv", build().list_trials(1, 1)
    inwards = 0.1 if number < 0 else -0.1
    extra_events = [
        [onset, 2.0, "picture", f"images/{TESTED[0]}", "n/a"]
        for onset in (number, number + inwards, number - inwards)
    ]
    edit_table(path, lambda rows: list(rows) + list(extra_events))

    trials = build().list_trials(1, 1)

    assert (trials.splits == "test").sum() == (expected.splits == "test").sum() + 2
    assert trials.dropped[bold.PEAK_OUTSIDE] == 1


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
    with pytest.raises(
        BrainhiveError, match=r"session 1.*in s, or in volumes"
    ) as error:
        find_onset_unit(pictures, "session 1")
    assert "preparation.onset_unit" in error.value.hint


@pytest.mark.parametrize(("unit", "size_s"), [("ms", 1e-3), ("volumes", 2.0)])
def test_onsets_and_durations_are_read_in_their_unit(data, unit, size_s):
    expected = build().list_trials(1, 1)
    for path in (data / "sub-01/ses-01/func").glob("*_events.tsv"):
        edit_table(
            path,
            lambda rows: [
                ([float(row[0]) / size_s, 2 / size_s] + list(row[2:]))
                for row in rows
                if row[2] == "picture"
            ],
        )
    trials = build(onset_unit=unit).list_trials(1, 1)
    np.testing.assert_allclose(trials.onset_s, expected.onset_s)
    assert trials.provenance["stimulus_s"] == 2
    noted = trials.noted[f"pictures whose onsets are in {unit}"]
    assert noted == len(trials.image_ids) + trials.dropped[bold.AFTER_END]


def test_infinite_durations_are_refused(data):
    for path in (data / "sub-01/ses-01/func").glob("*_events.tsv"):
        edit_table(
            path, lambda rows: [([row[0], "inf"] + list(row[2:])) for row in rows]
        )
    with pytest.raises(BrainhiveError) as caught:
        build().list_trials(1, 1)
    assert "preparation.stimulus_s" in caught.value.hint


def test_voxels_lie_in_the_masks_of_all_sessions(data, mini_bids):
    path = derived(data, f"{OTHER_RUN}_space-T1w_desc-brain_mask.nii.gz")
    mask = mini_bids.brain_mask()
    argwhere = np.argwhere(mask)
    mask[tuple(argwhere[3])] = False
    mini_bids.save(path, mask.astype(np.uint8))
    prepared = build()
    assert prepared.count_voxels(1) == len(argwhere) - 1 and prepared.count_voxels(
        2
    ) == len(argwhere)
    np.testing.assert_array_equal(
        prepared.load_voxels(1).grid.indices, np.delete(argwhere, 3, axis=0)
    )
    assert prepared.read_betas(1, 1)[0].shape == (48, len(argwhere) - 1)
    # the mask that costs a voxel is named
    lines = [line for line in prepared.look_over([1, 2]).warnings if "voxels" in line]
    assert len(lines) == 1 and path.name in lines[0]
    assert lines[0].startswith("1 voxels")
    path.unlink()
    with pytest.raises(MissingData, match=r"desc-brain_mask.*bold\.nii\.gz"):
        build().count_voxels(1)
    # a mask and a region of the lab's own
    mini_bids.save(data / "masks/sub-1.nii.gz", np.ones_like(mask).astype(np.uint8))
    zeros = np.zeros(mini_bids.SHAPE, np.uint8)
    zeros[:4] = 1
    mini_bids.save(data / "rois/sub-01_V1.nii.gz", zeros)
    prepared = build(
        mask="data/bids/masks/sub-{subject}.nii.gz",
        regions={"V1": "rois/sub-{subject:02d}_V1.nii.gz"},
    )
    assert (
        prepared.count_voxels(1) == mask.size
        and prepared.load_voxels(1).regions["V1"].sum() == zeros.sum()
    )
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


def write_surfaces(data, mini_bids, space):
    """Write every second voxel as a left vertex, and the other voxels as right ones."""
    for path in sorted(data.rglob("*_space-T1w_desc-preproc_bold.nii.gz")):
        # [V, T]
        series = np.asarray(nibabel.load(path).dataobj)[mini_bids.brain_mask()].astype(
            np.float32
        )
        sides = {"L": series[::2], "R": series[1::2]}
        document = json.loads(
            path.with_name(path.name.replace("nii.gz", "json")).read_text()
        )
        if space == "fsaverage6":
            for name, values in sides.items():
                new_path = path.with_name(
                    path.name.replace(
                        "space-T1w_desc-preproc", f"hemi-{name}_space-{space}"
                    )
                )
                # an array a volume; of a run a single one, as nilearn writes it
                several_runs = (
                    [np.ascontiguousarray(values)] if "run-2" in path.name else values.T
                )
                arrays = [nibabel.gifti.GiftiDataArray(array) for array in several_runs]
                nibabel.save(
                    nibabel.gifti.GiftiImage(darrays=arrays),
                    str(new_path).replace("nii.gz", "func.gii"),
                )
                Path(str(new_path).replace("nii.gz", "json")).write_text(
                    json.dumps(document)
                )
            continue
        new_path = Path(
            str(path)
            .replace("space-T1w_desc-preproc", f"space-{space}")
            .replace("nii.gz", "dtseries.nii")
        )
        axis = nibabel.cifti2.BrainModelAxis.from_mask
        zeros = np.zeros((2, 2, 2), bool)
        zeros[0, 0, 0] = True
        models = [
            axis(np.ones(len(sides["L"])), "CortexLeft"),
            axis(np.ones(len(sides["R"])), "CortexRight"),
            axis(zeros, "ThalamusLeft", np.eye(4)),
        ]
        rows = nibabel.cifti2.SeriesAxis(0, document["RepetitionTime"], series.shape[1])
        values = np.concatenate(
            list(sides.values()) + [np.full((1, series.shape[1]), 7)]
        ).T
        nibabel.save(
            nibabel.Cifti2Image(
                values.astype(np.float32), (rows, models[0] + models[1] + models[2])
            ),
            new_path,
        )
        Path(str(new_path).replace("dtseries.nii", "json")).write_text(
            json.dumps(document)
        )


def test_surfaces_give_the_betas_of_volumes(data, mini_bids, recorded):
    volumes = build()
    expected, provenance = (
        volumes.read_betas(1, 2)[0],
        volumes.list_trials(1, 2).provenance,
    )
    shape = expected[:, ::2].shape[1]
    for space in ("fsaverage6", "fsLR_den-91k"):
        write_surfaces(data, mini_bids, space)
        prepared = build(space=space.partition("_")[0])
        values = prepared.read_betas(1, 2)[0]
        np.testing.assert_allclose(
            values, np.concatenate([expected[:, ::2], expected[:, 1::2]], 1), rtol=1e-5
        )
        regions = prepared.load_voxels(1).regions
        assert prepared.load_voxels(1).grid is None and regions["left"].sum() == shape
        surface = prepared.load_voxels(1).surface
        assert surface.sizes == (shape, len(values.T) - shape)
        sides = [
            np.column_stack([np.full(size, hemisphere), np.arange(size)])
            for hemisphere, size in enumerate(surface.sizes)
        ]
        np.testing.assert_array_equal(surface.vertices, np.concatenate(sides))
        assert regions["right"][shape:].all()
        assert prepared.list_trials(1, 2).provenance == provenance
    recorded(digits=4, space=numbers_of_space(prepared.load_voxels(1)), values=values)


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
    assert (
        raised.value.hint
        == f"mkdir -p {data.parent} && ln -s /FOLDER {data}  # a BIDS data set"
    )


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
    read_betas, sessions = Bold.read_betas, []

    def interrupt(self, subject, session):
        if session == 2:
            raise KeyboardInterrupt
        return read_betas(self, subject, session)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Bold, "read_betas", interrupt)
        run_command("prepare", *overrides, "name=again")
    monkeypatch.setattr(
        Bold,
        "read_betas",
        lambda *arguments: (sessions.append(arguments[1:]), read_betas(*arguments))[1],
    )
    run_command("prepare", *overrides, "name=again")
    assert (1, 1) not in sessions and (1, 2) in sessions
    folder = home / "signals/image-folder"
    for name in ("sub-01.h5", "sub-02.h5"):
        assert (folder / "again" / name).read_bytes() == (
            folder / "default" / name
        ).read_bytes()

    stored = SignalStore.open(folder / "default/sub-01.h5").splits
    assert set(stored) == {"train", "test"} and set(stored["test"].image_ids) == {
        "plants/fern_01",
        "plants/oak_01",
    }
    voxels = stored["train"].provenance["voxels"]
    # one out of view in a run, one constant
    assert voxels["constant_or_missing_in_a_session"] == 2
    assert {"r2", "tsnr", "hrf_index"} <= stored["train"].space.maps.keys()
    assert stored["train"].signal.shape[1] == voxels["kept"] == voxels["read"] - 2


def test_repetitions_of_test_pictures_choose_nothing(data, monkeypatch):
    chosen_runs = []
    monkeypatch.setattr(
        bold, "estimate_trials", lambda runs, *arguments: chosen_runs.extend(runs)
    )
    assert build("denoised").read_betas(1, 1) is None
    splits = build("denoised").list_trials(1, 1).splits
    numbers, counts = np.unique(
        np.concatenate([chosen_run.stimuli for chosen_run in chosen_runs]),
        return_counts=True,
    )
    is_test = np.isin(
        numbers,
        np.concatenate([chosen_run.stimuli for chosen_run in chosen_runs])[
            splits == "test"
        ],
    )
    assert (
        is_test.sum() == 8
        and (counts[is_test] == 1).all()
        and (counts[~is_test] == 4).all()
    )


def test_a_run_without_events_is_counted_and_named(data):
    (data / f"{RUN}_events.tsv").unlink()
    lines = [line for line in build().look_over([1]).warnings if "run-01" in line]
    assert len(lines) == 1 and lines[0].startswith("1 runs")


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
