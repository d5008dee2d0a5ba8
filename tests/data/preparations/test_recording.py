"""Anyone's own recordings: read by mne, matched with pictures, cut as mne cuts them."""

import struct
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from own_recordings import (
    CHANNELS,
    PICTURES,
    RATE_HZ,
    Shown,
    annotate,
    codes,
    make_raw,
    response,
    write_pictures,
    write_table,
)
from scipy.signal import butter, sosfilt, sosfilt_zi

from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations.recording import Config

mne = pytest.importorskip("mne")
FORMATS = ("fif", "edf", "set", "vhdr", "bids")


@pytest.fixture
def data(home):
    write_pictures(home / "data/image-folder")
    (home / "data/recordings").mkdir()
    return home / "data/recordings"


def build(**knobs):
    return Config(**knobs).build(Paths())


def export(raw, folder: Path, kind: str, subject=1, session=1, run=""):
    """Write a recording in one of the formats."""
    if kind == "bids":
        return write_bids(raw, folder, subject, session)
    path = folder / f"sub-{subject:02d}_ses-{session:02d}{run}.{kind}"
    if kind == "fif":
        raw.save(path, verbose="ERROR")
    else:
        mne.export.export_raw(path, raw, verbose="ERROR")
    return path


def write_bids(raw, folder, subject, session):
    import mne_bids

    raw.info["line_freq"] = 50
    place = mne_bids.BIDSPath(f"{subject:02d}", f"{session:02d}", "pictures", root=folder, datatype="eeg")
    mne_bids.write_raw_bids(
        raw, place, format="BrainVision", allow_preload=True, overwrite=True, verbose="ERROR"
    )
    table = place.copy().update(suffix="events", extension=".tsv").fpath
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    at = rows[0].index("trial_type")
    lines = ["\t".join([*row, "stim_file" if not i else f"{row[at]}.png"]) for i, row in enumerate(rows)]
    table.write_text("\n".join(lines) + "\n")
    return place.fpath


def recorded(data, kind="fif", seed=0, names=None, repetitions=2, change=lambda raw: raw, **how):
    shown = Shown.of(repetitions, seed)
    raw = change(annotate(make_raw(shown, seed), shown, names or list(shown.pictures)))
    return shown, raw, export(raw, data, kind, **how)


def picture_of(shown, split):
    return [name for name in shown.pictures if name in PICTURES[split]]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_trials_that_mne_cuts(data, kind):
    shown, raw, _ = recorded(data, kind)
    made = build(whiten="no")
    assert made.subjects == (1,) and made.sessions(1) == [1]
    found = made.session(1, 1)
    events = np.stack([shown.onsets, 0 * shown.onsets, codes(shown)], axis=1)
    kept = mne.Epochs(raw, events, tmin=-0.2, tmax=1, preload=True, verbose="ERROR")
    expected = kept.resample(250, verbose="ERROR").get_data(tmin=0)[..., :250] * 1e6
    is_train = np.isin(shown.pictures, PICTURES["train"])
    for split, rows in (("train", is_train), ("test", ~is_train)):
        trials = found[split]
        assert list(trials.image_ids) == picture_of(shown, split)
        assert trials.space.names == CHANNELS and trials.unit == "µV" and trials.rate_hz == 250
        step = 0.05 if kind in ("edf", "bids") else 1e-3  # EDF has 16 bits; BrainVision float32
        np.testing.assert_allclose(trials.signal[:, 0], expected[rows], atol=step)
        assert made.shapes(1, 1)[split] == trials.signal[:, 0].shape
    assert found["train"].times_s[0] == 0 and len(found["train"].times_s) == 250


def test_a_known_response_comes_back(data):
    shown = Shown.of(30, 0)
    raw = annotate(make_raw(shown, 0, noise=2), shown, list(shown.pictures))
    export(raw, data, "fif")
    trials = build(whiten="no").session(1, 1)["test"]
    for picture in PICTURES["test"]:
        evoked = trials.signal[:, 0][np.array(trials.image_ids) == picture].mean(axis=0)
        expected = response(picture)[:, ::2]
        assert np.abs(evoked - expected).max() < 2  # µV, of 10; noise of 30 trials and a baseline is 0.4


def test_codes_of_a_stimulus_channel_are_mapped_by_the_table(data):
    shown = Shown.of(2, 0)
    raw = make_raw(shown, 0)
    stimulus = np.zeros((1, raw.n_times))
    for onset, code in zip(shown.onsets, codes(shown), strict=True):
        stimulus[0, onset : onset + 10] = code
    channel = mne.create_info(["STI 014"], RATE_HZ, "stim")
    raw.add_channels([mne.io.RawArray(stimulus, channel, verbose="ERROR")], force_update_info=True)
    raw.save(data / "sub-01.fif", verbose="ERROR")
    write_table(data / "events.csv")
    made = build(stimulus_ms=300)
    found = made.session(1, 1)
    assert list(found["train"].image_ids) == picture_of(shown, "train")
    assert found["train"].stimulus_marks == {"stimulus": (0.0, 300.0)}
    assert found["train"].unit == "whitened" and found["train"].whiteners[0].shape == (6, 6)
    assert found["train"].provenance["events_from"] == ["channel STI 014"]
    assert data / "events.csv" in made.files(1)


@pytest.mark.parametrize("event", ("S  {}", "{}", "Stimulus/S{:3d}"))
@pytest.mark.parametrize("table", ("{}", "S {}"))
def test_brainvision_s_markers_are_found_by_their_codes(data, event, table):
    shown = Shown.of(2, 0)
    recorded(data, "vhdr", names=[event.format(code) for code in codes(shown)])
    if table == "S {}" and event == "{}":
        pytest.skip("a bare code is no S code")
    write_table(data / "events.csv", table)
    assert list(build().session(1, 1)["train"].image_ids) == picture_of(shown, "train")


def test_a_recording_that_was_cropped_keeps_its_times(data):
    recorded(data, change=lambda raw: raw.crop(0.5))
    found = build(whiten="no").session(1, 1)
    whole = build(whiten="no", root=str(data.parent / "whole"))
    (data.parent / "whole").mkdir()
    recorded(data.parent / "whole")
    expected = whole.session(1, 1)["train"].signal
    np.testing.assert_allclose(found["train"].signal, expected, atol=1e-3)


def test_what_does_not_match_is_listed_on_both_sides_and_counted(data):
    shown = Shown.of(2, 0)
    names = [f"{code}" for code in codes(shown)]
    names[3] = "pause"
    recorded(data, names=names)
    write_table(data / "events.csv")
    with (data / "events.csv").open("a") as table:
        table.write("77,train/zebra/zebra_1.png\n")
    own = build()
    found, lines = own.session(1, 1), own.look_over((1,)).warnings
    assert "subject 1: events that the table does not have, 1: pause" in lines
    assert "subject 1: events of the table that were not recorded, 1: 77" in lines
    assert found["train"].provenance["dropped"]["not in the table"] == 1
    assert found["train"].provenance["unmatched"]["events that the table does not have"] == {"pause": 1}


def test_trials_are_dropped_by_reason(data):
    def change(raw):
        raw.annotations.append(1.0, 0.1, "BAD blink")
        return raw.crop(0, raw.times[-1] - 1.5)

    shown, _, _ = recorded(data, change=change)
    found = build().session(1, 1)
    dropped = sum(
        (each.provenance["dropped"] for each in found.values()),
        start=type(found["train"].provenance["dropped"])(),
    )
    assert dropped == {"BAD blink": 1, "beyond the recording": 1}
    assert sum(len(each.image_ids) for each in found.values()) == len(shown.pictures) - 2


@pytest.mark.parametrize("text", ("boundary", "New Segment/", "New Segment/LostSamples: 5"))
def test_a_trial_across_an_interruption_is_dropped(data, text):
    def change(raw):
        onset_s = raw.annotations.onset
        for at, length_s in ((0, 0), (onset_s[1] - 0.25, 0), (onset_s[3] + 0.5, 30)):
            raw.annotations.append(at, length_s, text)
        return raw

    recorded(data, change=change)
    found = build().session(1, 1)
    dropped = sum(
        (each.provenance["dropped"] for each in found.values()),
        start=type(found["train"].provenance["dropped"])(),
    )
    assert dropped == {text: 1}


def test_what_a_session_dropped_is_known_to_each_split(data):
    shown = Shown.of(2, 0)

    def change(raw):
        for name, onset in zip(shown.pictures, shown.onsets, strict=True):
            if name in PICTURES["test"]:
                raw.annotations.append(onset / RATE_HZ, 0.1, "BAD blink")
        return raw

    recorded(data, change=change)
    found = build().session(1, 1)
    assert list(found) == ["train"]
    assert found["train"].provenance["dropped_by_split"]["test"] == {"BAD blink": 4}


def test_of_two_pictures_at_once_neither_is_a_trial_and_one_named_twice_is_one(data):
    def change(raw):
        onset_s = raw.annotations.onset
        raw.annotations.append(onset_s[1], 0, raw.annotations.description[1])
        first, other = raw.annotations.description[0], PICTURES["test"][0]
        raw.annotations.append(onset_s[0], 0, other if first != other else PICTURES["test"][1])
        return raw

    shown, _, _ = recorded(data, change=change)
    found = build().session(1, 1)
    assert sum(each.provenance["dropped"]["two pictures at once"] for each in found.values()) == 2
    assert sum(len(each.image_ids) for each in found.values()) == len(shown.pictures) - 1


def test_pictures_that_are_missing_are_told_by_the_keys_of_this_recipe(data):
    recorded(data)
    with pytest.raises(MissingData) as error:
        build(stimuli={"kind": "image-folder", "root": "elsewhere"})
    assert "preparation.stimuli.root=FOLDER" in error.value.hint


def test_runs_of_a_session_follow_each_other(data):
    first, _, _ = recorded(data, seed=1, run="_run-2")
    second, _, _ = recorded(data, seed=2, run="_run-10")
    made = build()
    found = made.session(1, 1)["train"]
    assert list(found.image_ids) == picture_of(first, "train") + picture_of(second, "train")
    is_train = [[name in PICTURES["train"] for name in shown.pictures] for shown in (first, second)]
    onsets = np.concatenate([first.onsets[is_train[0]], second.onsets[is_train[1]]])
    np.testing.assert_allclose(found.onset_s[:, 0], onsets / RATE_HZ)  # each from the start of its run
    assert [path.name for path in made.files(1)] == ["sub-01_ses-01_run-2.fif", "sub-01_ses-01_run-10.fif"]


def test_test_trials_do_not_change_the_whitener(data):
    shown, raw, path = recorded(data)
    before = build().session(1, 1)["train"]
    for name, onset in zip(shown.pictures, shown.onsets, strict=True):
        if name in PICTURES["test"]:
            raw._data[:, onset + 50 : onset + RATE_HZ] *= -3
    raw.save(path, overwrite=True, verbose="ERROR")
    after = build().session(1, 1)["train"]
    np.testing.assert_array_equal(before.whiteners[0], after.whiteners[0])


def test_a_session_without_training_trials_is_whitened_by_those_of_the_other_sessions(data):
    recorded(data, session=1, seed=1)
    recorded(data, session=2, seed=2, change=lambda raw: raw.apply_function(lambda volts: 3 * volts))
    path = recorded(data, session=3, seed=3)[2]
    keep_test_pictures(path)
    prepared = build(whiten_by="all_training")
    assert prepared.shapes(1, 3) == build(whiten="no").shapes(1, 3)
    held_out = prepared.session(1, 3)["test"]

    # Σ is the mean of the sessions' own: the inverse square of each whitener
    alone = [build().session(1, session)["train"].whiteners[0] for session in (1, 2)]
    noise, whitener = [np.linalg.matrix_power(matrix, -2) for matrix in alone], held_out.whiteners[0]
    np.testing.assert_allclose(np.linalg.matrix_power(whitener, -2), np.mean(noise, axis=0), rtol=1e-6)
    microvolts = build(whiten="no").session(1, 3)["test"].signal
    np.testing.assert_allclose(held_out.signal, whitener.astype(np.float32) @ microvolts, atol=1e-4)
    assert held_out.unit == "whitened" and held_out.provenance["noise_of_sessions"] == [1, 2]
    np.testing.assert_array_equal(prepared.session(1, 1)["train"].whiteners[0], whitener)

    # its own trials change nothing, but a dead channel is refused although no noise is measured in it
    change_signal(0)(path)
    with pytest.raises(BrainhiveError, match=r"sub-01_ses-03.fif: flat channels: P7"):
        build(whiten_by="all_training").session(1, 3)


def test_a_subject_without_training_trials_cannot_be_whitened_by_those_of_all_sessions(data):
    for session in (1, 2):
        keep_test_pictures(recorded(data, session=session)[2])
    prepared = build(whiten_by="all_training")
    for prepare in (prepared.shapes, prepared.session):
        with pytest.raises(BrainhiveError, match=r"no session of subject 1 below .* has training trials"):
            prepare(1, 2)


def test_a_channel_that_was_marked_as_bad_is_left_out(data):
    def mark(raw):
        raw.info["bads"] = ["Cz"]
        return raw

    recorded(data, session=1)
    recorded(data, session=2, change=mark)
    found = build()
    assert found.session(1, 1)["train"].space.names == ("Fp1", "P7", "Pz", "O1", "O2")
    assert found.shapes(1, 2)["train"][1] == 5


def test_positions_are_the_standard_ones_where_the_file_has_none(data):
    recorded(data)
    positions = build().session(1, 1)["train"].space.positions
    info = mne.create_info(list(CHANNELS), RATE_HZ, "eeg").set_montage("standard_1005")  # head coordinates
    np.testing.assert_allclose(positions, [channel["loc"][:3] for channel in info["chs"]], atol=1e-6)


def test_a_filter_is_mne_s(data):
    shown, raw, _ = recorded(data)
    found = build(whiten="no", band_hz=(1, 40), baseline=False, rate_hz=RATE_HZ).session(1, 1)["train"]
    filtered = raw.filter(1, 40, verbose="ERROR").get_data()
    onset = shown.onsets[[name in PICTURES["train"] for name in shown.pictures]][0]
    np.testing.assert_allclose(found.signal[0, 0], filtered[:, onset : onset + RATE_HZ] * 1e6, atol=1e-3)


def test_a_causal_filter_is_butterworth_s_and_does_not_see_what_comes_later(data):
    shown, raw, path = recorded(data)
    how = {"whiten": "no", "band_hz": (1, 40), "phase": "forward", "baseline": False, "rate_hz": RATE_HZ}
    found = build(**how).session(1, 1)["train"].signal[:, 0]
    sections = butter(4, (1, 40), "bandpass", fs=RATE_HZ, output="sos")
    samples = raw.get_data()
    steady = sosfilt_zi(sections)[:, None] * samples[None, :, :1]  # the first sample lasted for ever
    filtered = sosfilt(sections, samples, zi=steady)[0] * 1e6
    onsets = shown.onsets[[name in PICTURES["train"] for name in shown.pictures]]
    np.testing.assert_allclose(found[0], filtered[:, onsets[0] : onsets[0] + RATE_HZ], atol=1e-3)

    raw.crop(tmax=(onsets[1] + RATE_HZ) / RATE_HZ, verbose="ERROR").save(
        path, overwrite=True, verbose="ERROR"
    )
    np.testing.assert_array_equal(build(**how).session(1, 1)["train"].signal[:2, 0], found[:2])
    with pytest.raises(RecipeError, match="phase has no effect without a filter"):
        build(phase="forward")


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def swap_rate(path):
    raw = mne.io.read_raw(path, preload=True, verbose="ERROR").resample(250, verbose="ERROR")
    raw.save(path.with_name("sub-01_ses-02.fif"), verbose="ERROR")


def rename_channel(path):
    raw = mne.io.read_raw(path, preload=True, verbose="ERROR").rename_channels({"Pz": "PZ2"})
    raw.save(path.with_name("sub-01_ses-02.fif"), verbose="ERROR")


def change_signal(value):
    def change(path):
        raw = mne.io.read_raw(path, preload=True, verbose="ERROR")
        raw._data[2] = value
        raw.save(path, overwrite=True, verbose="ERROR")

    return change


def silence(path):
    raw = mne.io.read_raw(path, preload=True, verbose="ERROR").set_annotations(None)
    raw.save(path, overwrite=True, verbose="ERROR")


def keep_test_pictures(path):
    raw = mne.io.read_raw(path, preload=True, verbose="ERROR")
    keep = [place for place, name in enumerate(raw.annotations.description) if name.startswith("test/")]
    raw.set_annotations(raw.annotations[keep]).save(path, overwrite=True, verbose="ERROR")


def swap_splits(path):
    folder = path.parents[1] / "image-folder"
    for old, new in (("train", "swapped"), ("test", "train"), ("swapped", "test")):
        (folder / old).rename(folder / new)


def swap_splits_of_a_table(path):
    codes = {name: str(code) for code, name in enumerate(PICTURES["train"] + PICTURES["test"])}
    raw = mne.io.read_raw(path, preload=True, verbose="ERROR")
    raw.annotations.description = np.array([codes[name] for name in raw.annotations.description])
    raw.save(path, overwrite=True, verbose="ERROR")
    rows = [f"{code},{name}" for name, code in codes.items()]
    (path.parent / "events.csv").write_text("\n".join(["event,picture", *rows]))
    swap_splits(path)


def spoil_channel_type(path):
    content = bytearray(path.read_bytes())
    tag = content.index(struct.pack(">3i", 203, 30, 96))  # of the first channel: kind, type, size
    content[tag + 24 : tag + 28] = struct.pack(">i", 162)
    path.write_bytes(content)


def rename_pictures(path):
    folder = path.parents[1] / "image-folder"
    for picture in list(folder.rglob("*.png")):
        picture.rename(picture.with_name(f"other_{picture.name}"))


@pytest.mark.parametrize(
    ("harm", "message"),
    (
        (truncate, r"sub-01_ses-01.fif (cannot be read|is damaged)"),
        (spoil_channel_type, r"sub-01_ses-01.fif cannot be read: Unknown channel type"),
        (swap_rate, r"sub-01_ses-02.fif has 250 Hz, but sub-01_ses-01.fif 500 Hz"),
        (rename_channel, r"sub-01_ses-02.fif has no channel Pz"),
        (lambda path: path.write_bytes(b""), r"sub-01_ses-01.fif is empty"),
        (lambda path: (path.unlink(), path.symlink_to("gone")), r"is a link to a file that is not there"),
        (swap_splits, r"none of its events \(annotations\) is in the pictures, of 8: t"),
        (swap_splits_of_a_table, r"none of its events .* is in the data set, by .*events.csv, of 8: t"),
        (change_signal(np.nan), r"sub-01_ses-01.fif: channel P7 has NaN"),
        (change_signal(0), r"sub-01_ses-01.fif: flat channels: P7"),
        (silence, r"sub-01_ses-01.fif has no events"),
        (rename_pictures, r"none of its events \(annotations\) is in the pictures, of 8: "),
    ),
)
def test_bad_input_gets_a_line_that_names_the_file_and_a_way_out(data, harm, message, capsys):
    harm(recorded(data)[2])
    made = build()
    with pytest.raises(BrainhiveError, match=message) as error:
        made.files(1)
        for session in made.sessions(1):
            made.session(1, session)
    assert error.value.hint and "\n" not in error.value.in_one_line
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "ending"), (("edf", "edf"), ("set", "set"), ("vhdr", "eeg")))
def test_a_truncated_file_is_refused_in_every_format(data, kind, ending):
    truncate(recorded(data, kind)[2].with_suffix(f".{ending}"))
    with pytest.raises(MissingData, match=r"sub-01_ses-01\.\w+ (cannot be read|is damaged): ") as error:
        build().session(1, 1)
    assert "export it again" in error.value.hint


def test_a_lack_of_memory_is_not_taken_for_damage(data, monkeypatch):
    recorded(data)
    made = build()
    made.shapes(1, 1)
    monkeypatch.setattr(mne.io.BaseRaw, "get_data", Mock(side_effect=MemoryError("Unable to allocate")))
    with pytest.raises(MemoryError):
        made.session(1, 1)


def test_a_stimulus_channel_without_events_is_named(data):
    raw = make_raw(Shown.of(1, 0), 0, types=["eeg"] * 5 + ["stim"])
    raw._data[5] = 0
    raw.save(data / "sub-01.fif", verbose="ERROR")
    with pytest.raises(BrainhiveError, match=r"sub-01.fif: the stimulus channel O2 has no events"):
        build().shapes(1, 1)


@pytest.mark.parametrize("kind", ("fif", "bids"))
def test_events_without_an_onset_are_counted_and_are_no_trials(data, kind):
    shown, _, path = recorded(data, kind)
    if kind == "bids":
        table = path.with_name(path.name.replace("_eeg.vhdr", "_events.tsv"))
        header, *rows = [line.split("\t") for line in table.read_text().splitlines()]
        column = "stim_file"
    else:
        table, column = path.with_name("sub-01_ses-01_events.tsv"), "picture"
        header, rows = (
            ["onset", "picture"],
            [[str(at / RATE_HZ), name] for at, name in zip(shown.onsets, shown.pictures, strict=True)],
        )
    first, name = header.index("onset"), rows[0][header.index(column)].removesuffix(".png")
    rows[0][first] = "n/a"
    table.write_text("\n".join("\t".join(row) for row in (header, *rows)) + "\n")
    split = next(split for split, names in PICTURES.items() if name in names)

    recordings = build(column=column).session(1, 1)

    assert recordings[split].provenance["dropped"]["without an onset"] == 1


def test_a_session_that_is_missing_is_told(data):
    recorded(data, session=1)
    recorded(data, session=3)
    recorded(data, subject=2, session=2)
    lines = build().look_over((1, 2)).warnings
    assert lines.count("subject 1: no recording of session 2") == 1
    assert lines.count("subject 2: no recording of session 1, 3") == 1


def test_the_plan_refuses_a_session_without_training_trials_as_the_preparation_does(data):
    keep_test_pictures(recorded(data)[2])
    for prepare in (build().shapes, build().session):
        with pytest.raises(BrainhiveError, match=r"sub-01_ses-01.fif: this session has no training trials"):
            prepare(1, 1)
    assert build(whiten="no").shapes(1, 1)["test"][0] == 4


def test_files_that_are_missing_or_nobody_s_are_named(data):
    with pytest.raises(MissingData, match="no recording"):
        build().subjects  # noqa: B018
    _, _, path = recorded(data, "vhdr")
    path.with_suffix(".eeg").unlink()
    with pytest.raises(MissingData, match=r"sub-01_ses-01\.(vhdr|eeg)"):
        build().shapes(1, 1)
    path.rename(data / "eeg.vhdr")
    with pytest.raises(BrainhiveError, match="does not say whose it is"):
        build().subjects  # noqa: B018


@pytest.mark.parametrize("name", ("gone.csv", "."))
def test_a_table_that_is_no_file_is_refused_before_anything_is_read(data, name):
    recorded(data)
    with pytest.raises(MissingData, match="no table ") as error:
        build(events=name).files(1)
    assert "columns event and picture" in error.value.hint


def test_the_column_that_was_asked_for_is_named_where_no_table_has_it(data):
    recorded(data)
    with pytest.raises(MissingData, match=r"no events\.tsv with a column image") as error:
        build(column="image").shapes(1, 1)
    assert error.value.hint.startswith("write sub-01_ses-01_events.tsv with columns onset (s) and image")
    assert error.value.hint.endswith("\"preparation.column=''\"")  # which a shell leaves as it is


def test_a_table_without_its_columns_is_refused(data):
    recorded(data)
    (data / "events.csv").write_text("code;file\n1;cat.png\n")
    with pytest.raises(BrainhiveError, match=r"events\.csv has no column event and picture") as error:
        build().shapes(1, 1)
    assert "code, file" in error.value.hint


def test_magnetometers_are_read_in_femtotesla_at_their_positions(data):
    shown = Shown.of(2, 0)
    raw = annotate(make_raw(shown, 0, unit=1e-15, types="mag"), shown, list(shown.pictures))
    for channel in raw.info["chs"]:
        channel["loc"][:3] = 0.1
    raw.save(data / "sub-01_meg.fif", verbose="ERROR")
    found = build(whiten="no").session(1, 1)["train"]
    assert found.unit == "fT" and np.allclose(found.space.positions, 0.1)
    np.testing.assert_allclose(np.median(found.signal.std(axis=3)), 10, rtol=0.3)  # fT, of 10


def scale_up(raw):
    return raw.apply_function(lambda volts: volts * 1e6)


def compensate(raw):
    for channel in raw.info["chs"]:
        channel["coil_type"] = int(channel["coil_type"]) | (3 << 16)
    return raw


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (scale_up, r"ses-02\.fif has signals of 1e\+06 times the size of those of sub-01_ses-01\.fif"),
        (compensate, r"ses-02\.fif has CTF's compensation of grade 3, but sub-01_ses-01\.fif 0"),
        (lambda raw: raw.resample(500.02), r"ses-02\.fif has 500\.0199\d+ Hz, but sub-01_ses-01\.fif 500 Hz"),
    ),
)
def test_sessions_of_one_person_that_disagree_are_refused_by_the_plan_too(data, change, message):
    types = dict.fromkeys(CHANNELS, "mag")
    recorded(
        data, session=1, seed=1, change=lambda raw: raw.set_channel_types(types, on_unit_change="ignore")
    )
    recorded(
        data,
        session=2,
        seed=2,
        change=lambda raw: change(raw.set_channel_types(types, on_unit_change="ignore")),
    )
    for prepare in (build().shapes, build().session):
        with pytest.raises(BrainhiveError, match=message):
            prepare(1, 2)


def test_two_runs_may_show_the_same_pictures_at_the_same_times(data):
    recorded(data, seed=1, repetitions=1, run="_run-1")
    recorded(data, seed=1, repetitions=1, run="_run-2", change=lambda raw: raw.filter(1, 40))
    assert build().shapes(1, 1)["train"][0] == 12  # of 6 pictures in each run


def test_magnetometers_with_gradiometers_are_whitened_and_refused_otherwise(data):
    shown = Shown.of(2, 0)
    raw = make_raw(shown, 0, unit=1e-13, types=["mag", "grad", "grad"] * 2)
    annotate(raw, shown, list(shown.pictures)).save(data / "sub-01_meg.fif", verbose="ERROR")
    made = build()
    found = made.session(1, 1)["train"]
    assert found.unit == "whitened" and found.signal[:, 0].shape == made.shapes(1, 1)["train"]
    assert found.provenance["recorded_unit"] == "fT and fT/cm"
    for prepare in (build(whiten="no").shapes, build(whiten="no").session):
        with pytest.raises(BrainhiveError, match="mag and grad have different units"):
            prepare(1, 1)


@pytest.mark.parametrize("band_hz", ((None, None), (1, 40)))
def test_trials_of_an_amplifier_at_its_limit_are_dropped_and_said(data, band_hz):
    def stand_still(raw):
        raw._data[:5, 5000:10000] = 3e-3  # one channel goes on
        return raw

    shown, _, _ = recorded(data, change=stand_still)
    own = build(whiten="no", band_hz=band_hz)
    found = own.session(1, 1)
    is_flat = (shown.onsets > 4800) & (shown.onsets < 9700)
    kept = [name for name, flat in zip(shown.pictures, is_flat, strict=True) if not flat]
    for split, names in PICTURES.items():
        assert list(found[split].image_ids) == [name for name in kept if name in names]
    assert sum(each.provenance["dropped"]["flat"] for each in found.values()) == is_flat.sum() > 2


def test_a_channel_of_codes_is_no_signal(data):
    shown = Shown.of(2, 0)
    raw = make_raw(shown, 0)
    raw._data[2] = 0
    for onset, code in zip(shown.onsets, codes(shown), strict=True):
        raw._data[2, onset : onset + 20] = code * 1e-6
    raw.save(data / "sub-01.fif", verbose="ERROR")
    write_table(data / "events.csv")
    found = build(stim_channel="P7").session(1, 1)["train"]
    assert list(found.image_ids) == picture_of(shown, "train") and "P7" not in found.space.names


def test_a_delay_of_the_screen_moves_trials_to_their_pictures(data):
    shown, raw, path = recorded(data)
    expected = build(whiten="no").session(1, 1)["train"].signal
    late = mne.Annotations(shown.onsets / RATE_HZ - 0.1, 0.0, list(shown.pictures))
    raw.set_annotations(late).save(path, overwrite=True, verbose="ERROR")
    np.testing.assert_allclose(build(whiten="no", delay_ms=100).session(1, 1)["train"].signal, expected)


def test_categories_are_called_by_their_whole_names(data):
    names = ["face", "house", "cue/face", "face"] * 4
    recorded(data, names=names)
    found = build(stimuli={"kind": "categories", "names": ["face", "house"]}).session(1, 1)["train"]
    assert list(found.image_ids) == [name for name in names if "/" not in name]


def test_names_of_events_are_compared_composed(data):
    composed, decomposed = "train/caf\u00e9/caf\u00e9_1", "train/cafe\u0301/cafe\u0301_1"
    for name in PICTURES["train"]:
        (data.parent / f"image-folder/{name}.png").rename(data.parent / f"image-folder/{name}_.png")
    folder = (data.parent / f"image-folder/{decomposed}.png").parent
    folder.mkdir()
    (folder.parent / "cat/cat_0_.png").rename(data.parent / f"image-folder/{decomposed}.png")
    recorded(data, names=[composed, "13.0"] * 8)
    (data / "events.csv").write_text(f"event,picture\n{decomposed},{composed}\n13,train/dog/dog_0_\n")
    assert set(build().session(1, 1)["train"].image_ids) == {decomposed, "train/dog/dog_0_"}
