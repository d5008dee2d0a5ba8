"""Recordings that mne reads: their trials, compared with the epochs that mne cuts."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import butter, sosfilt, sosfilt_zi

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.preparations.recording import Config
from brainhive_cli.data.targets.model_input import spec_of
from tests.worlds.own_recordings import (
    CHANNELS,
    PICTURES,
    RATE_HZ,
    Presentation,
    annotate,
    list_event_codes,
    make_raw,
    write_table,
)

mne = pytest.importorskip("mne")


def build(**keys):
    return Config(**keys).build(Paths())


def export(raw, folder, kind="fif", session=1, run_entity=""):
    """Write a recording of subject 1 in a format."""
    path = folder / f"sub-01_ses-{session:02d}{run_entity}.{kind}"
    if kind == "fif":
        raw.save(path, verbose="ERROR")
    else:
        mne.export.export_raw(path, raw, verbose="ERROR")
    return path


def record(seed=0, **options):
    """Record all pictures twice, in memory.

    Returns:
        The presentation and the recording.
    """
    presentation = Presentation.randomize(2, seed)
    raw = make_raw(presentation, seed, **options)
    return presentation, annotate(raw, presentation, list(presentation.pictures))


def list_shown(presentation, split):
    return [name for name in presentation.pictures if name in PICTURES[split]]


@pytest.mark.parametrize(
    ("kind", "tolerance_uv"),
    # EDF has 16 bits
    [("fif", 1e-3), ("edf", 0.05), ("set", 1e-3), ("vhdr", 1e-3)],
)
def test_every_format_gives_the_trials_that_mne_cuts(folder, kind, tolerance_uv):
    presentation, raw = record()
    export(raw, folder, kind)
    preparation = build(whiten="no")
    session = preparation.session(1, 1)

    events = np.zeros((len(presentation.onsets), 3), int)
    events[:, 0] = presentation.onsets
    epochs = mne.Epochs(raw, events, tmin=-0.2, tmax=1, preload=True, verbose="ERROR")
    # µV, from 0 to 1 s
    expected = epochs.resample(250, verbose="ERROR").get_data(tmin=0)[..., :250] * 1e6
    assert preparation.subjects == (1,)
    assert preparation.sessions(1) == [1]
    for split, trials in session.items():
        rows = np.isin(presentation.pictures, PICTURES[split])
        assert list(trials.image_ids) == list_shown(presentation, split)
        assert trials.space.names == CHANNELS
        assert (trials.unit, trials.rate_hz) == ("µV", 250)
        np.testing.assert_allclose(trials.signal, expected[rows], atol=tolerance_uv)
        assert preparation.shapes(1, 1)[split] == trials.signal.shape
        np.testing.assert_allclose(trials.times_s, np.arange(250) / 250)


def test_codes_of_a_stimulus_channel_are_mapped_by_the_table(folder, recorded):
    presentation = Presentation.randomize(2, 0)
    raw = make_raw(presentation, 0)
    stimulus = np.zeros((1, raw.n_times))
    codes = list_event_codes(presentation)
    for onset, code in zip(presentation.onsets, codes, strict=True):
        stimulus[0, onset : onset + 10] = code
    info = mne.create_info(["STI 014"], RATE_HZ, "stim")
    channel = mne.io.RawArray(stimulus, info, verbose="ERROR")
    raw.add_channels([channel], force_update_info=True)
    raw.save(folder / "sub-01.fif", verbose="ERROR")
    write_table(folder / "events.csv")

    preparation = build(stimulus_ms=300)
    train = preparation.session(1, 1)["train"]

    assert list(train.image_ids) == list_shown(presentation, "train")
    assert train.stimulus_marks == {"stimulus": (0.0, 300.0)}
    assert train.unit == "whitened"
    facts = train.provenance
    assert facts["events_from"] == ["channel STI 014"]
    assert facts["time_shift"] == {"late_ms": 2.0, "rate_hz": 250}
    # the recording was filtered up to half of its rate only
    assert (facts["recorded_hz"], facts["filtered_hz"]) == (RATE_HZ, [0, RATE_HZ / 2])
    assert folder / "events.csv" in preparation.files(1)
    recorded(
        digits=4,
        onset_s=train.onset_s,
        signal=train.signal[:, None],
        whiteners=train.whiteners,
        positions=train.space.positions,
    )


def test_unmatched_events_and_pictures_are_listed_and_counted(folder):
    presentation, raw = record()
    names = [str(code) for code in list_event_codes(presentation)]
    names[3] = "pause"
    export(annotate(raw, presentation, names), folder)
    write_table(folder / "events.csv")
    with (folder / "events.csv").open("a") as table:
        table.write("77,train/zebra/zebra_1.png\n")
    preparation = build()
    lines = preparation.look_over((1,)).warnings
    assert any(line.endswith(" 1: pause") for line in lines)
    assert any(line.endswith(" 1: 77") for line in lines)
    facts = preparation.session(1, 1)["train"].provenance
    assert facts["dropped"] == {"not in the table": 1}
    assert facts["unmatched"] == {
        "events that the table does not have": {"pause": 1},
        "events of the table that were not recorded": ["77"],
    }


def test_the_only_trial_is_cut_off_by_the_end_of_the_file(folder):
    _, raw = record()
    raw.annotations.delete(np.arange(1, len(raw.annotations)))
    path = export(raw.crop(0, raw.annotations.onset[0] + 0.1), folder)

    with pytest.raises(MissingData, match=r"only trial is cut off") as caught:
        build().session(1, 1)
    assert path.name in caught.value.message
    assert "--subjects" in caught.value.hint


def test_trials_are_dropped_by_reason(folder):
    """The first picture is shown at 1 s, and the last 2 s before the end."""
    presentation, raw = record()
    raw.annotations.append(1.0, 0.1, "BAD blink")
    export(raw.crop(0, raw.times[-1] - 1.5), folder)
    session = build().session(1, 1)
    names = list(session["train"].image_ids) + list(session["test"].image_ids)
    assert sorted(names) == sorted(presentation.pictures[1:-1])
    assert session["train"].provenance["dropped"] == {"BAD blink": 1}
    assert session["test"].provenance["dropped"] == {"beyond the recording": 1}
    assert session["test"].provenance["dropped_by_split"] == {
        "train": {"BAD blink": 1},
        "test": {"beyond the recording": 1},
    }


def test_runs_of_a_session_follow_each_other(folder):
    names, onsets_s, runs = [], [], []
    for number, (seed, run) in enumerate(((1, 2), (2, 10))):
        presentation, raw = record(seed)
        export(raw, folder, run_entity=f"_run-{run}")
        names += list_shown(presentation, "train")
        is_train = np.isin(presentation.pictures, PICTURES["train"])
        # from the start of the run
        onsets_s += (presentation.onsets[is_train] / RATE_HZ).tolist()
        runs += [number] * is_train.sum()

    preparation = build()
    train = preparation.session(1, 1)["train"]

    assert list(train.image_ids) == names
    np.testing.assert_allclose(train.onset_s, onsets_s)
    assert train.runs.tolist() == runs
    assert [path.name for path in preparation.files(1)] == [
        "sub-01_ses-01_run-2.fif",
        "sub-01_ses-01_run-10.fif",
    ]


def test_test_trials_do_not_change_the_whitener(folder):
    presentation, raw = record()
    path = export(raw, folder)
    expected = build().session(1, 1)["train"].whiteners[0]
    for name, onset in zip(presentation.pictures, presentation.onsets, strict=True):
        if name in PICTURES["test"]:
            raw._data[:, onset + 50 : onset + RATE_HZ] *= -3
    raw.save(path, overwrite=True, verbose="ERROR")
    whitener = build().session(1, 1)["train"].whiteners[0]
    np.testing.assert_array_equal(whitener, expected)


def test_a_causal_filter_is_butterworth_without_later_samples(folder):
    presentation, raw = record()
    path = export(raw, folder)
    keys = {"whiten": "no", "band_hz": (1, 40), "phase": "forward"}
    preparation = build(**keys, baseline=False, rate_hz=RATE_HZ)
    signal = preparation.session(1, 1)["train"].signal
    sections = butter(4, (1, 40), "bandpass", fs=RATE_HZ, output="sos")
    samples = raw.get_data()
    # as if the first sample had lasted for ever
    steady = sosfilt_zi(sections)[:, None] * samples[None, :, :1]
    filtered = sosfilt(sections, samples, zi=steady)[0] * 1e6
    onsets = presentation.onsets[np.isin(presentation.pictures, PICTURES["train"])]
    for trial, onset in zip(signal, onsets, strict=True):
        expected = filtered[:, onset : onset + RATE_HZ]
        np.testing.assert_allclose(trial, expected, atol=1e-3)

    raw.crop(tmax=(onsets[1] + RATE_HZ) / RATE_HZ, verbose="ERROR")
    raw.save(path, overwrite=True, verbose="ERROR")
    cropped = build(**keys, baseline=False, rate_hz=RATE_HZ).session(1, 1)["train"]
    np.testing.assert_array_equal(cropped.signal[:2], signal[:2])
    with pytest.raises(RecipeError, match=r"\bphase\b"):
        build(phase="forward")


def test_a_truncated_recording_is_named_with_a_hint(folder, capsys):
    path = export(record()[1], folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(BrainhiveError, match=r"sub-01_ses-01\.fif") as error:
        build().session(1, 1)
    assert error.value.hint
    assert "\n" not in error.value.in_one_line
    assert "warning" not in capsys.readouterr().err


def test_missing_and_unlabelled_files_are_named(folder):
    with pytest.raises(MissingData, match=re.escape(str(folder))):
        build().subjects  # noqa: B018
    path = export(record()[1], folder, "vhdr")
    path.with_suffix(".eeg").unlink()
    with pytest.raises(MissingData, match=r"sub-01_ses-01\.(vhdr|eeg)"):
        build().shapes(1, 1)
    path.rename(folder / "eeg.vhdr")
    with pytest.raises(BrainhiveError, match=r"eeg\.vhdr"):
        build().subjects  # noqa: B018


def test_sessions_in_different_units_are_refused_by_the_plan(folder):
    export(record(seed=1)[1], folder, session=1)
    export(record(seed=2, unit=1.0)[1], folder, session=2)
    problem = r"ses-02\.fif .* 1e\+06 times .* sub-01_ses-01"
    with pytest.raises(BrainhiveError, match=problem):
        build().look_over((1,)).account.require()


def test_magnetometers_and_gradiometers_need_whitening(folder):
    export(record(unit=1e-13, types=["mag", "grad", "grad"] * 2)[1], folder)
    preparation = build()
    train = preparation.session(1, 1)["train"]
    assert train.unit == "whitened"
    assert train.signal.shape == preparation.shapes(1, 1)["train"]
    assert train.provenance["recorded_unit"] == "fT and fT/cm"
    for prepare in (build(whiten="no").shapes, build(whiten="no").session):
        with pytest.raises(BrainhiveError, match="mag and grad"):
            prepare(1, 1)


def test_trials_of_a_saturated_amplifier_are_dropped_and_counted(folder):
    presentation, raw = record()
    raw._data[:5, 5000:10000] = 3e-3  # one channel goes on
    export(raw, folder)
    session = build(whiten="no", band_hz=(1, 40)).session(1, 1)
    is_flat = (presentation.onsets > 4800) & (presentation.onsets < 9700)
    names = np.array(presentation.pictures)
    for split, pictures in PICTURES.items():
        in_split = np.isin(names, pictures)
        kept = names[in_split & ~is_flat].tolist()
        assert list(session[split].image_ids) == kept
        flat = {"flat": (in_split & is_flat).sum()}
        assert session[split].provenance["dropped"] == flat


def test_a_delay_of_the_screen_moves_trials_to_their_pictures(folder):
    presentation, raw = record()
    path = export(raw, folder)
    expected = build(whiten="no").session(1, 1)["train"].signal
    early = mne.Annotations(raw.annotations.onset - 0.1, 0.0, presentation.pictures)
    raw.set_annotations(early).save(path, overwrite=True, verbose="ERROR")
    train = build(whiten="no", delay_ms=100).session(1, 1)["train"]
    np.testing.assert_allclose(train.signal, expected)


@pytest.mark.parametrize(
    ("kind", "whiten", "modality"),
    [("eeg", "no", "EEG"), ("mag", "epochs", "MEG"), ("seeg", "epochs", "iEEG")],
)
def test_the_channel_types_decide_the_modality(folder, kind, whiten, modality):
    export(record(unit=1e-13, types=kind)[1], folder)
    trials = build(whiten=whiten, types=[kind]).session(1, 1)["train"]
    trials = replace(trials, subject=1)
    assert trials.modality == spec_of([trials]).modality == modality
    # epochs in memory say it by their unit
    assert replace(trials, provenance={}, unit="fT").modality == "MEG"


def test_flat_channels_are_refused_by_the_plan(folder):
    _, raw = record()
    raw._data[2] = 0
    export(raw, folder)
    with pytest.raises(BrainhiveError, match=r"sub-01_ses-01\.fif.*\bP7\b") as error:
        build().shapes(1, 1)
    assert "preparation.exclude=[P7]" in error.value.hint
