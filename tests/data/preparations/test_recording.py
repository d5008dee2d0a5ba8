"""Recordings that mne reads: their trials, compared with the epochs that mne cuts."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import butter, sosfilt, sosfilt_zi

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.preparations.recording import Config
from brainhive_cli.data.targets.model_input import spec_of
from tests.tools.trial_numbers import numbers_of_preparation, numbers_of_splits
from tests.worlds.own_recordings import (
    CHANNELS,
    PICTURES,
    RATE_HZ,
    Presentation,
    annotate,
    list_event_codes,
    make_raw,
    write_pictures,
    write_table,
)

mne = pytest.importorskip("mne")
FORMATS = ("fif", "edf", "set", "vhdr", "bids")


@pytest.fixture
def data(home):
    write_pictures(home / "data/image-folder")
    (home / "data/recordings").mkdir()
    return home / "data/recordings"


def build(**keys):
    return Config(**keys).build(Paths())


def export(raw, folder, kind, subject=1, session=1, run_entity=""):
    """Write a recording in one of the formats."""
    if kind == "bids":
        return write_bids(raw, folder, subject, session)
    path = folder / f"sub-{subject:02d}_ses-{session:02d}{run_entity}.{kind}"
    if kind == "fif":
        raw.save(path, verbose="ERROR")
    else:
        mne.export.export_raw(path, raw, verbose="ERROR")
    return path


def write_bids(raw, folder, subject, session):
    import mne_bids

    raw.info["line_freq"] = 50
    bids_path = mne_bids.BIDSPath(
        f"{subject:02d}", f"{session:02d}", "pictures", root=folder, datatype="eeg"
    )
    mne_bids.write_raw_bids(
        raw,
        bids_path,
        format="BrainVision",
        allow_preload=True,
        overwrite=True,
        verbose="ERROR",
    )
    table = bids_path.copy().update(suffix="events", extension=".tsv").fpath
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    column = rows[0].index("trial_type")
    lines = ["\t".join(list(rows[0]) + ["stim_file"])]
    for row in rows[1:]:
        lines.append("\t".join(list(row) + [f"{row[column]}.png"]))
    table.write_text("\n".join(lines) + "\n")
    return bids_path.fpath


def record_shown(
    data, kind="fif", seed=0, names=None, repetitions=2, change=lambda raw: raw, **keys
):
    """Record pictures and save the recording.

    Returns:
        The shown pictures, the recording and its path.
    """
    presentation = Presentation.randomize(repetitions, seed)
    raw = change(
        annotate(
            make_raw(presentation, seed),
            presentation,
            names or list(presentation.pictures),
        )
    )
    return presentation, raw, export(raw, data, kind, **keys)


def list_pictures(image_names, split):
    return [name for name in image_names.pictures if name in PICTURES[split]]


def test_every_format_gives_the_trials_that_mne_cuts(data):
    for kind in FORMATS:
        shutil.rmtree(data)
        data.mkdir()
        check_trials(data, kind)


def check_trials(data, kind):
    image_names, raw, _ = record_shown(data, kind)
    preparation = build(whiten="no")
    assert preparation.subjects == (1,) and preparation.sessions(1) == [1]
    session = preparation.session(1, 1)
    events = np.stack(
        [image_names.onsets, 0 * image_names.onsets, list_event_codes(image_names)],
        axis=1,
    )
    epochs = mne.Epochs(raw, events, tmin=-0.2, tmax=1, preload=True, verbose="ERROR")
    expected = epochs.resample(250, verbose="ERROR").get_data(tmin=0)[..., :250] * 1e6
    is_train = np.isin(image_names.pictures, PICTURES["train"])
    for split, rows in (("train", is_train), ("test", ~is_train)):
        trials = session[split]
        assert list(trials.image_ids) == list_pictures(image_names, split)
        assert (
            trials.space.names == CHANNELS
            and trials.unit == "µV"
            and trials.rate_hz == 250
        )
        # EDF has 16 bits; BrainVision float32
        step = 0.05 if kind in ("edf", "bids") else 1e-3
        np.testing.assert_allclose(trials.signal, expected[rows], atol=step)
        assert preparation.shapes(1, 1)[split] == trials.signal.shape
    assert session["train"].times_s[0] == 0 and len(session["train"].times_s) == 250


def test_codes_of_a_stimulus_channel_are_mapped_by_the_table(data, recorded):
    presentation = Presentation.randomize(2, 0)
    raw = make_raw(presentation, 0)
    stimulus = np.zeros((1, raw.n_times))
    for onset, code in zip(
        presentation.onsets, list_event_codes(presentation), strict=True
    ):
        stimulus[0, onset : onset + 10] = code
    channel = mne.create_info(["STI 014"], RATE_HZ, "stim")
    raw.add_channels(
        [mne.io.RawArray(stimulus, channel, verbose="ERROR")], force_update_info=True
    )
    raw.save(data / "sub-01.fif", verbose="ERROR")
    write_table(data / "events.csv")
    preparation = build(stimulus_ms=300)
    session = preparation.session(1, 1)
    assert list(session["train"].image_ids) == list_pictures(presentation, "train")
    assert session["train"].stimulus_marks == {"stimulus": (0.0, 300.0)}
    assert session["train"].unit == "whitened" and session["train"].whiteners[
        0
    ].shape == (
        6,
        6,
    )
    assert session["train"].provenance["events_from"] == ["channel STI 014"]
    assert data / "events.csv" in preparation.files(1)
    recorded(digits=4, **numbers_of_preparation(preparation))


def test_unmatched_events_and_pictures_are_listed_and_counted(data, recorded):
    presentation = Presentation.randomize(2, 0)
    names = [f"{code}" for code in list_event_codes(presentation)]
    names[3] = "pause"
    record_shown(data, names=names)
    write_table(data / "events.csv")
    with (data / "events.csv").open("a") as table:
        table.write("77,train/zebra/zebra_1.png\n")
    preparation = build()
    session, lines = preparation.session(1, 1), preparation.look_over((1,)).warnings
    assert any(line.endswith(" 1: pause") for line in lines)
    assert any(line.endswith(" 1: 77") for line in lines)
    assert session["train"].provenance["dropped"]["not in the table"] == 1
    assert session["train"].provenance["unmatched"][
        "events that the table does not have"
    ] == {"pause": 1}
    recorded(digits=4, **numbers_of_preparation(preparation))


def test_the_only_trial_is_cut_off_by_the_end_of_the_file(data):
    def keep_first_trial(raw):
        raw.annotations.delete(np.arange(1, len(raw.annotations)))
        return raw.crop(0, raw.annotations.onset[0] + 0.1)

    _, _, path = record_shown(data, change=keep_first_trial)

    with pytest.raises(MissingData, match=r"only trial is cut off") as caught:
        build().session(1, 1)
    assert path.name in caught.value.message
    assert "--subjects" in caught.value.hint


def test_trials_are_dropped_by_reason(data, recorded):
    def change(raw):
        raw.annotations.append(1.0, 0.1, "BAD blink")
        return raw.crop(0, raw.times[-1] - 1.5)

    image_names, _, _ = record_shown(data, change=change)
    session = build().session(1, 1)
    dropped = sum(
        (each.provenance["dropped"] for each in session.values()),
        start=type(session["train"].provenance["dropped"])(),
    )
    assert dropped == {"BAD blink": 1, "beyond the recording": 1}
    assert (
        sum(len(each.image_ids) for each in session.values())
        == len(image_names.pictures) - 2
    )
    recorded(digits=4, **numbers_of_preparation(build()))


def test_runs_of_a_session_follow_each_other(data, recorded):
    first_names, _, _ = record_shown(data, seed=1, run_entity="_run-2")
    second, _, _ = record_shown(data, seed=2, run_entity="_run-10")
    preparation = build()
    train = preparation.session(1, 1)["train"]
    assert list(train.image_ids) == list_pictures(first_names, "train") + list_pictures(
        second, "train"
    )
    is_train = [
        [name in PICTURES["train"] for name in image_names.pictures]
        for image_names in (first_names, second)
    ]
    onsets = np.concatenate(
        [first_names.onsets[is_train[0]], second.onsets[is_train[1]]]
    )
    # each from the start of its run
    np.testing.assert_allclose(train.onset_s, onsets / RATE_HZ)
    assert [path.name for path in preparation.files(1)] == [
        "sub-01_ses-01_run-2.fif",
        "sub-01_ses-01_run-10.fif",
    ]
    recorded(digits=4, **numbers_of_preparation(preparation))


def test_test_trials_do_not_change_the_whitener(data):
    image_names, raw, path = record_shown(data)
    initial_train = build().session(1, 1)["train"]
    for name, onset in zip(image_names.pictures, image_names.onsets, strict=True):
        if name in PICTURES["test"]:
            raw._data[:, onset + 50 : onset + RATE_HZ] *= -3
    raw.save(path, overwrite=True, verbose="ERROR")
    final_train = build().session(1, 1)["train"]
    np.testing.assert_array_equal(initial_train.whiteners[0], final_train.whiteners[0])


def test_a_causal_filter_is_butterworth_without_later_samples(data, recorded):
    image_names, raw, path = record_shown(data)
    keys = {
        "whiten": "no",
        "band_hz": (1, 40),
        "phase": "forward",
        "baseline": False,
        "rate_hz": RATE_HZ,
    }
    signal = build(**keys).session(1, 1)["train"].signal
    sections = butter(4, (1, 40), "bandpass", fs=RATE_HZ, output="sos")
    samples = raw.get_data()
    # the first sample lasted for ever
    steady = sosfilt_zi(sections)[:, None] * samples[None, :, :1]
    filtered = sosfilt(sections, samples, zi=steady)[0] * 1e6
    onsets = image_names.onsets[
        [name in PICTURES["train"] for name in image_names.pictures]
    ]
    np.testing.assert_allclose(
        signal[0], filtered[:, onsets[0] : onsets[0] + RATE_HZ], atol=1e-3
    )

    raw.crop(tmax=(onsets[1] + RATE_HZ) / RATE_HZ, verbose="ERROR").save(
        path, overwrite=True, verbose="ERROR"
    )
    np.testing.assert_array_equal(
        build(**keys).session(1, 1)["train"].signal[:2], signal[:2]
    )
    with pytest.raises(RecipeError, match=r"\bphase\b"):
        build(phase="forward")
    recorded(digits=4, **numbers_of_splits(build(**keys).session(1, 1)))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def change_signal(value):
    def change(path):
        raw = mne.io.read_raw(path, preload=True, verbose="ERROR")
        raw._data[2] = value
        raw.save(path, overwrite=True, verbose="ERROR")

    return change


def keep_test_pictures(path):
    raw = mne.io.read_raw(path, preload=True, verbose="ERROR")
    keep = [
        row
        for row, name in enumerate(raw.annotations.description)
        if name.startswith("test/")
    ]
    raw.set_annotations(raw.annotations[keep]).save(
        path, overwrite=True, verbose="ERROR"
    )


@pytest.mark.parametrize(
    ("harm", "message"),
    (
        (truncate, r"sub-01_ses-01\.fif"),
        (change_signal(0), r"sub-01_ses-01\.fif.*\bP7\b"),
    ),
)
def test_a_damaged_recording_is_named_with_a_hint(data, harm, message, capsys):
    harm(record_shown(data)[2])
    preparation = build()
    with pytest.raises(BrainhiveError, match=message) as error:
        preparation.files(1)
        for session in preparation.sessions(1):
            preparation.session(1, session)
    assert error.value.hint and "\n" not in error.value.in_one_line
    assert "warning" not in capsys.readouterr().err


def test_missing_and_unlabelled_files_are_named(data):
    with pytest.raises(MissingData, match=re.escape(str(data))):
        build().subjects  # noqa: B018
    _, _, path = record_shown(data, "vhdr")
    path.with_suffix(".eeg").unlink()
    with pytest.raises(MissingData, match=r"sub-01_ses-01\.(vhdr|eeg)"):
        build().shapes(1, 1)
    path.rename(data / "eeg.vhdr")
    with pytest.raises(BrainhiveError, match=r"eeg\.vhdr"):
        build().subjects  # noqa: B018


def scale_up(raw):
    return raw.apply_function(lambda volts: volts * 1e6)


def test_sessions_in_different_units_are_refused_by_the_plan(data):
    record_shown(data, session=1, seed=1)
    record_shown(data, session=2, seed=2, change=scale_up)
    problem = r"ses-02\.fif .* 1e\+06 times .* sub-01_ses-01"
    with pytest.raises(BrainhiveError, match=problem):
        build().look_over((1,)).account.require()


def test_magnetometers_and_gradiometers_need_whitening(data):
    presentation = Presentation.randomize(2, 0)
    raw = make_raw(presentation, 0, unit=1e-13, types=["mag", "grad", "grad"] * 2)
    annotate(raw, presentation, list(presentation.pictures)).save(
        data / "sub-01_meg.fif", verbose="ERROR"
    )
    preparation = build()
    train = preparation.session(1, 1)["train"]
    assert (
        train.unit == "whitened"
        and train.signal.shape == preparation.shapes(1, 1)["train"]
    )
    assert train.provenance["recorded_unit"] == "fT and fT/cm"
    for prepare in (build(whiten="no").shapes, build(whiten="no").session):
        with pytest.raises(BrainhiveError, match="mag and grad"):
            prepare(1, 1)


def test_trials_of_a_saturated_amplifier_are_dropped_and_counted(data, recorded):
    def stand_still(raw):
        raw._data[:5, 5000:10000] = 3e-3  # a channel goes on
        return raw

    image_names, _, _ = record_shown(data, change=stand_still)
    preparation = build(whiten="no", band_hz=(1, 40))
    session = preparation.session(1, 1)
    is_flat = (image_names.onsets > 4800) & (image_names.onsets < 9700)
    kept_names = [
        name
        for name, flat in zip(image_names.pictures, is_flat, strict=True)
        if not flat
    ]
    for split, names in PICTURES.items():
        assert list(session[split].image_ids) == [
            name for name in kept_names if name in names
        ]
    assert (
        sum(each.provenance["dropped"]["flat"] for each in session.values())
        == is_flat.sum()
        > 2
    )
    recorded(digits=4, **numbers_of_preparation(preparation))


def test_a_delay_of_the_screen_moves_trials_to_their_pictures(data):
    image_names, raw, path = record_shown(data)
    expected = build(whiten="no").session(1, 1)["train"].signal
    late = mne.Annotations(
        image_names.onsets / RATE_HZ - 0.1, 0.0, list(image_names.pictures)
    )
    raw.set_annotations(late).save(path, overwrite=True, verbose="ERROR")
    np.testing.assert_allclose(
        build(whiten="no", delay_ms=100).session(1, 1)["train"].signal, expected
    )


@pytest.mark.parametrize(
    ("kind", "modality"), [("eeg", "EEG"), ("mag", "MEG"), ("seeg", "iEEG")]
)
@pytest.mark.parametrize("whiten", ["no", "epochs"])
def test_the_channel_types_decide_the_modality(data, kind, modality, whiten):
    presentation = Presentation.randomize(2, 0)
    raw = annotate(
        make_raw(presentation, 0, unit=1e-13, types=kind),
        presentation,
        list(presentation.pictures),
    )
    export(raw, data, "fif")
    trials = build(whiten=whiten, types=[kind]).session(1, 1)["train"]
    trials = replace(trials, subject=1)
    assert trials.modality == spec_of([trials]).modality == modality
    # epochs in memory say it by their unit
    assert replace(trials, provenance={}, unit="fT").modality == "MEG"


def test_flat_channels_are_refused_by_the_plan(data):
    change_signal(0)(record_shown(data)[2])
    with pytest.raises(BrainhiveError, match=r"\bP7\b") as error:
        build().shapes(1, 1)
    assert "preparation.exclude=[P7]" in error.value.hint
