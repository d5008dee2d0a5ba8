"""Account of recordings: what stops a preparation, and what is set aside."""

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.preparations.recording import Config
from tests.worlds.bids_eeg import describe_dataset
from tests.worlds.own_recordings import (
    CHANNELS,
    PICTURE_NAMES,
    RATE_HZ,
    Presentation,
    annotate,
    list_event_codes,
    make_raw,
    write_table,
)

mne = pytest.importorskip("mne")


def save(path, presentation, names=None, factor=1.0):
    """Save a recording whose events have the names of the pictures, or others."""
    names = [str(name) for name in names or presentation.pictures]
    raw = annotate(make_raw(presentation, 0), presentation, names)
    raw.apply_function(lambda volts: volts * factor).save(path, verbose="ERROR")


def save_codes(path, presentation, codes):
    """Save a recording with codes in the channel STI 014."""
    raw = make_raw(presentation, 0)
    stimulus = np.zeros((1, raw.n_times))
    for onset, code in zip(presentation.onsets, codes, strict=True):
        stimulus[0, onset : onset + 50] = code
    info = mne.create_info(["STI 014"], RATE_HZ, "stim")
    raw.add_channels([mne.io.RawArray(stimulus, info, verbose="ERROR")])
    raw.save(path, overwrite=True, verbose="ERROR")


def write_codes(folder, codes, names=PICTURE_NAMES):
    """Write the table of codes and their pictures."""
    rows = [f"{code},{name}.png" for code, name in zip(codes, names, strict=True)]
    (folder / "events.csv").write_text("\n".join(["event,picture"] + rows) + "\n")


def write_onsets(folder, onsets, names, columns="onset\tstim_file", more=""):
    """Write the events.tsv of sub-01_raw.fif, with onsets in samples.

    Args:
        folder: Folder of the recording.
        onsets: Onset of each event.
        names: Name of the picture of each event.
        columns: Names of the columns.
        more: Cells behind each row, or a list of them.
    """
    cells = [more] * len(names) if isinstance(more, str) else more
    rows = zip(onsets, names, cells, strict=True)
    lines = [f"{onset / RATE_HZ}\t{name}.png{more}" for onset, name, more in rows]
    (folder / "sub-01_raw_events.tsv").write_text("\n".join([columns] + lines) + "\n")


def take_account(subjects=(1,), **keys):
    return Config(**keys).build(Paths()).look_over(subjects).account


def test_clean_recordings_need_no_yes(folder):
    for subject in (1, 2):
        presentation = Presentation.randomize(4, subject)
        path = folder / f"sub-{subject:02d}.fif"
        save(path, presentation, list_event_codes(presentation))
    write_table(folder / "events.csv")
    account = take_account((1, 2))
    account.require()
    assert not account.disputes
    rows = {row[1]: row[2:4] for row in account.rows}
    assert rows == {
        "people": (2, 2),
        "recordings": (1, 1),
        "events": (32, 32),
        "trials": (32, 32),
        "pictures": (8, 8),
    }


def test_a_code_in_place_of_pictures_is_disputed_or_blank(folder):
    presentation = Presentation.randomize(4, 0)
    codes = [99 if code == 3 else code for code in list_event_codes(presentation)]
    save(folder / "sub-01.fif", presentation, codes)
    write_table(folder / "events.csv")
    (dispute,) = take_account().disputes
    assert dispute.kind == "unnamed-codes"
    assert dispute.names == ("99",)
    assert "never came 1: 3" in dispute.problem
    take_account(accept={"unnamed-codes": [99]}).require()
    session = Config(accept={"unnamed-codes": [99]}).build(Paths()).session(1, 1)
    assert session["train"].provenance["accepted"] == {"unnamed-codes": 1}
    assert "losses accepted" in session["train"].caveats

    with (folder / "events.csv").open("a") as table:
        table.write("99,\n")
    assert "unnamed-codes" not in {item.kind for item in take_account().disputes}


def test_the_rule_that_explains_codes_is_named(folder):
    presentation = Presentation.randomize(4, 0)
    codes = np.array(list_event_codes(presentation))
    # codes from 256 on lose their ninth bit
    save_codes(folder / "sub-01.fif", presentation, (codes + 252) % 256)
    write_codes(folder, np.arange(8) + 253)
    (dispute,) = take_account().disputes
    assert dispute.kind == "unnamed-codes"
    assert "with 256" in dispute.problem

    # codes 257 to 260 arrive as codes 1 to 4, which are listed, too
    save_codes(folder / "sub-01.fif", presentation, (codes - 1) % 4 + 1)
    write_codes(folder, [1, 2, 3, 4, 257, 258, 259, 260])
    (dispute,) = take_account().disputes
    assert dispute.kind == "unrecorded-codes"
    assert "bit 256" in dispute.problem


def test_a_table_that_is_whole_trials_off_is_disputed(folder):
    presentation = Presentation.randomize(6, 0)
    save_codes(folder / "sub-01_raw.fif", presentation, list_event_codes(presentation))
    write_onsets(folder, presentation.onsets[2:], presentation.pictures[:-2])
    (dispute,) = take_account().disputes
    assert dispute.kind == "mismatched-codes"
    assert "2 trials off" in dispute.problem


def read_pictures(subject):
    trials = Config(whiten="no").build(Paths()).session(subject, 1)["train"]
    return list(trials.image_ids)


def test_a_table_of_a_person_is_read_for_this_person(folder):
    """For person 2, the codes stand for the pictures in reverse order."""
    presentation = Presentation.randomize(2, 0)
    for subject in (1, 2):
        path = folder / f"sub-{subject:02d}.fif"
        save(path, presentation, list_event_codes(presentation))
    write_codes(folder, range(1, 9), PICTURE_NAMES[::-1])
    own_table = (folder / "events.csv").rename(folder / "sub-02_events.csv")
    write_codes(folder, range(1, 9))
    expected = read_pictures(2)
    assert read_pictures(1) != expected
    preparation = Config().build(Paths())
    assert own_table in preparation.files(2)
    assert own_table not in preparation.files(1)

    # the same in one table with a column of people
    lines = ["subject,event,picture"]
    for subject, path in ((1, folder / "events.csv"), (2, own_table)):
        lines += [f"{subject},{line}" for line in path.read_text().split()[1:]]
    own_table.unlink()
    (folder / "events.csv").write_text("\n".join(lines))
    assert read_pictures(2) == expected


def test_people_whose_files_are_not_read_are_disputed(folder):
    presentation = Presentation.randomize(2, 0)
    save(folder / "sub-01.fif", presentation)
    (folder / "sub-02.cdt").write_bytes(b"x")
    (folder / "sub-03_muse.csv").write_text("timestamps,TP9\n")
    (folder / "sub-01_events.json").write_text("{}")
    (dispute,) = take_account().disputes
    assert dispute.kind == "left-out-people"
    assert dispute.names == ("sub-02", "sub-03")
    assert not take_account(files="*sub-01*").disputes


def test_codes_that_a_file_holds_as_one_are_disputed(folder):
    presentation = Presentation.randomize(4, 0)
    # single precision holds each second code above 2 ** 24
    codes = 2**24 + np.array(list_event_codes(presentation))
    save_codes(folder / "sub-01_raw.fif", presentation, codes)
    write_codes(folder, 2**24 + np.arange(1, 9))
    (dispute,) = take_account().disputes
    assert dispute.kind == "unnamed-codes"
    assert "never came 4" in dispute.problem


def test_another_scale_is_disputed_with_its_factor(folder):
    for run, factor in ((1, 1.0), (2, 0.1), (3, 1.0)):
        presentation = Presentation.randomize(2, run)
        save(folder / f"sub-01_run-{run}.fif", presentation, factor=factor)
    (dispute,) = take_account().disputes
    assert dispute.kind == "other-scale"
    assert dispute.names == ("sub-01_run-2.fif",)
    assert "0.1 times" in dispute.problem


def test_events_outside_the_recording_are_counted_up_to_a_fifth(folder):
    """The last three of 32 pictures are cut off, and an event comes before."""
    presentation = Presentation.randomize(4, 0)
    raw = annotate(make_raw(presentation, 0), presentation, list(presentation.pictures))
    raw.crop(0, (presentation.onsets[-3] - 100) / RATE_HZ)
    raw.save(folder / "sub-01_raw.fif", verbose="ERROR")
    onsets = [-3 * RATE_HZ] + presentation.onsets.tolist()
    names = [PICTURE_NAMES[0]] + list(presentation.pictures)
    write_onsets(folder, onsets, names)
    account = take_account()
    assert not account.disputes
    assert any("4 outside the recording" in str(row) for row in account.rows)

    write_onsets(folder, onsets[-12:], names[-12:])
    unlisted, lost = take_account().disputes
    assert unlisted.count > 15  # markers without a row
    assert (lost.kind, lost.count) == ("lost-trials", 3)


def test_absent_pictures_are_disputed_above_a_fifth(folder):
    presentation = Presentation.randomize(4, 0)
    make_raw(presentation, 0).save(folder / "sub-01_raw.fif", verbose="ERROR")
    # a fixation cross precedes each picture by 0.5 s
    onsets, names = [], []
    for onset, name in zip(presentation.onsets, presentation.pictures, strict=True):
        onsets += [onset - RATE_HZ / 2, onset]
        names += ["fixation", name]
    write_onsets(folder, onsets, names)
    assert not take_account().disputes
    names = [name.replace("cat_0", "cat_7").replace("dog_0", "dog_7") for name in names]
    write_onsets(folder, onsets, names)
    (dispute,) = take_account().disputes
    assert dispute.kind == "absent-pictures"
    assert "8 trials" in dispute.problem


def test_where_selects_rows_and_mixed_kinds_are_disputed(folder):
    presentation = Presentation.randomize(4, 0)
    raw = make_raw(presentation, 0)
    raw.save(folder / "sub-01_raw.fif", verbose="ERROR")
    kinds = ["\tseen"] * 16 + ["\timagined"] * 16
    columns = "onset\tstim_file\ttrial_type"
    write_onsets(folder, presentation.onsets, presentation.pictures, columns, kinds)
    (dispute,) = take_account().disputes
    assert dispute.kind == "mixed-kinds"
    assert dispute.names == ("imagined", "seen")
    account = take_account(where={"trial_type": "seen"})
    assert not account.disputes
    assert any(row[1:4] == ("events", 16, 16) for row in account.rows)
    with pytest.raises(BrainhiveError, match="no column kind"):
        Config(where={"kind": "seen"}).build(Paths()).session(1, 1)


@pytest.mark.parametrize(
    ("sidecar", "content"),
    [
        ("eeg.json", '{"SamplingFrequency": 500,}'),
        (
            "channels.tsv",
            "name\ttype\n" + "".join(f"{name.upper()}\tEEG\n" for name in CHANNELS),
        ),
        ("events.tsv", "Onset\tstim_file\n1\tcat.png\n"),
        ("events.tsv", "onset\tduration\tstim_file\n09:15:02.5\t0\tcat.png\n"),
    ],
)
def test_a_sidecar_that_does_not_fit_is_named(folder, sidecar, content):
    pytest.importorskip("mne_bids")
    describe_dataset(folder, "study")
    path = folder / f"sub-01/eeg/sub-01_task-x_{sidecar}"
    path.parent.mkdir(parents=True)
    raw = make_raw(Presentation.randomize(1, 0), 0)
    mne.export.export_raw(path.with_name("sub-01_task-x_eeg.edf"), raw, verbose="ERROR")
    path.write_text(content)
    with pytest.raises(BrainhiveError, match=path.name) as refused:
        Config().build(Paths()).session(1, 1)
    assert "damaged" not in refused.value.message
