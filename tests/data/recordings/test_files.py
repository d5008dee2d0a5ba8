"""Files, tables and labels of recordings."""

import re

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.data.files.bids_labels import describe_labels
from brainhive_cli.data.recordings import (
    EMPTY_CELLS,
    EventNames,
    list_recording_files,
    list_recordings,
    open_raw,
    read_table,
)
from brainhive_cli.data.recordings.files import list_unread_files
from tests.worlds.own_recordings import Presentation, make_raw


@pytest.fixture
def raw():
    """Recording of two channels that fills two files."""
    mne = pytest.importorskip("mne")
    signal = np.random.default_rng(0).normal(scale=1e-6, size=(2, 300_000))
    return mne.io.RawArray(
        signal, mne.create_info(["Cz", "Pz"], 100.0, "eeg"), verbose="ERROR"
    )


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_subject_is_its_label(tmp_path):
    touch(tmp_path, "sub-07A_ses-01_eeg.fif", "sub-07B_ses-01_eeg.fif")
    with pytest.raises(BrainhiveError, match=r"sub-07A.*sub-07B.* 7"):
        list_recordings(tmp_path, "*")
    recordings = list_recordings(tmp_path, "*", {"sub-07B": 8})
    labels = {
        subject: [path.name[4:-15] for path in people[1]]
        for subject, people in recordings.items()
    }
    assert labels == {7: ["07A"], 8: ["07B"]}
    lines = describe_labels(recordings, tmp_path, [7, 8], {"sub-07B": 8, "sub-9": 9})
    assert "sub-9" in lines[-1]
    touch(tmp_path, "sub-anna_ses-01_eeg.fif")
    with pytest.raises(BrainhiveError, match="sub-anna"):
        list_recordings(tmp_path, "*", {"sub-07B": 8})
    # labels are read at the start of an entity
    touch(tmp_path / "other", "sub-02_ses-03_task-session7_subset1_sesame_9.fif")
    assert list(list_recordings(tmp_path / "other", "*")[2]) == [3]


def test_sessions_are_chosen_and_numbered_by_their_labels(tmp_path):
    touch(
        tmp_path,
        *(
            f"sub-01_ses-{label}_eeg.fif"
            for label in ("test1", "train1", "train9", "train10")
        ),
    )
    for sessions, numbers in (
        (["train*", "test*"], {1: "train1", 2: "train9", 3: "train10", 4: "test1"}),
        (["test*", "ses-train9"], {1: "test1", 9: "train9"}),
        ([9], {9: "train9"}),
    ):
        recordings = list_recordings(tmp_path, "*", sessions=sessions)
        assert {
            number: paths[0].name[11:-8] for number, paths in recordings[1].items()
        } == numbers
    for sessions, fact in (
        ([1], r"number 1\b"),
        (["imagery*"], r"imagery\*"),
    ):
        with pytest.raises(BrainhiveError, match=fact):
            list_recordings(tmp_path, "*", sessions=sessions)


def test_two_files_of_one_recording_are_refused(tmp_path):
    touch(
        tmp_path,
        "sub-01_task-a_run-1_eeg.vhdr",
        "sub-01_task-a_run-1_proc-filt_eeg.vhdr",
    )
    with pytest.raises(BrainhiveError, match=r"sub-01_task-a_run-1_eeg\.vhdr") as error:
        list_recordings(tmp_path, "*")
    assert "sub-01_task-a_run-1_proc-filt_eeg.vhdr" in error.value.message
    assert len(list_recordings(tmp_path, "*proc-filt*")[1][1]) == 1
    assert "preparation.files=PATTERN" in error.value.hint
    assert f"{tmp_path}" in error.value.hint


@pytest.mark.parametrize(
    "copy",
    [
        "sub-01/sub-01_ses-01_task-x_run-1_raw.fif",
        "sub-01_ses-01_task-x_run-01_eeg.edf",
        "sub-01_old/ses-01/sub-01_run-1_task-x.vhdr",
        "sub-01/ses-01/run-1/sub-01_task-x_desc-clean_eeg.set",
    ],
)
def test_copies_in_other_folders_and_formats_are_refused(tmp_path, copy):
    first_path = "sub-01/ses-01/sub-01_task-x_run-1_eeg.edf"
    touch(tmp_path, first_path, copy)
    with pytest.raises(BrainhiveError) as error:
        list_recordings(tmp_path, "*")
    assert str(tmp_path / first_path) in error.value.message
    assert str(tmp_path / copy) in error.value.message
    assert f"{tmp_path}" in error.value.hint


@pytest.mark.parametrize(
    "other_path",
    [
        "sub-01/ses-02/sub-01_task-x_run-1_eeg.edf",
        "sub-01/ses-01/sub-01_task-x_run-2_raw.fif",
        "sub-01/ses-01/sub-01_task-x_run-1_part-2_eeg.edf",
        "sub-01/sub-01_ses-01_task-x_run-1_right_left.fif",
    ],
)
def test_recordings_of_different_names_are_listed(tmp_path, other_path):
    first_path = "sub-01/ses-01/sub-01_task-x_run-1_eeg.edf"
    third = "sub-01/ses-01/sub-01_task-x_run-1_left_right.fif"
    touch(tmp_path, first_path, other_path, third)
    (sessions,) = list_recordings(tmp_path, "*").values()
    paths = {path for paths in sessions.values() for path in paths}
    assert paths == {tmp_path / name for name in (first_path, other_path, third)}


def test_a_fif_file_of_something_else_is_no_recording(tmp_path):
    other_files = [
        "sub-01_acq-calibration_meg.fif",
        "sub-01_task-emptyroom_meg.fif",
        "ct_sparse.fif",
    ]
    other_files += (
        "sub-01-epo.fif",
        "sub-01_epo-1.fif",
        "sub-01_trans.fif",
        "sub-01-raw-eve.fif",
    )
    touch(tmp_path, "sub-01_raw.fif", *other_files)
    assert list_recordings(tmp_path, "*") == {1: {1: [tmp_path / "sub-01_raw.fif"]}}
    for name in (
        "sub-01_ave-maria_meg.fif",
        "sub-01_task-epo_eeg.vhdr",
        "sub-01_icarus.fif",
    ):
        touch(tmp_path / name[7:10], name)
        assert list(list_recordings(tmp_path / name[7:10], "*")) == [1]


@pytest.mark.parametrize("naming", ("neuromag", "bids"))
def test_parts_and_tables_are_files_of_a_recording(tmp_path, naming):
    pytest.importorskip("mne")
    raw = make_raw(Presentation.randomize(32, 0), 0)
    raw.save(
        tmp_path / "sub-01_meg.fif",
        split_size="2.5MB",
        split_naming=naming,
        verbose="ERROR",
    )
    parts = sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / "sub-01_events.tsv").write_text("0")
    ((first_file,),) = list_recordings(tmp_path, "*")[1].values()
    names = [path.name for path in list_recording_files(first_file)]
    assert len(parts) == 3
    assert sorted(names[:3]) == parts
    assert names[3:] == ["sub-01_events.tsv"]


def test_a_vhdr_that_names_foreign_files_is_refused(tmp_path, raw):
    pytest.importorskip("pybv")
    for name in ("sub-01.vhdr", "sub-02.vhdr"):
        raw.copy().crop(0, 1).export(tmp_path / name, verbose="ERROR")
    header, key = (tmp_path / "sub-01.vhdr").read_text(), "DataFile"
    (tmp_path / "sub-01.vhdr").write_text(header.replace(f"{key}=", f"{key} : ./"))
    assert open_raw(tmp_path / "sub-01.vhdr").n_times == 101
    (tmp_path / "sub-01.vhdr").write_text(
        re.sub(f"{key}=.*", f"{key}=/etc/passwd", header)
    )
    with pytest.raises(MissingData, match="/etc/passwd"):
        open_raw(tmp_path / "sub-01.vhdr")
    (tmp_path / "sub-01.vhdr").write_text(
        header.replace(f"{key}=sub-01", f"{key}=sub-02")
    )
    with pytest.raises(BrainhiveError, match=r"sub-01\.vhdr.*sub-02\.\w+") as error:
        open_raw(tmp_path / "sub-01.vhdr")
    assert f"{key}=sub-01" in error.value.hint


def test_tables_are_read_as_spreadsheets_r_and_pandas_write_them(tmp_path):
    path = tmp_path / "events.csv"
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        path.write_bytes("sep=;\r\nevent;picture\r\n1;café.png\r\n".encode(encoding))
        assert read_table(path) == (
            ["event", "picture"],
            [{"event": "1", "picture": "café.png"}],
        )
    lines = [f"{text}\tnan.png" for text in ("NA", "NaN", "N/A", "nan", "", "na")]
    path = tmp_path / "events.tsv"
    path.write_text("\n".join(["onset\tname"] + list(lines)))
    assert (
        {row["onset"] for row in read_table(path)[1]} == {"n/a", ""} == set(EMPTY_CELLS)
    )
    assert {row["name"] for row in read_table(path)[1]} == {"nan.png"}
    path.write_text("event\tpicture\n1\ta.png\n2\tNA\nNaN\tb.png\n")
    assert EventNames(path, ["a.png", "b.png"]).table == {"1": "a.png"}


@pytest.mark.parametrize(
    "names",
    (
        ("sub-01_split-01_meg.fif", "sub-01_split-02_meg.fif"),
        ("sub-01_tsss.fif", "sub-01_tsss-1.fif"),
        ("sub-01_block.fif", "sub-01_block-2.fif"),
    ),
)
def test_parts_that_no_file_names_are_recordings_of_their_own(tmp_path, names):
    pytest.importorskip("mne")
    raw = make_raw(Presentation.randomize(1, 0), 0)
    for name in names:
        raw.save(tmp_path / name, verbose="ERROR")
    (recording,) = list_recordings(tmp_path, "*")[1].values()
    assert [path.name for path in recording] == list(names)
    assert list_recording_files(recording[0]) == [tmp_path / names[0]]


def test_a_format_that_is_not_read_is_named(tmp_path):
    touch(tmp_path, "sub-02_eeg.xdf")
    (tmp_path / "sub-03.mff").mkdir()
    touch(tmp_path / "sub-03.mff", "signal1.bin")
    unread_files = list_unread_files(tmp_path)
    assert [path.name for path in unread_files] == ["sub-02_eeg.xdf", "sub-03.mff"]
    with pytest.raises(MissingData, match=r"sub-02_eeg\.xdf"):
        list_recordings(tmp_path, "*")


def test_only_the_ends_of_lines_end_a_row_of_a_table(tmp_path):
    path = tmp_path / "events.tsv"
    captions = ["a dog\u2028on a rug", "two\u0085cats", "a cup\x0bof\x0ctea", "plain"]
    for end in ("\n", "\r\n", "\r"):
        lines = (
            ["onset\tcaption\t"] + [f"1\t{caption}\t" for caption in captions] + [""]
        )
        path.write_bytes(end.join(lines).encode())
        columns, rows = read_table(path)
        assert columns == ["onset", "caption"]
        assert [row["caption"] for row in rows] == captions


def test_columns_of_the_same_name_must_be_equal(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text("onset\tname\tonset\n10\ta\t10\n\n18\tb\t18\n")
    assert read_table(path)[1][1] == {"onset": "18", "name": "b"}
    path.write_text("onset\tname\tonset\n10\ta\t-2\n18\tb\t6\n")
    with pytest.raises(BrainhiveError, match=r"onset .*column 1 .*10.*column 3 .*-2"):
        read_table(path)


@pytest.mark.parametrize("line", ["18\tb", "18\tb\tc\td"])
def test_a_line_with_other_cells_than_the_header_is_refused(tmp_path, line):
    path = tmp_path / "events.tsv"
    path.write_text(f"onset\tname\tcaption\n10\ta\tx\n{line}\n")
    cells = line.count("\t") + 1
    with pytest.raises(BrainhiveError, match=f"line 3 has {cells} cells.* 3"):
        read_table(path)


def test_endings_in_capitals_are_read_or_named(tmp_path):
    touch(tmp_path, "SUB-01.EDF", "sub-02_RAW.FIF")
    paths = [
        path.name
        for people in list_recordings(tmp_path, "*").values()
        for paths in people.values()
        for path in paths
    ]
    assert sorted(paths) == ["SUB-01.EDF", "sub-02_RAW.FIF"]
    touch(tmp_path, "SUB-03.VHDR", "SUB-03.VMRK", "SUB-03.EEG")
    with pytest.raises(MissingData, match=r"SUB-03\.VHDR") as refused:
        list_recordings(tmp_path, "*")
    assert "mv SUB-03.VHDR SUB-03.vhdr" in refused.value.hint


def test_folders_of_storage_servers_hold_no_data(tmp_path):
    touch(tmp_path, "sub-01.edf")
    for folder in ("@eaDir", "__MACOSX", "#recycle"):
        (tmp_path / folder).mkdir()
        touch(tmp_path / folder, "sub-02.edf", "sub-03.cdt")
    assert list(list_recordings(tmp_path, "*")) == [1]
    assert list_unread_files(tmp_path) == {}


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0"])
def test_a_workbook_is_named(tmp_path, start):
    path = tmp_path / "events.csv"
    path.write_bytes(start + bytes(100))
    with pytest.raises(BrainhiveError, match="workbook") as refused:
        read_table(path)
    assert "CSV" in refused.value.hint
