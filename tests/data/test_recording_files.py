"""Files of recordings: which are whose, which are none, and what each is read together with."""

import re

import numpy as np
import pytest
from own_recordings import Shown, make_raw

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.data.event_names import EventNames
from brainhive_cli.data.preparations._recording_channels import keep_channels
from brainhive_cli.data.recording_files import (
    ABSENT,
    describe_labels,
    files_of,
    list_recordings,
    open_raw,
    read_table,
    table_of,
)
from brainhive_cli.data.recording_headers import read_header


def test_two_sessions_of_one_number_are_not_merged(tmp_path):
    for name in ("sub-01_ses-pre.fif", "sub-01_ses-post.fif"):
        (tmp_path / name).touch()
    with pytest.raises(BrainhiveError, match=r"ses-pre\.fif and .*ses-post\.fif are of two sessions 1"):
        list_recordings(tmp_path, "*")
    (tmp_path / "sub-01_ses-post.fif").unlink()
    assert [*list_recordings(tmp_path, "*")[1]] == [1]


@pytest.mark.parametrize(
    ("labels", "numbers", "subjects"),
    (
        (("07A", "07B"), {}, "sub-07A and sub-07B would both be subject 7"),
        (("1", "001"), {}, "sub-(001|1) and sub-(1|001) would both be subject 1"),
        (("patient01", "control01"), {}, "sub-control01 and sub-patient01 would both be subject 1"),
        (("anna",), {}, "sub-anna has no number"),
        (("07A", "07B"), {"sub-07B": 8}, {7: ["07A"], 8: ["07B"]}),
        (("07A", "07B", "8"), {"sub-07B": 8}, "would both be subject 8"),
        (("1", "001"), {"sub-1": 1, "sub-001": 1}, {1: ["001", "1"]}),
        (("anna", "02"), {"sub-anna": 1}, {1: ["anna"], 2: ["02"]}),
    ),
)
def test_a_subject_is_its_label(tmp_path, labels, numbers, subjects):
    for label in labels:
        (tmp_path / f"sub-{label}_ses-01_eeg.fif").touch()
    if isinstance(subjects, str):
        with pytest.raises(BrainhiveError, match=subjects):
            list_recordings(tmp_path, "*", numbers)
    else:
        listed = list_recordings(tmp_path, "*", numbers)
        assert {
            subject: [path.name[4:-15] for path in sessions[1]] for subject, sessions in listed.items()
        } == subjects
        lines = describe_labels(listed, tmp_path, [*subjects], {**numbers, "sub-9": 9})
        assert lines[-1] == "no file is of sub-9, which subject_numbers names"


def test_what_r_and_pandas_write_for_no_value_is_absent(tmp_path):
    path = tmp_path / "events.tsv"
    lines = [f"{text}\tnan.png" for text in ("NA", "NaN", "N/A", "nan", "", "na")]
    path.write_text("\n".join(["onset\tname", *lines]))
    assert {row["onset"] for row in read_table(path)[1]} == {"n/a", ""} == {*ABSENT}
    assert {row["name"] for row in read_table(path)[1]} == {"nan.png"}
    path.write_text("event\tpicture\n1\ta.png\n2\tNA\nNaN\tb.png\n")
    assert EventNames.read(path, ["a.png", "b.png"]).table == {"1": "a.png"}


@pytest.mark.parametrize(
    ("sessions", "numbered"),
    (
        (["train*", "test*"], {1: "train1", 2: "train9", 3: "train10", 4: "test1"}),
        (["test*", "ses-train9"], {1: "test1", 9: "train9"}),
        (["train*"], {1: "train1", 9: "train9", 10: "train10"}),
        ([9], {9: "train9"}),
        ([1], "are of two sessions 1"),
        (["imagery*"], r"no session imagery\*"),
        ([2], "no session 2"),
    ),
)
def test_sessions_are_chosen_and_numbered_by_their_labels(tmp_path, sessions, numbered):
    for label in ("test1", "train1", "train9", "train10"):
        (tmp_path / f"sub-01_ses-{label}_eeg.fif").touch()
    if isinstance(numbered, str):
        with pytest.raises(BrainhiveError, match=numbered):
            list_recordings(tmp_path, "*", sessions=sessions)
    else:
        listed = list_recordings(tmp_path, "*", sessions=sessions)
        names = {number: paths[0].name[11:-8] for number, paths in listed[1].items()}
        assert names == numbered
        assert ("is ses-test1" in str(describe_labels(listed, tmp_path, [1], {}))) == (
            "test1" in names.values()
        )


@pytest.mark.parametrize(
    ("first", "second", "pattern"),
    (
        ("sub-01_task-a_run-1_eeg.vhdr", "sub-01_task-a_run-1_proc-filt_eeg.vhdr", "*proc-filt*"),
        ("sub-01_run-1.set", "sub-01_run-01.vhdr", "*.vhdr"),
        ("sub-01_desc-clean_raw.fif", "sub-01_raw.fif", "*desc-clean*"),
        ("eeg/sub-01_task-a_eeg.edf", "sub-01_task-a_rec-2.edf", "*rec-2*"),
        ("sub-01/sub-01_eeg.edf", "sub-01_old/sub-01_eeg.edf", ""),
    ),
)
def test_two_files_of_one_recording_are_refused_with_the_key_that_chooses(tmp_path, first, second, pattern):
    for name in (first, second):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(BrainhiveError, match="are one recording") as error:
        list_recordings(tmp_path, "*")
    assert second in error.value.message
    if pattern:
        assert len(list_recordings(tmp_path, pattern)[1][1]) == 1
    assert f"preparation.files=PATTERN takes one of them, or move one out of {tmp_path}" in error.value.hint


@pytest.mark.parametrize(
    "name", ("sub-02_task-subset1_eeg.edf", "sub-02_subset1.fif", "sub-02/subliminal_01/eeg.fif")
)
def test_a_subject_is_read_at_the_start_of_a_part_of_a_name(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    assert [*list_recordings(tmp_path, "*")] == [2]


def test_a_session_is_read_at_the_start_of_a_part_of_a_name(tmp_path):
    (tmp_path / "sub-02_ses-03_task-session7_sesame_9.fif").touch()
    assert [*list_recordings(tmp_path, "*")[2]] == [3]


@pytest.mark.parametrize(
    ("recording", "table"),
    (
        ("sub-01_task-a_split-01_meg.fif", "sub-01_task-a_events.tsv"),
        ("sub-01_task-a_eeg.vhdr", "sub-01_task-a_events.tsv"),
        ("sub-01_run-1.fif", "sub-01_run-1_events.tsv"),
        ("sub-01_run-1.fif", None),
    ),
)
def test_events_are_those_of_a_recording_and_of_no_other(tmp_path, recording, table):
    for name in ("sub-01_events.tsv", *([table] if table else [])):
        (tmp_path / name).touch()
    assert table_of(tmp_path / recording, "events") == (tmp_path / table if table else None)


@pytest.mark.parametrize(
    "name",
    (
        "sub-01_ses-01_acq-crosstalk_meg.fif",
        "sub-01_acq-calibration_meg.fif",
        "sub-01_task-emptyroom_meg.fif",
        "ct_sparse.fif",
        "sub-01-epo.fif",
        "sub-01_epo-1.fif",
        "sub-01_task-images_epo.fif.gz",
        "sub-01-ave.fif",
        "sub-01-trans.fif",
        "sub-01_trans.fif",
        "sub-01-ica.fif",
        "sub-01-cov.fif",
        "sub-01-raw-eve.fif",
    ),
)
def test_a_fif_file_of_something_else_is_no_recording(tmp_path, name):
    for each in ("sub-01_raw.fif", name):
        (tmp_path / each).touch()
    assert list_recordings(tmp_path, "*") == {1: {1: [tmp_path / "sub-01_raw.fif"]}}


@pytest.mark.parametrize(
    "name", ("sub-01_ave-maria_meg.fif", "sub-01_task-epo_eeg.vhdr", "sub-01_icarus.fif")
)
def test_a_recording_is_not_taken_for_something_else_by_a_part_of_its_name(tmp_path, name):
    (tmp_path / name).touch()
    assert list_recordings(tmp_path, "*") == {1: {1: [tmp_path / name]}}


@pytest.mark.parametrize(
    ("naming", "names"),
    (
        ("neuromag", ("sub-01_meg.fif", "sub-01_meg-1.fif", "sub-01_meg-2.fif")),
        ("bids", ("sub-01_split-01_meg.fif", "sub-01_split-02_meg.fif", "sub-01_split-03_meg.fif")),
    ),
)
def test_the_continuations_of_a_recording_are_among_its_files(tmp_path, naming, names):
    pytest.importorskip("mne")
    raw = make_raw(Shown.of(32, 0), 0)
    raw.save(tmp_path / "sub-01_meg.fif", split_size="2.5MB", split_naming=naming, verbose="ERROR")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    ((first,),) = list_recordings(tmp_path, "*")[1].values()
    assert [path.name for path in files_of(first)] == list(names)


def test_a_recording_whose_first_file_is_missing_is_told(tmp_path):
    for name in ("sub-01_ses-01.vhdr", "sub-01_ses-01.vmrk", "sub-01_ses-02.vmrk", "sub-01_ses-02.eeg"):
        (tmp_path / name).touch()
    with pytest.raises(MissingData, match=r"sub-01_ses-02\.vmrk is there, but not sub-01_ses-02\.vhdr"):
        list_recordings(tmp_path, "*")
    assert [*list_recordings(tmp_path, "*ses-01*")[1]] == [1]


def test_the_tables_of_bids_are_among_the_files_of_a_recording(tmp_path):
    names = ("sub-01_task-a_eeg.edf", "sub-01_task-a_events.tsv", "sub-01_task-a_channels.tsv")
    for name in names:
        (tmp_path / name).write_text("0")
    assert files_of(tmp_path / names[0]) == [tmp_path / name for name in names]


@pytest.fixture
def raw():
    """A recording of two channels, large enough for two files."""
    mne = pytest.importorskip("mne")
    signal = np.random.default_rng(0).normal(scale=1e-6, size=(2, 300_000))
    return mne.io.RawArray(signal, mne.create_info(["Cz", "Pz"], 100.0, "eeg"), verbose="ERROR")


def test_a_recording_of_datalad_is_a_link_into_its_own_folder(tmp_path, raw):
    kept = tmp_path / ".git" / "annex" / "objects" / "KEY.fif" / "KEY.fif"
    kept.parent.mkdir(parents=True)
    raw.crop(0, 1).save(kept, verbose="ERROR")
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    link = tmp_path / "sub-01" / "meg" / "sub-01_task-x_meg.fif"
    link.parent.mkdir(parents=True)
    link.symlink_to(kept)
    assert open_raw(link, has_bids_onsets=False).n_times == 101


@pytest.mark.parametrize("sign", ("=", " : "))
@pytest.mark.parametrize("key", ("DataFile", "MarkerFile"))
def test_a_brainvision_header_that_names_files_elsewhere_is_refused(tmp_path, raw, key, sign):
    pytest.importorskip("pybv")
    raw.crop(0, 1).export(tmp_path / "x.vhdr", verbose="ERROR")
    header = (tmp_path / "x.vhdr").read_text()
    assert open_raw(tmp_path / "x.vhdr").n_times == 101
    (tmp_path / "x.vhdr").write_text(re.sub(f"{key}=", f"{key}{sign}./", header))
    assert open_raw(tmp_path / "x.vhdr").n_times == 101
    (tmp_path / "x.vhdr").write_text(re.sub(f"{key}=.*", f"{key}{sign}/etc/passwd", header))
    with pytest.raises(MissingData, match="names a file outside its folder, '/etc/passwd'"):
        open_raw(tmp_path / "x.vhdr")


@pytest.mark.parametrize("key", ("DataFile", "MarkerFile"))
def test_a_brainvision_header_that_names_files_of_another_recording_is_refused(tmp_path, raw, key):
    pytest.importorskip("pybv")
    for name in ("sub-01.vhdr", "sub-02.vhdr"):
        raw.copy().crop(0, 1).export(tmp_path / name, verbose="ERROR")
    header = (tmp_path / "sub-01.vhdr").read_text().replace(f"{key}=sub-01", f"{key}=sub-02")
    (tmp_path / "sub-01.vhdr").write_text(header)
    with pytest.raises(BrainhiveError, match=r"sub-01\.vhdr names sub-02\.\w+, a file of another") as error:
        open_raw(tmp_path / "sub-01.vhdr")
    assert f"{key}=sub-01" in error.value.hint
    (tmp_path / "sub-02.vmrk").unlink()
    (tmp_path / "sub-02.eeg").rename(tmp_path / "sub-02.dat")
    if key == "MarkerFile":  # which mne replaces by that of the recording where it is not there
        assert open_raw(tmp_path / "sub-01.vhdr").n_times == 101


def test_a_split_recording_that_goes_on_in_a_part_of_another_is_refused(tmp_path, raw):
    for name in ("sub-01_raw.fif", "sub-02_raw.fif"):
        raw.save(tmp_path / name, split_size="2MB", verbose="ERROR")
    content = (tmp_path / "sub-01_raw.fif").read_bytes()
    (tmp_path / "sub-01_raw.fif").write_bytes(content.replace(b"sub-01_raw-1.fif", b"sub-02_raw-1.fif"))
    with pytest.raises(BrainhiveError, match=r"sub-01_raw\.fif names sub-02_raw-1\.fif, a file of another"):
        open_raw(tmp_path / "sub-01_raw.fif")


def test_active_shielding_has_its_own_line(tmp_path, raw):
    with raw.info._unlock():
        raw.info["maxshield"] = True
    raw.crop(0, 1).save(tmp_path / "sub-01_raw.fif", verbose="ERROR")
    with pytest.raises(BrainhiveError, match="Active Shielding") as error:
        open_raw(tmp_path / "sub-01_raw.fif")
    assert "maxwell_filter" in error.value.hint


@pytest.mark.parametrize("encoding", ("utf-8-sig", "utf-16", "cp1252"))
def test_tables_are_read_as_spreadsheets_write_them(tmp_path, encoding):
    path = tmp_path / "events.csv"
    path.write_bytes("sep=;\r\nevent;picture\r\n1;café.png\r\n".encode(encoding))
    assert read_table(path) == (["event", "picture"], [{"event": "1", "picture": "café.png"}])


def test_a_flipped_bit_of_a_compressed_recording_is_found(tmp_path, raw):
    path = tmp_path / "x_raw.fif.gz"
    raw.crop(0, 20).save(path, verbose="ERROR")
    content = bytearray(path.read_bytes())
    content[-3000] ^= 1
    path.write_bytes(content)
    with pytest.raises(MissingData, match="damaged"):
        open_raw(path)


def test_a_recording_of_bad_channels_alone_is_refused(tmp_path, raw):
    raw.info["bads"] = list(raw.ch_names)
    raw.set_annotations(type(raw.annotations)(1.0, 0.0, "cat"))
    raw.crop(0, 9).save(tmp_path / "sub-01_raw.fif", verbose="ERROR")
    header = read_header(tmp_path / "sub-01_raw.fif", "", "")
    with pytest.raises(BrainhiveError, match="all its channels of type eeg are marked as bad"):
        keep_channels({tmp_path: header})


def test_epochs_and_files_of_matlab_7_have_their_own_way_out(tmp_path, raw):
    pytest.importorskip("eeglabio")
    h5py, mne = pytest.importorskip("h5py"), pytest.importorskip("mne")
    mne.make_fixed_length_epochs(raw.crop(0, 20), 2.0, verbose="ERROR").export(
        tmp_path / "x.set", verbose="ERROR"
    )
    with pytest.raises(MissingData, match="number of trials is 10") as error:
        open_raw(tmp_path / "x.set")
    assert error.value.hint.startswith("it holds epochs: export the continuous recording")

    # MATLAB's header lies before the HDF5 of version 7.3
    with h5py.File(tmp_path / "y.set", "w", userblock_size=512) as file:
        file["EEG/data"] = np.zeros((3, 4))
    content = bytearray((tmp_path / "y.set").read_bytes())
    content[:23], content[124:128] = b"MATLAB 7.3 MAT-file, Pl", b"\x00\x02IM"
    (tmp_path / "y.set").write_bytes(content)
    with pytest.raises(BrainhiveError) as other:
        open_raw(tmp_path / "y.set")
    assert other.value.hint.startswith("it is of MATLAB 7.3: pip install pymatreader")
