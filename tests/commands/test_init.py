"""Tests of init: its folders, its table of markers, and recordings that it refuses."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.data.files.bids_labels import read_simulated
from brainhive_cli.data.recordings.tables import read_table
from tests.worlds.own_recordings import (
    PICTURE_NAMES,
    RATE_HZ,
    Presentation,
    annotate,
    list_event_codes,
    make_raw,
    write_pictures,
    write_table,
)

mne = pytest.importorskip("mne")
SHOWN = Presentation.randomize(2, seed=0)


def brainhive(*arguments):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)


def init(*arguments):
    ended = brainhive("init", *arguments)
    assert ended.exit_code == 0, ended.stderr
    return ended


def refuse(*arguments):
    """Return the exit code and the two lines of an error."""
    ended = brainhive(*arguments)
    lines = ended.stderr.splitlines()
    assert len(lines) == 2 and lines[1].startswith("  try: "), ended.stderr
    return ended.exit_code, lines


def read_events(home):
    with (home / "data/recordings/events.csv").open() as file:
        return {row["event"]: row["picture"] for row in csv.DictReader(file)}


def save(path, names):
    """Save a recording whose onsets are annotated with names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = annotate(make_raw(SHOWN, seed=0), SHOWN, names)
    if path.suffix == ".fif":
        raw.save(path, verbose="ERROR")
    else:
        mne.export.export_raw(path, raw, verbose="ERROR")


def test_an_empty_home_becomes_the_folders_of_a_study(home):
    ended = init()

    folders = ["image-folder", "image-folder/test", "image-folder/train", "recordings"]
    paths = sorted((home / "data").rglob("*"))
    assert [path.relative_to(home / "data").as_posix() for path in paths] == folders
    assert "next: brainhive init" in ended.stderr


@pytest.mark.parametrize("ending", [".fif", ".vhdr", ".edf", ".set"])
def test_markers_of_each_format_have_a_line_each(home, ending):
    write_pictures(home / "photos")
    codes = [f"{code}" for code in list_event_codes(SHOWN)]
    names = [f"Stimulus/S{code:>3}" for code in codes] if ending == ".vhdr" else codes
    save(home / f"lab/sub-01_ses-01{ending}", names)
    initial_names = sorted(path.name for path in (home / "lab").iterdir())

    ended = init("--recording", "lab", "--pictures", "photos", "--json")

    markers = json.loads(ended.stdout)["details"]["markers"]
    assert [marker["count"] for marker in markers] == [2] * len(PICTURE_NAMES)
    events = {str(number): "" for number in range(1, len(PICTURE_NAMES) + 1)}
    assert read_events(home) == events
    assert list(read_events(home)) == list(events)
    assert sorted(path.name for path in (home / "lab").iterdir()) == initial_names
    assert json.loads(ended.stdout)["next"] == (
        "brainhive prepare --from recording --check"
    )


def test_codes_of_a_stimulus_channel_are_markers(home):
    raw = make_raw(SHOWN, seed=0)
    signal = np.zeros((1, raw.n_times))
    for onset, code in zip(SHOWN.onsets, list_event_codes(SHOWN), strict=True):
        signal[0, onset : onset + 10] = code
    info = mne.create_info(["STI101"], RATE_HZ, "stim")
    raw.add_channels([mne.io.RawArray(signal, info, verbose="ERROR")])
    (home / "data/recordings").mkdir(parents=True)
    raw.save(home / "data/recordings/sub-01_raw.fif", verbose="ERROR")

    ended = init()

    assert list(read_events(home)) == [str(1 + row) for row in range(8)]
    assert "STI101" in ended.stdout


def test_the_completed_table_is_what_prepare_reads(home):
    write_pictures(home / "photos")
    save(home / "lab/sub-01.fif", [str(code) for code in list_event_codes(SHOWN)])
    init("--recording", "lab", "--pictures", "photos")
    line = ["prepare", "--from", "recording", "preparation.whiten=no"]

    # nothing is completed yet
    code, lines = refuse(*line)
    assert code == 1
    assert "events.csv" in lines[0]
    assert "8: 1, 2, 3" in lines[0]
    assert PICTURE_NAMES[0] in lines[1]

    # a line stays empty, as of a marker that is no picture
    table = home / "data/recordings/events.csv"
    write_table(table)
    table.write_text(table.read_text().replace(f"3,{PICTURE_NAMES[2]}.png", "3,"))
    ended = brainhive(*line)
    assert ended.exit_code == 0
    assert "events.csv (3)" in ended.stderr + ended.stdout

    # the completed table stays as it is
    text = table.read_text()
    ended = init()
    assert table.read_text() == text
    assert "kept" in ended.stderr


def test_only_exact_names_of_pictures_are_filled_in(home):
    write_pictures(home / "data/image-folder")
    names = {
        PICTURE_NAMES[0]: PICTURE_NAMES[0],  # a path
        f"{PICTURE_NAMES[1]}.png": PICTURE_NAMES[1],
        "dog_1": PICTURE_NAMES[3],  # a file name
        "dog": "",
        "1": "",
    }
    save(home / "data/recordings/sub-01.fif", (list(names) * 4)[: len(SHOWN.onsets)])

    ended = init()

    assert read_events(home) == names
    assert "3: " in ended.stderr  # it says how many were filled in


def test_equal_codes_of_two_types_keep_their_types(home):
    names = ["Stimulus/S  1", "Response/S  1", "Response/R  1", "Comment/blink"] * 4
    save(home / "data/recordings/sub-01.fif", names)

    init()

    assert set(read_events(home)) == {
        "Stimulus/S  1",
        "Response/S  1",
        "R 1",
        "blink",
    }


def test_a_file_without_a_person_becomes_the_first(home):
    save(home / "lab/pilot.vhdr", ["Stimulus/S  1"] * len(SHOWN.onsets))

    ended = init("--recording", "lab/pilot.vhdr")

    links = sorted(path.name for path in (home / "data/recordings/sub-01").iterdir())
    assert links == ["pilot.eeg", "pilot.vhdr", "pilot.vmrk"]
    assert read_events(home) == {"1": ""}
    assert "sub-01" in ended.stderr
    write_pictures(home / "data/image-folder")
    (home / "data/recordings/events.csv").write_text(f"event,picture\n1,{'cat_0'}\n")
    ended = brainhive("prepare", "--from", "recording", "--check")
    assert ended.exit_code == 0, ended.stderr


def test_a_linked_file_stays_marked_as_simulated(home):
    save(home / "lab/sub-01.vhdr", ["Stimulus/S  1"] * len(SHOWN.onsets))
    (home / "lab/dataset_description.json").write_text('{"Simulated": "a program"}')

    init("--recording", "lab/sub-01.vhdr")

    link = home / "data/recordings/sub-01.vhdr"
    assert link.is_symlink()
    assert read_simulated(link) == "a program"


def test_pictures_without_a_test_folder_are_reported(home):
    write_pictures(home / "photos")
    save(home / "lab/sub-01.fif", ["1"] * len(SHOWN.onsets))

    ended = init("--recording", "lab", "--pictures", "photos/train")

    assert "6 in train" in ended.stderr
    assert "test/CONCEPT" in ended.stderr


def test_files_of_nobody_are_refused_before_anything_is_made(home):
    for name in ("anna", "ben"):
        save(home / f"lab/{name}.fif", ["1"] * len(SHOWN.onsets))

    _, lines = refuse("init", "--recording", "lab")

    assert "anna.fif" in lines[0]
    assert not (home / "data").exists()


def test_existing_pictures_are_never_replaced(home):
    write_pictures(home / "photos")
    write_pictures(home / "data/image-folder")

    code, lines = refuse("init", "--pictures", "photos")

    assert code == 2
    assert "data/image-folder" in lines[0]
    assert not (home / "data/image-folder").is_symlink()


def test_a_table_of_the_lab_is_copied(home):
    save(home / "lab/sub-01.fif", ["1", "9"] * (len(SHOWN.onsets) // 2))
    write_table(home / "lab/events.csv")

    ended = init("--recording", "lab")

    copy = home / "data/recordings/events.csv"
    assert copy.read_text() == (home / "lab/events.csv").read_text()
    assert "1: 9" in ended.stderr  # a marker without a line


def test_bids_with_named_pictures_needs_no_table(home):
    folder = home / "lab/sub-01/eeg"
    save(folder / "sub-01_task-look_eeg.vhdr", ["1"] * len(SHOWN.onsets))
    description = {"Name": "look", "BIDSVersion": "1.9.0"}
    (home / "lab/dataset_description.json").write_text(json.dumps(description))
    rows = ["onset\tduration\tstim_file"]
    for onset, name in zip(SHOWN.onsets, SHOWN.pictures, strict=True):
        rows.append(f"{onset / RATE_HZ}\t0.1\t{name}.png")
    events = folder / "sub-01_task-look_events.tsv"
    events.write_text("\n".join(rows) + "\n")
    write_pictures(home / "lab/stimuli")

    ended = init("--recording", "lab")

    assert not (home / "data").exists()
    assert events.name in ended.stderr
    line = "brainhive prepare --from recording --check preparation.root=lab"
    assert f"next: {line}" in ended.stderr
    assert brainhive(*line.split()[1:]).exit_code == 0


def test_fmri_has_its_own_line(home):
    folder = home / "bids/sub-01/func"
    folder.mkdir(parents=True)
    (folder / "sub-01_task-look_bold.nii.gz").write_bytes(b"")

    for source in ("bids", "bids/sub-01/func/sub-01_task-look_bold.nii.gz"):
        code, lines = refuse("init", "--recording", source)
        assert code == 3
        assert "bold.nii.gz" in lines[0]
        assert "brainhive prepare --from bold --check" in lines[1]
    code, lines = refuse("init", "--recording", "nothing")
    assert code == 3
    assert "nothing" in lines[0]
    assert not (home / "data").exists()


def test_a_folder_around_the_study_is_refused(home):
    save(home / "sub-01.fif", ["1"] * len(SHOWN.onsets))

    code, lines = refuse("init", "--recording", ".")

    assert code == 2
    assert "data/recordings" in lines[0]
    assert not (home / "data").exists()


def test_prepare_without_a_table_names_init(home):
    write_pictures(home / "data/image-folder")
    save(home / "data/recordings/sub-01.fif", ["1"] * len(SHOWN.onsets))

    ended = brainhive("prepare", "--from", "recording")

    assert ended.exit_code == 1
    assert "brainhive init" in ended.stderr.splitlines()[-1]


def test_epochs_have_their_own_line(home):
    (home / "lab").mkdir()
    np.save(home / "lab/sub-01_ses-01.npy", np.zeros((2, 3, 4)))

    code, lines = refuse("init", "--recording", "lab")

    assert code == 3
    assert "brainhive prepare --from epochs" in lines[1]
    assert not (home / "data").exists()


def test_check_makes_nothing(home):
    ended = brainhive("init", "--check", "--json")
    states = [item["state"] for item in json.loads(ended.stdout)["inputs"]]
    assert states == ["to make"] * 3
    assert list(home.iterdir()) == []


def test_markers_that_are_formulas_do_nothing_in_a_spreadsheet(home):
    names = ["=HYPERLINK(1)", "@SUM(1+1)", "+cat", "-1"]
    save(home / "lab/sub-01.fif", names * 4)
    init("--recording", "lab")
    table = home / "data/recordings/events.csv"
    assert set(read_events(home)) == {"'=HYPERLINK(1)", "'@SUM(1+1)", "'+cat", "-1"}
    _, rows = read_table(table)
    assert {row["event"] for row in rows} == set(names)
