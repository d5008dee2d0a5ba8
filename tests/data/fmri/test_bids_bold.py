"""Files of BOLD runs in BIDS."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nibabel")

import nibabel

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.data.files.bids_labels import (
    BidsIndex,
    group_by_session,
    read_entities,
)
from brainhive_cli.data.fmri.bids_bold import (
    BoldRun,
    find_runs,
    read_confounds,
    read_events,
    read_space,
    read_timing,
)
from brainhive_cli.data.recordings.account import Account

FUNC = Path("sub-01/ses-02/func")


def write(path, content=""):
    """Write text, or other content as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def make_run(
    path,
    raw_sidecars=(),
    derived_sidecars=(),
    confounds=None,
):
    """Describe a run with a BOLD file."""
    sidecars = (raw_sidecars, derived_sidecars)
    return BoldRun(1, (path,), path, sidecars, confounds, {}, (path,))


def save_bold(path, volumes, tr_s):
    """Save a volume series whose header has a TR."""
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2, volumes), np.float32), np.eye(4))
    image.header.set_zooms((1, 1, 1, tr_s))
    nibabel.save(image, path)


def test_files_are_known_by_their_entities(tmp_path):
    name = "sub-01_task-x_run-010_space-MNI_res-2_den-9k_desc-preproc_bold.nii.gz"
    for file in (name, "sub-01_bold.json", "._sub-01_bold.json"):
        write(tmp_path / FUNC / file)
    few_entities, many_entities = BidsIndex(tmp_path).list_files(FUNC)
    assert read_space(few_entities) == ""
    assert read_entities(few_entities) == {"sub": "01"}
    assert read_space(many_entities) == "MNI:res-2:den-9k"
    entities = read_entities(many_entities)
    assert (entities["run"], entities["desc"]) == ("010", "preproc")


def test_nearer_files_and_those_of_more_entities_come_last(tmp_path):
    names = [
        "task-x_bold.json",
        "sub-01/sub-01_bold.json",
        "sub-01/ses-02/func/sub-01_task-x_bold.json",
        "sub-01/ses-02/func/sub-01_task-x_run-1_bold.json",
    ]
    other_names = ["task-y_bold.json", "task-x_events.json", "task-x_bold.tsv"]
    other_names += ["sub-01/sub-01_pilot_bold.json", "bold.json"]
    for name in names + other_names:
        write(tmp_path / name)
    bold = FUNC / "sub-01_task-x_run-01_bold.nii.gz"
    inherited = BidsIndex(tmp_path).find_inherited(bold, "_bold.json")
    assert inherited == [tmp_path / name for name in names]


def write_runs(root, *names):
    """Write an events.tsv for each file, and find the runs."""
    for name in names:
        write(root / FUNC / f"sub-01_{name}_bold.nii.gz")
        write(root / FUNC / f"sub-01_{name}_events.tsv")
    index = BidsIndex(root)
    return find_runs(index, index, (root / FUNC).glob("*.gz"), Account())


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (("run-2", "run-10", "run-1"), [1, 2, 10]),
        (("acq-a_run-1", "acq-b_run-1"), [1, 2]),
        (("run-a", "run-bb"), [1, 2]),
        (("task-x",), [1]),
    ],
)
def test_runs_have_the_numbers_of_their_labels(tmp_path, names, numbers):
    runs = write_runs(tmp_path, *names)
    assert [run.number for run in runs] == numbers


def test_labels_of_runs_are_sorted_as_numbers(tmp_path):
    runs = write_runs(tmp_path, "run-2", "run-10", "run-1")
    labels = [run.bold_files[0].name.split("_")[1] for run in runs]
    assert labels == ["run-1", "run-2", "run-10"]


def test_runs_have_their_masks_confounds_and_hemispheres(tmp_path):
    stem = "sub-01_run-1_hemi-L_space-fsaverage"
    write(tmp_path / FUNC / "sub-01_run-1_events.tsv")
    left_surface = write(tmp_path / FUNC / f"{stem}_bold.func.gii")
    without_mask = write(tmp_path / FUNC / "sub-01_run-2_bold.nii.gz")
    table = write(tmp_path / FUNC / "sub-01_run-1_desc-confounds_timeseries.tsv")
    write(tmp_path / "sub-01/sub-01_desc-confounds_timeseries.tsv")
    write(tmp_path / FUNC / "sub-01_run-3_desc-confounds_timeseries.tsv")
    mask = write(tmp_path / FUNC / f"{stem}_desc-brain_mask.nii.gz")
    write(tmp_path / FUNC / "sub-01_run-1_space-T1w_desc-brain_mask.nii.gz")
    account = Account()
    index = BidsIndex(tmp_path)

    (bold_run,) = find_runs(index, index, (left_surface, without_mask), account)

    right = left_surface.name.replace("hemi-L", "hemi-R")
    assert bold_run.bold_files == (left_surface, left_surface.with_name(right))
    assert bold_run.confounds_file == table
    assert bold_run.image_files == {"brain": mask}
    assert list(account.counts.values()) == [1]


def test_two_versions_of_one_run_are_refused(tmp_path):
    names = ["sub-01_run-1_bold.nii.gz", "sub-01_run-2_bold.nii.gz"]
    paths = [tmp_path / FUNC / name for name in names]
    assert group_by_session(tmp_path, paths, {}, None) == {1: {2: paths}}
    for name in (
        "sub-01_rec-b_run-1_bold.nii.gz",
        "sub-01_run-01_echo-2_part-mag_bold.nii.gz",
        "sub-01_run-2_hemi-L_bold.func.gii",
    ):
        version = tmp_path / FUNC / name
        with pytest.raises(BrainhiveError, match=name):
            group_by_session(tmp_path, list(paths) + [version], {}, None)
    folder = tmp_path / "sub-02/func"
    index = BidsIndex(tmp_path)
    with pytest.raises(BrainhiveError, match="sub-02"):
        find_runs(index, index, [folder / "sub-01_run-3_bold.nii.gz"], Account())


@pytest.mark.parametrize(
    ("raw", "derived", "expected"),
    [
        ({"RepetitionTime": 2.0}, {}, (2.0, 0.0)),
        ({"RepetitionTime": 1.5}, {"RepetitionTime": 2.0}, (2.0, 0.0)),
        ({"RepetitionTime": 2}, {"SliceTimingCorrected": True}, (2, 1.0)),
        ({"RepetitionTime": 2, "StartTime": 9}, {"StartTime": 0.7}, (2, 0.7)),
        ({"RepetitionTime": 2.0}, {"StartTime": -1}, None),
        ({"RepetitionTime": 2000}, {}, None),
        ({"RepetitionTime": 0}, {}, None),
        ({"RepetitionTime": 1.99}, {}, None),
        ({"RepetitionTime": True}, {}, None),
        ({}, {}, None),
    ],
)
def test_times_of_volumes_are_those_of_the_sidecars(tmp_path, raw, derived, expected):
    """The header has a TR of 2 s."""
    path = tmp_path / "x_bold.nii"
    save_bold(path, volumes=5, tr_s=2.0)
    farther_sidecar = write(tmp_path / "task-x.json", {"RepetitionTime": 9.0})
    raw_sidecars = (farther_sidecar, write(tmp_path / "raw.json", raw)) if raw else ()
    derived_sidecar = write(tmp_path / "derived.json", derived)
    run = make_run(path, raw_sidecars, (derived_sidecar,))
    if expected is None:
        with pytest.raises(BrainhiveError):
            read_timing(run)
    else:
        assert read_timing(run)[:3] == (5,) + expected


@pytest.mark.parametrize(
    ("header_s", "is_read"), [(0, True), (1, True), (2000, True), (3, False)]
)
def test_a_header_may_know_no_time_or_count_milliseconds(tmp_path, header_s, is_read):
    save_bold(tmp_path / "x_bold.nii", volumes=4, tr_s=header_s)
    sidecar = write(tmp_path / "x.json", {"RepetitionTime": 2})
    run = make_run(tmp_path / "x_bold.nii", (sidecar,))
    if is_read:
        assert read_timing(run) == (4, 2, 0.0, "0")
    else:
        with pytest.raises(BrainhiveError):
            read_timing(run)


EVENTS = """onset\tduration\ttrial_type\tpart\tpicture
7.5\t2\tpicture\t1\tb.png
3\tn/a\tpicture\t01\ta.png
n/a\t2\tpicture\t1.0\tc.png
9\t2\tbutton\t1\tn/a
11\t2\tpicture\t2\td.png
"""


def test_events_are_pictures_in_the_order_of_time(tmp_path):
    path = write(tmp_path / "sub-01_events.tsv", EVENTS)
    pictures, dropped = read_events(path, "picture", {"part": 1}, path)
    rows = [(onset_s, name) for onset_s, _, name, _ in pictures]
    assert rows == [(3.0, "a.png"), (7.5, "b.png")]
    assert np.isnan(pictures[0][1])
    assert pictures[1][1] == 2  # durations
    assert list(dropped.values()) == [1, 1, 1]
    assert len(read_events(path, "picture", {}, path)[0]) == 3
    assert len(read_events(path, "picture", {"part": [2, "1"]}, path)[0]) == 3

    with pytest.raises(BrainhiveError, match="session"):
        read_events(path, "picture", {"session": 1}, path)
    for old_text, new_text in (("7.5\t", "soon\t"), ("7.5\t", "3.0\t")):
        path.write_text(EVENTS.replace(old_text, new_text))
        with pytest.raises(BrainhiveError):
            read_events(path, "picture", {}, path)


CONFOUNDS = """trans_x\ttrans_x_derivative1\tcosine00\tcosine01\tzero\tcsf
1\tn/a\t.5\t1\t0\tn/a
2\t1\t.4\t2\t0\t5
4\t2\t.3\t1\t0\tn/a
"""


def test_confounds_are_columns_by_name_and_pattern(tmp_path):
    table = write(tmp_path / "x_timeseries.tsv", CONFOUNDS)
    run = make_run(tmp_path / "x_bold.nii", confounds=table)
    confounds, noted = read_confounds(run, ["trans_x*", "cosine", "zero"], 3)
    assert {name: values.tolist() for name, values in confounds.items()} == {
        "trans_x": [1, 2, 4],
        "trans_x_derivative1": [0, 1, 2],
        "cosine00": [0.5, 0.4, 0.3],
        "cosine01": [1, 2, 1],
    }
    assert list(noted.values()) == [1, 1]
    assert read_confounds(run, [], 3) == ({}, {})
    assert read_confounds(run, ["non_steady"], 3) == ({}, {})
    for groups, volumes in ((["csf"], 3), (["absent"], 3), (["cosine"], 4)):
        with pytest.raises(BrainhiveError):
            read_confounds(run, groups, volumes)
    with pytest.raises(MissingData):
        read_confounds(make_run(table), ["cosine"], 3)
