"""Alljoined's two data sets as they lie on NEMAR, by their shipped recipes."""

import numpy as np
import pytest

from brainhive_cli.commands.prepare import Recipe
from tests.worlds.bids_eeg import (
    describe_dataset,
    paint,
    write_edf,
    write_sidecars,
    write_tsv,
)

mne = pytest.importorskip("mne")
pytest.importorskip("edfio")
CHANNELS = ("Cz", "P7", "PO7", "O1", "Oz", "O2")
EVENT_COLUMNS = "onset duration trial_type value sample stim_file"


def build(name, *overrides):
    recipe = Recipe.resolve("prepare", name, {}, overrides)
    return recipe.preparation.build(recipe.paths)


def make_signal_uv(seed, samples):
    return 10 * np.random.default_rng(seed).normal(size=(len(CHANNELS), samples))


@pytest.fixture
def million(home):
    """Subject 8, with the targets of the task, answers, two markers at once and a
    session made again.
    """
    root = home / "data/alljoined-1.6m"
    for number in (0, 1, 2, 16539):
        paint(root / f"pictures/train/{number:05d}.jpg")
    for number in (16540, 16641):
        paint(root / f"pictures/test/{number:05d}.jpg")
    describe_dataset(root, "Alljoined-1.6M")
    training = [("stim_train", 0), ("stim_train", 16539), ("oddball", 16748)]
    training += [("stim_train", 1), ("behav", 3)]
    # a marker of the software and two pictures come at once
    training += [("stim_train", 2), ("stim_train", 0), ("debug", 1), ("stim_train", 1)]
    testing = [("stim_test", 16641), ("stim_test", 16540)]
    testing += [("behav", 0), ("stim_test", 16641)]
    for session, run, events in (
        ("02", 1, testing),
        ("02", 5, training),
        ("02old", 1, testing),
    ):
        folder = root / f"sub-08/ses-{session}/eeg"
        stem = folder / f"sub-08_ses-{session}_task-images_run-{run:02d}"
        path = folder / f"{stem.name}_eeg.edf"
        write_edf(path, make_signal_uv(run, 256 * 12), CHANNELS, 256)
        write_sidecars(stem, CHANNELS, 256)
        rows = []
        for index, (label, number) in enumerate(events):
            sample = 256 + 220 * min(index, 6)
            file = f"{number:05d}.jpg" if "_" in label or label == "oddball" else "n/a"
            kind = f"{label},{number},-1,{index}"
            rows.append((sample / 256, 0.0, kind, index, sample, file))
        # the tables begin with a byte order mark
        table = folder / f"{stem.name}_events.tsv"
        write_tsv(table, f"\ufeff{EVENT_COLUMNS}", rows)
    return root


def test_the_tables_of_alljoined_16m_name_its_pictures(million):
    preparation = build("papers/alljoined-1.6m", "preparation.whiten=no")
    assert preparation.dataset == "alljoined-1.6m"
    assert (preparation.subjects, preparation.sessions(8)) == ((8,), [2])
    session = preparation.session(8, 2)
    train, test = session["train"], session["test"]
    names = ["train/00000", "train/16539", "train/00001", "train/00002"]
    assert list(train.image_ids) == names
    assert list(test.image_ids) == ["test/16641", "test/16540", "test/16641"]
    dropped = {"no such picture": 1, "two pictures at once": 2}
    assert train.provenance["dropped"] == dropped
    unmatched = {"pictures of events that the data set does not have": {"16748.jpg": 1}}
    assert train.provenance["unmatched"] == unmatched
    assert (train.signal.shape, train.rate_hz) == ((4, 6, 250), 250)
    # numbered by the order of the files
    assert set(train.runs) == {1}
    assert set(test.runs) == {0}
    positions = np.array([0, 1, 3, 5])
    np.testing.assert_allclose(train.onset_s, (256 + 220 * positions) / 256)

    # trials as the authors cut them
    name = "sub-08_ses-02_task-images_run-01_eeg.edf"
    raw = mne.io.read_raw(million / "sub-08/ses-02/eeg" / name, verbose="ERROR")
    events = np.array([[256 + 220 * position, 0, 1] for position in (0, 1, 3)])
    epochs = mne.Epochs(raw, events, tmin=-0.2, tmax=1, preload=True, verbose="ERROR")
    expected_uv = epochs.resample(250).get_data()[..., 50:300] * 1e6
    np.testing.assert_allclose(test.signal, expected_uv, atol=1e-3)


def test_alljoined_1_is_read_with_the_tables_at_its_root(home):
    """Five pictures are shown four times each, and one of them is tested."""
    root = home / "data/alljoined"
    numbers = (2950, 2990, 3049, 3077, 3146)
    for number in numbers:
        paint(root / f"stimuli/nsd/{number}.png")
    describe_dataset(root, "Alljoined1")
    write_sidecars(root / "task-images", CHANNELS, 512)
    signal_uv = make_signal_uv(0, 512 * 20)
    folder = root / "sub-02/ses-01/eeg"
    path = folder / "sub-02_ses-01_task-images_eeg.bdf"
    write_edf(path, signal_uv, CHANNELS, 512)
    rows = []
    for row in range(20):
        sample = 512 + 410 * row
        file = f"nsd/{numbers[row // 4]}.png"
        rows.append((sample / 512, 0.0, f"image/{row}", row, sample, file))
    table = folder / "sub-02_ses-01_task-images_events.tsv"
    write_tsv(table, EVENT_COLUMNS, rows)

    band = "preparation.band_hz=[null,null]"
    preparation = build("papers/alljoined", "preparation.whiten=no", band)
    session = preparation.session(2, 1)

    train, test = session["train"], session["test"]
    names = set(train.image_ids) | set(test.image_ids)
    assert names == {str(number) for number in numbers}
    assert len(test.image_ids) == 4
    assert (train.signal.shape, train.unit) == ((16, 6, 150), "µV")
    info = mne.create_info(list(CHANNELS), 512, "eeg")
    raw = mne.io.RawArray(signal_uv * 1e-6, info, verbose="ERROR")
    first_row = 4 * numbers.index(int(train.image_ids[0]))
    events = np.array([[512 + 410 * first_row, 0, 1]])
    epochs = mne.Epochs(
        raw, events, tmin=-0.05, tmax=0.6, preload=True, verbose="ERROR"
    ).resample(250)
    expected_uv = epochs.get_data()[0][:, epochs.times >= 0][:, :150] * 1e6
    np.testing.assert_allclose(train.signal[0], expected_uv, atol=0.01)
