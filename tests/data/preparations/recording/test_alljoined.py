"""Alljoined's two data sets as they lie on NEMAR, by their shipped recipes."""

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.commands.prepare import Recipe
from tests.tools.trial_numbers import numbers_of_preparation

mne = pytest.importorskip("mne")
edfio = pytest.importorskip("edfio")
CHANNELS = ("Cz", "P7", "PO7", "O1", "Oz", "O2")


def build(recipe, *overrides):
    resulting_recipe = Recipe.resolve("prepare", recipe, {}, overrides)
    return resulting_recipe.preparation.build(resulting_recipe.paths)


def paint(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def write(path, signal, rate_hz, kind):
    """Write a recording [C, samples] in volts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    make, signals = {
        "Edf": (edfio.Edf, edfio.EdfSignal),
        "Bdf": (edfio.Bdf, edfio.BdfSignal),
    }[kind]
    channels = zip(CHANNELS, signal, strict=True)
    created_signals = [
        signals(row * 1e6, rate_hz, label=name, physical_dimension="uV")
        for name, row in channels
    ]
    make(created_signals).write(path)


def channels_table(rate_hz):
    rows = [f"{name}\tEEG\tuV\t{rate_hz:.1f}\tgood" for name in CHANNELS]
    return (
        "\n".join(["name\ttype\tunits\tsampling_frequency\tstatus"] + list(rows)) + "\n"
    )


@pytest.fixture
def million(home):
    """Subject 8, with the targets of the task, answers, two markers at once and a
    session made again.
    """
    root = home / "data/alljoined-1.6m"
    for folder, numbers in (("train", (0, 1, 2, 16539)), ("test", (16540, 16641))):
        for number in numbers:
            paint(root / f"pictures/{folder}/{number:05d}.jpg")
    (root / "dataset_description.json").write_text(
        '{"Name": "Alljoined-1.6M", "BIDSVersion": "1.9.0"}'
    )
    training = [
        ("stim_train", 0),
        ("stim_train", 16539),
        ("oddball", 16748),
        ("stim_train", 1),
        ("behav", 3),
    ]
    training += [("stim_train", 2), ("stim_train", 0), ("debug", 1), ("stim_train", 1)]
    testing = [
        ("stim_test", 16641),
        ("stim_test", 16540),
        ("behav", 0),
        ("stim_test", 16641),
    ]
    for session, run_number, events in (
        ("02", 1, testing),
        ("02", 5, training),
        ("02old", 1, testing),
    ):
        stem = f"sub-08_ses-{session}_task-images_run-{run_number:02d}"
        folder = root / f"sub-08/ses-{session}/eeg"
        signal = (
            np.random.default_rng(run_number).normal(size=(len(CHANNELS), 256 * 12))
            * 1e-5
        )
        write(folder / f"{stem}_eeg.edf", signal, 256, "Edf")
        samples = [256 + 220 * index for index in range(len(events))]
        if events is training:
            # a marker of the software, and two pictures
            samples[-1] = samples[-2] = samples[-3]
        rows = [
            f"{sample / 256}\t0.0\t{label},{number},-1,{index}\t{index}\t{sample}\t"
            + ("n/a" if label in ("behav", "debug") else f"{number:05d}.jpg")
            for index, (sample, (label, number)) in enumerate(
                zip(samples, events, strict=True), 1
            )
        ]
        header = "onset\tduration\ttrial_type\tvalue\tsample\tstim_file"
        (folder / f"{stem}_events.tsv").write_text(
            "\ufeff" + "\n".join([header] + list(rows)) + "\n", "utf-8"
        )
        (folder / f"{stem}_channels.tsv").write_text(channels_table(256))
        (folder / f"{stem}_eeg.json").write_text(
            '{"SamplingFrequency": 256, "TaskName": "images"}'
        )
    return root


def test_the_tables_of_alljoined_16m_name_its_pictures(million, recorded):
    preparation = build("papers/alljoined-1.6m", "preparation.whiten=no")
    assert (
        preparation.dataset == "alljoined-1.6m"
        and preparation.subjects == (8,)
        and preparation.sessions(8) == [2]
    )
    session = preparation.session(8, 2)
    assert list(session["train"].image_ids) == [
        f"train/{number:05d}" for number in (0, 16539, 1, 2)
    ]
    assert list(session["test"].image_ids) == [
        f"test/{number:05d}" for number in (16641, 16540, 16641)
    ]
    assert session["train"].provenance["dropped"] == {
        "no such picture": 1,
        "two pictures at once": 2,
    }
    assert (
        session["train"].signal.shape == (4, 6, 250) and session["train"].rate_hz == 250
    )
    raw = mne.io.read_raw(
        million / "sub-08/ses-02/eeg/sub-08_ses-02_task-images_run-01_eeg.edf",
        verbose="ERROR",
    )
    events = np.array([[256 + 220 * value, 0, 1] for value in (0, 1, 3)])
    epochs = mne.Epochs(
        raw, events, tmin=-0.2, tmax=1, preload=True, verbose="ERROR"
    ).resample(250)
    expected = epochs.get_data()[..., 50:300] * 1e6  # as its authors cut them
    np.testing.assert_allclose(session["test"].signal, expected, atol=1e-3)
    recorded(digits=5, **numbers_of_preparation(preparation))


def test_alljoined_1_is_read_with_the_tables_at_its_root(home, recorded):
    root = home / "data/alljoined"
    numbers = (2950, 2990, 3049, 3077, 3146)
    for number in numbers:
        paint(root / f"stimuli/nsd/{number}.png")
    (root / "dataset_description.json").write_text(
        '{"Name": "Alljoined1", "BIDSVersion": "1.9.0"}'
    )
    (root / "task-images_channels.tsv").write_text(channels_table(512))
    (root / "task-images_eeg.json").write_text(
        '{"SamplingFrequency": 512, "TaskName": "images"}'
    )
    stem = root / "sub-02/ses-01/eeg/sub-02_ses-01_task-images"
    signal = np.random.default_rng(0).normal(size=(len(CHANNELS), 512 * 20)) * 1e-5
    write(stem.with_name(f"{stem.name}_eeg.bdf"), signal, 512, "Bdf")
    shown_numbers = [number for number in numbers for _ in range(4)]
    rows = [
        f"{sample / 512}\t0.0\timage/{row}\t{row}\t{sample}\tnsd/{number}.png"
        for row, number in enumerate(shown_numbers)
        for sample in [512 + 410 * row]
    ]
    header = "onset\tduration\ttrial_type\tvalue\tsample\tstim_file"
    stem.with_name(f"{stem.name}_events.tsv").write_text(
        "\n".join([header] + list(rows)) + "\n"
    )

    preparation = build(
        "papers/alljoined", "preparation.whiten=no", "preparation.band_hz=[null,null]"
    )
    session = preparation.session(2, 1)
    assert sorted(set(session["train"].image_ids) | set(session["test"].image_ids)) == [
        str(number) for number in numbers
    ]
    assert len(session["train"].image_ids) == 16 and len(session["test"].image_ids) == 4
    assert (
        session["train"].signal.shape == (16, 6, 150) and session["train"].unit == "µV"
    )
    first_index = shown_numbers.index(int(session["train"].image_ids[0]))
    raw = mne.io.RawArray(
        signal, mne.create_info(list(CHANNELS), 512, "eeg"), verbose="ERROR"
    )
    events = np.array([[512 + 410 * first_index, 0, 1]])
    epochs = mne.Epochs(
        raw, events, tmin=-0.05, tmax=0.6, preload=True, verbose="ERROR"
    ).resample(250)
    expected = epochs.get_data()[0][:, epochs.times >= 0][:, :150] * 1e6
    np.testing.assert_allclose(session["train"].signal[0], expected, atol=0.01)
    recorded(digits=5, **numbers_of_preparation(preparation))
