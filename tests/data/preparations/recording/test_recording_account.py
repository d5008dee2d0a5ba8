"""Account of recordings: what stops a preparation, and what is set aside."""

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.preparations.recording import Config
from tests.worlds.own_recordings import (
    CHANNELS,
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


@pytest.fixture
def folder(home):
    write_pictures(home / "data/image-folder")
    (home / "data/recordings").mkdir()
    return home / "data/recordings"


def save(path, image_names, names, change=lambda raw: raw):
    raw = annotate(make_raw(image_names, 0), image_names, list(map(str, names)))
    change(raw).save(path, verbose="ERROR")


def save_codes(path, image_names, codes, width=50):
    """Save a recording with codes in the channel STI 014."""
    raw = make_raw(image_names, 0)
    stimulus = np.zeros((1, raw.n_times))
    for onset, code in zip(image_names.onsets, codes, strict=True):
        stimulus[0, onset : onset + width] = code
    info = mne.create_info(["STI 014"], RATE_HZ, "stim")
    raw.add_channels([mne.io.RawArray(stimulus, info, verbose="ERROR")])
    raw.save(path, overwrite=True, verbose="ERROR")


def take_account(subjects=(1,), **keys):
    return Config(**keys).build(Paths()).look_over(subjects).account


def test_clean_recordings_need_no_yes(folder):
    for subject in (1, 2):
        presentation = Presentation.randomize(4, subject)
        save(
            folder / f"sub-{subject:02d}.fif",
            presentation,
            list_event_codes(presentation),
        )
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
    assert dispute.kind == "unnamed-codes" and dispute.names == ("99",)
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
    rows = [f"{code + 252},{name}.png" for code, name in enumerate(PICTURE_NAMES, 1)]
    (folder / "events.csv").write_text("\n".join(["event,picture"] + list(rows)) + "\n")
    (dispute,) = take_account().disputes
    assert dispute.kind == "unnamed-codes" and "with 256" in dispute.problem

    # codes 257 to 260 arrive as codes 1 to 4, which are listed, too
    save_codes(folder / "sub-01.fif", presentation, (codes - 1) % 4 + 1)
    rows = []
    for row, name in enumerate(PICTURE_NAMES):
        rows.append(f"{row + 1 if row < 4 else row + 253},{name}.png")
    (folder / "events.csv").write_text("\n".join(["event,picture"] + list(rows)) + "\n")
    (dispute,) = take_account().disputes
    assert dispute.kind == "unrecorded-codes" and "bit 256" in dispute.problem


def test_a_table_that_is_whole_trials_off_is_disputed(folder):
    presentation = Presentation.randomize(6, 0)
    save_codes(folder / "sub-01_raw.fif", presentation, list_event_codes(presentation))
    lines = ["onset\tstim_file"]
    for onset, name in zip(
        presentation.onsets[2:], presentation.pictures, strict=False
    ):
        lines.append(f"{onset / RATE_HZ}\t{name}.png")
    (folder / "sub-01_raw_events.tsv").write_text("\n".join(lines) + "\n")
    (dispute,) = take_account().disputes
    assert dispute.kind == "mismatched-codes" and "2 trials off" in dispute.problem


def test_a_table_of_a_person_is_read_for_this_person(folder):
    presentation = Presentation.randomize(2, 0)
    for subject in (1, 2):
        save(
            folder / f"sub-{subject:02d}.fif",
            presentation,
            list_event_codes(presentation),
        )
    write_table(folder / "events.csv")
    rows = [f"{code},{name}.png" for code, name in enumerate(PICTURE_NAMES[::-1], 1)]
    own_table = "\n".join(["event,picture"] + list(rows)) + "\n"
    (folder / "sub-02_events.csv").write_text(own_table)
    preparation = Config(whiten="no").build(Paths())
    first_session, second = (
        preparation.session(subject, 1)["train"] for subject in (1, 2)
    )
    assert list(first_session.image_ids) != list(second.image_ids)
    assert folder / "sub-02_events.csv" in preparation.files(2)
    assert folder / "sub-02_events.csv" not in preparation.files(1)

    # the same in a single table with a column of people
    table = [f"1,{line}" for line in (folder / "events.csv").read_text().split()[1:]]
    table += [f"2,{line}" for line in rows]
    (folder / "sub-02_events.csv").unlink()
    (folder / "events.csv").write_text("subject,event,picture\n" + "\n".join(table))
    second_train = Config(whiten="no").build(Paths()).session(2, 1)["train"]
    assert list(second_train.image_ids) == list(second.image_ids)


def test_people_whose_files_are_not_read_are_disputed(folder):
    presentation = Presentation.randomize(2, 0)
    save(folder / "sub-01.fif", presentation, presentation.pictures)
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
    rows = [f"{2**24 + code},{name}.png" for code, name in enumerate(PICTURE_NAMES, 1)]
    (folder / "events.csv").write_text("\n".join(["event,picture"] + list(rows)) + "\n")
    (dispute,) = take_account().disputes
    assert dispute.kind == "unnamed-codes" and "never came 4" in dispute.problem


def test_another_scale_is_disputed_with_its_factor(folder):
    for value in (1, 2, 3):
        presentation = Presentation.randomize(2, value)
        factor = 0.1 if value == 2 else 1.0
        save(
            folder / f"sub-01_run-{value}.fif",
            presentation,
            presentation.pictures,
            lambda raw, factor=factor: raw.apply_function(lambda x: x * factor),
        )
    (dispute,) = take_account().disputes
    assert dispute.kind == "other-scale" and dispute.names == ("sub-01_run-2.fif",)
    assert "0.1 times" in dispute.problem


def test_events_outside_the_recording_are_counted_up_to_a_fifth(folder):
    presentation = Presentation.randomize(4, 0)
    raw = annotate(make_raw(presentation, 0), presentation, list(presentation.pictures))
    raw.crop(0, (presentation.onsets[-3] - 100) / RATE_HZ).save(
        folder / "sub-01_raw.fif", verbose="ERROR"
    )
    lines = ["onset\tstim_file", "-3\ttrain/cat/cat_0.png"]
    for onset, name in zip(presentation.onsets, presentation.pictures, strict=True):
        lines.append(f"{onset / RATE_HZ}\t{name}.png")
    table = folder / "sub-01_raw_events.tsv"
    table.write_text("\n".join(lines) + "\n")
    account = take_account()
    assert not account.disputes
    assert any("4 outside the recording" in str(row) for row in account.rows)
    table.write_text("\n".join(lines[:1] + lines[-12:]) + "\n")
    lost = [(dispute.kind, dispute.count) for dispute in take_account().disputes]
    # markers without a row, and three of twelve rows
    assert lost[0][1] > 15 and lost[1:] == [("lost-trials", 3)]


def test_absent_pictures_are_disputed_above_a_fifth(folder):
    presentation = Presentation.randomize(4, 0)
    make_raw(presentation, 0).save(folder / "sub-01_raw.fif", verbose="ERROR")
    lines = ["onset\tstim_file"]
    for onset, name in zip(presentation.onsets, presentation.pictures, strict=True):
        lines.append(f"{onset / RATE_HZ - 0.5}\tfixation.png")  # accompanies a trial
        lines.append(f"{onset / RATE_HZ}\t{name}.png")
    table = folder / "sub-01_raw_events.tsv"
    table.write_text("\n".join(lines) + "\n")
    assert not take_account().disputes
    text = table.read_text().replace("/cat_0", "/cat_7").replace("/dog_0", "/dog_7")
    table.write_text(text)
    (dispute,) = take_account().disputes
    assert dispute.kind == "absent-pictures" and "8 trials" in dispute.problem


def test_where_selects_rows_and_mixed_kinds_are_disputed(folder):
    presentation = Presentation.randomize(4, 0)
    raw = make_raw(presentation, 0)
    raw.save(folder / "sub-01_raw.fif", verbose="ERROR")
    lines = ["onset\tstim_file\ttrial_type"]
    for row, (onset, name) in enumerate(
        zip(presentation.onsets, presentation.pictures, strict=True)
    ):
        kind = "imagined" if row >= 16 else "seen"
        lines.append(f"{onset / RATE_HZ}\t{name}.png\t{kind}")
    (folder / "sub-01_raw_events.tsv").write_text("\n".join(lines) + "\n")
    (dispute,) = take_account().disputes
    assert dispute.kind == "mixed-kinds" and dispute.names == ("imagined", "seen")
    account = take_account(where={"trial_type": "seen"})
    assert not account.disputes
    assert any(row[1:4] == ("events", 16, 16) for row in account.rows)
    with pytest.raises(BrainhiveError, match="no column kind"):
        preparation = Config(where={"kind": "seen"}).build(Paths())
        preparation.session(1, 1)


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
    presentation = Presentation.randomize(1, 0)
    (folder / "dataset_description.json").write_text(
        '{"Name": "study", "BIDSVersion": "1.9.0"}'
    )
    (folder / "sub-01/eeg").mkdir(parents=True)
    raw = make_raw(presentation, 0)
    stem = folder / "sub-01/eeg/sub-01_task-x"
    mne.export.export_raw(f"{stem}_eeg.edf", raw, verbose="ERROR")
    path = stem.with_name(f"{stem.name}_{sidecar}")
    path.write_text(content)
    with pytest.raises(BrainhiveError) as refused:
        Config().build(Paths()).session(1, 1)
    assert path.name in refused.value.message and "damaged" not in refused.value.message
