"""Epochs in files and arrays, compared with the trials of their recording."""

import os
import struct

import numpy as np
import pytest

from brainhive_cli import api
from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.core.results.measurements import UNKNOWN_STEPS
from brainhive_cli.data.preparations import epochs, recording
from tests.worlds.own_recordings import (
    CHANNELS,
    PICTURES,
    RATE_HZ,
    Presentation,
    annotate,
    make_raw,
)

mne = pytest.importorskip("mne")
SHOWN = Presentation.randomize(3, seed=0)
AXES = {"channels": list(CHANNELS), "rate_hz": RATE_HZ, "start_ms": -200, "unit": "V"}
STEPS = {"epoch_ms": (-200, 1000), "keep_ms": (0, 1000)}


def record():
    """Record all pictures three times, in memory."""
    return annotate(make_raw(SHOWN, seed=0), SHOWN, list(SHOWN.pictures))


def cut_epochs(raw, **options):
    events, event_id = mne.events_from_annotations(raw, verbose="ERROR")
    options = {"tmin": -0.2, "tmax": 1.0, "baseline": None, "preload": True} | options
    return mne.Epochs(raw, events, event_id, verbose="ERROR", **options)


def write_trials(folder, more_lines=(), column="run"):
    """Write a table of the pictures, in runs (or sessions) of five trials."""
    lines = [f"{name}.png,{row // 5}" for row, name in enumerate(SHOWN.pictures)]
    text = "\n".join([f"picture,{column}"] + lines + list(more_lines))
    (folder / "sub-01_ses-01_trials.csv").write_text(text + "\n")


def write(folder, kind):
    """Write epochs of all trials in a format, with the names of their pictures."""
    all_trials = cut_epochs(record())
    path = folder / f"sub-01_ses-01{'-epo.fif' if kind == 'fif' else '.' + kind}"
    signal = all_trials.get_data(verbose="ERROR")
    if kind == "fif":
        all_trials.save(path, fmt="double", verbose="ERROR")
    elif kind == "set":
        mne.export.export_epochs(path, all_trials, verbose="ERROR")
    elif kind == "npz":
        axes = {"ch_names": CHANNELS, "times": all_trials.times, "unit": "uV"}
        np.savez(path, X=signal * 1e6, picture=SHOWN.pictures, **axes)
    else:
        np.save(path, signal)
        write_trials(folder)


def write_set(folder, change):
    """Write epochs for EEGLAB, with changed fields of its structure."""
    from scipy.io import loadmat, savemat

    path = folder / "sub-01_ses-01.set"
    mne.export.export_epochs(path, cut_epochs(record()), verbose="ERROR")
    eeg = loadmat(path, simplify_cells=True)
    fields = {key: value for key, value in eeg.items() if key[0] != "_"}
    savemat(path, fields | change(fields), oned_as="row")


def prepare(module, **keys):
    built = module.Config(**keys).build(Paths())
    return built, built.session(1, 1)


@pytest.mark.parametrize(
    ("kind", "keys", "tolerance"),
    [
        ("fif", {}, 1e-5),
        ("set", {}, 1e-3),  # float32
        ("npz", {"in_order": True}, 1e-5),
        ("npy", {"in_order": True, "axes": AXES}, 1e-5),
    ],
)
def test_epochs_become_what_their_recording_becomes(folder, kind, keys, tolerance):
    record().save(folder / "sub-01_ses-01.fif", verbose="ERROR")
    _, expected = prepare(recording, **STEPS, rate_hz=125)
    write(folder, kind)

    built, prepared = prepare(epochs, rate_hz=125, keep_ms=(0, 1000), **keys)

    assert list(prepared) == ["train", "test"]
    for split, trials in prepared.items():
        assert built.shapes(1, 1)[split] == trials.signal.shape
        assert list(trials.image_ids) == list(expected[split].image_ids)
        assert trials.space.names == expected[split].space.names
        assert trials.unit == "whitened"
        np.testing.assert_allclose(
            trials.signal, expected[split].signal, atol=tolerance
        )
        np.testing.assert_allclose(trials.times_s, np.arange(125) / 125, atol=1e-9)
        # the last sample lasts 0.8 ms
        assert trials.provenance["preparation"]["epoch_ms"] == [-200, 1000.8]
        # the key of the recipe says that there were no other steps
        assert UNKNOWN_STEPS not in trials.caveats
    if kind == "fif":
        seconds = prepared["train"].onset_s - expected["train"].onset_s
        np.testing.assert_allclose(seconds, 0, atol=1e-6)
    if kind == "npy":
        assert folder / "sub-01_ses-01_trials.csv" in built.files(1)
        row = SHOWN.pictures.index(prepared["test"].image_ids[0])
        assert prepared["test"].runs[0] == row // 5


@pytest.mark.parametrize("kind", ["fif", "npz"])
def test_no_sample_of_epochs_is_lost(folder, kind):
    write(folder, kind)
    _, prepared = prepare(epochs, whiten="no", rate_hz=RATE_HZ)
    assert prepared["train"].times_s[[0, -1]].round(6).tolist() == [0, 1]


def test_a_folder_may_hold_recordings_and_epochs(folder):
    record().save(folder / "sub-01_ses-01.fif", verbose="ERROR")
    write(folder, "fif")
    lines = prepare(epochs)[0].look_over([1]).warnings
    (line,) = [line for line in lines if "--from recording" in line]
    assert "sub-01_ses-01.fif" in line
    lines = prepare(recording, **STEPS)[0].look_over([1]).warnings
    assert any("--from epochs" in line for line in lines)


@pytest.mark.parametrize("in_order", [True, False, None])
def test_an_unknown_order_of_trials_is_not_stored(folder, in_order):
    write(folder, "npy")
    _, prepared = prepare(epochs, axes=AXES, in_order=in_order)
    for trials in prepared.values():
        assert trials.onset_s is None
        assert (trials.trial_numbers is not None) == bool(in_order)
    if in_order:
        numbers = np.concatenate([trials.trial_numbers for trials in prepared.values()])
        assert sorted(numbers) == list(range(len(SHOWN.pictures)))


@pytest.mark.parametrize("types", [None, ["eeg", "eog"]])
def test_eye_channels_of_arrays_are_left_out(folder, types):
    write(folder, "npy")
    axes = {**AXES, "channels": list(CHANNELS[:-1]) + ["HEOG"]}
    _, prepared = prepare(epochs, axes=axes, types=types, whiten="no")
    assert ("HEOG" in prepared["test"].channels) == bool(types)


def test_a_store_of_epochs_equals_that_of_prepare(folder, run_command):
    record().save(folder / "sub-01_ses-01.fif", verbose="ERROR")
    steps = ["preparation.kind=recording", "preparation.epoch_ms=[-200,1000]"]
    steps += ["preparation.keep_ms=[0,1000]"]
    no_steps = ["preparation.whiten=no", "preparation.rate_hz=500"]
    run_command("prepare", *steps, *no_steps, "name=raw")
    kept_samples = cut_epochs(record(), baseline=(None, 0)).crop(0, 0.998)
    stored = api.store_trials(kept_samples, name="cut", whitened=False, averaged=False)

    assert len(stored.signal) == len(SHOWN.pictures)
    assert stored.caveats == []
    expected = api.open_signals("image-folder", 1, "raw")
    by_api = api.open_signals("image-folder", 1, "cut")
    for split, trials in expected.splits.items():
        other = by_api[split]
        np.testing.assert_allclose(other.signal[:], trials.signal[:], atol=1e-5)
        np.testing.assert_array_equal(other.repetitions, trials.repetitions)
        np.testing.assert_allclose(other.onset_s, trials.onset_s, atol=1e-6)
        assert list(other.image_ids) == list(trials.image_ids)
        assert other.space.names == trials.space.names
        assert other.unit == trials.unit

    # prepare does not replace it unnoticed, and check describes it
    with pytest.raises(BrainhiveError, match=r"\bkind\b"):
        run_command("prepare", *steps, "name=cut")
    assert run_command("check", "stores=signals/image-folder/cut").exit_code == 0


def test_pictures_of_another_data_set_are_left_out_and_counted(folder):
    pandas = pytest.importorskip("pandas")
    names = ["other.png"] + list(SHOWN.pictures[1:])
    all_trials = cut_epochs(record())
    all_trials.metadata = pandas.DataFrame({"picture": names})
    stored = api.store_trials(all_trials, "picture")
    assert stored.index.tolist() == list(range(1, len(names)))
    assert stored.caveats == [UNKNOWN_STEPS]
    splits = api.open_signals("image-folder", 1).splits
    assert {name: len(trials.signal) for name, trials in splits.items()} == {
        "train": 17,
        "test": 6,
    }
    (session,) = splits["train"].provenance["sessions"]
    absent = "trials of pictures that image-folder does not have"
    assert session["dropped"] == {absent: 1}


def test_files_that_do_not_fit_are_refused_with_a_hint(folder):
    with pytest.raises(MissingData, match=r"-epo\.fif, \.set, \.npy"):
        prepare(epochs)
    write(folder, "npy")
    with pytest.raises(RecipeError, match=r"\.npy .*channels and times_s"):
        prepare(epochs)
    write_trials(folder, ["train/cat/cat_0.png,9"])
    with pytest.raises(BrainhiveError, match=r"\b24\b.*\b25\b"):
        prepare(epochs, axes=AXES)
    write_trials(folder, column="session")
    with pytest.raises(BrainhiveError, match=r"\b5 sessions\b"):
        prepare(epochs, axes=AXES)
    (folder / "sub-01_ses-01_trials.csv").unlink()
    with pytest.raises(BrainhiveError, match=r"nothing .* 0 of them"):
        prepare(epochs, axes=AXES)
    write_trials(folder)
    with pytest.raises(BrainhiveError, match="-200 to 1000 ms") as caught:
        prepare(epochs, axes=AXES, epoch_ms=(-300, 800))
    assert "preparation.epoch_ms=[-200" in caught.value.hint
    with pytest.raises(RecipeError, match=r"preparation\.whitened"):
        epochs.Config(whitened=True)
    np.save(folder / "sub-01_ses-01.npy", np.zeros((24, 7)))
    with pytest.raises(BrainhiveError, match=r"\b0 arrays"):
        prepare(epochs, axes=AXES)
    (folder / "sub-01_ses-01.npy").write_bytes(b"no array")
    with pytest.raises(BrainhiveError, match=r"sub-01_ses-01\.npy"):
        prepare(epochs, axes=AXES)
    (folder / "sub-01_ses-01.npy").unlink()
    mne.export.export_raw(folder / "sub-01_ses-01.set", record(), verbose="ERROR")
    with pytest.raises(MissingData) as caught:
        prepare(epochs)
    assert "prepare --from recording" in caught.value.hint


def save_epochs(folder, saved, metadata=None):
    if metadata:
        saved.metadata = pytest.importorskip("pandas").DataFrame(metadata)
    path = folder / "sub-01_ses-01-epo.fif"
    saved.save(path, verbose="ERROR", overwrite=True)


def list_pictures(**keys):
    """List the picture of each stored trial, in the order of time."""
    _, prepared = prepare(epochs, whiten="no", **keys)
    image_names = []
    for trials in prepared.values():
        image_names += zip(trials.onset_s, trials.image_ids, strict=True)
    return [name for _, name in sorted(image_names)]


def cut_one_code():
    """Cut epochs whose events have the same code, without other events."""
    events = np.array([[250, 0, 8]] + [[onset, 0, 1] for onset in SHOWN.onsets])
    options = {"tmin": -0.2, "tmax": 1.0, "baseline": None, "preload": True}
    return mne.Epochs(record(), events, {"picture": 1}, verbose="ERROR", **options)


def test_a_table_of_pictures_fits_epochs_after_rejection(folder):
    one_code = cut_one_code().drop([0, 3], verbose="ERROR")
    save_epochs(folder, one_code)
    write_trials(folder)
    assert list_pictures() == np.delete(SHOWN.pictures, [0, 3]).tolist()


def test_a_table_that_fits_in_two_orders_is_refused(folder):
    shuffled = np.random.default_rng(0).permutation(len(SHOWN.pictures))
    names = np.array(SHOWN.pictures)[shuffled]
    table = folder / "sub-01_ses-01_trials.csv"
    table.write_text("picture\n" + "\n".join(names) + "\n")
    # codes of the events agree with one order
    save_epochs(folder, cut_epochs(record())[shuffled])
    _, prepared = prepare(epochs, whiten="no")
    is_test = np.isin(names, PICTURES["test"])
    assert list(prepared["test"].image_ids) == names[is_test].tolist()
    # all events have one code
    save_epochs(folder, cut_one_code()[shuffled])
    with pytest.raises(BrainhiveError, match=r"trials\.csv"):
        prepare(epochs)


def test_a_column_that_the_user_names_must_exist(folder):
    save_epochs(folder, cut_epochs(record()), {"came": SHOWN.pictures})
    with pytest.raises(BrainhiveError, match=r"\bcam\b") as caught:
        prepare(epochs, column="cam")
    assert "came" in caught.value.hint
    assert list_pictures(column="came") == list(SHOWN.pictures)
    with pytest.raises(BrainhiveError, match=r"\bcam\b"):
        api.store_trials(cut_epochs(record()), "cam")


def test_a_table_may_have_the_whole_name_of_its_file(folder):
    save_epochs(folder, cut_one_code())
    text = "picture,run\n" + "".join(f"{n},run-0{1}\n" for n in SHOWN.pictures)
    (folder / "sub-01_ses-01-epo_trials.csv").write_text(text)
    assert list_pictures() == list(SHOWN.pictures)
    (folder / "sub-01_ses-01_trials.csv").write_text(text.replace("run-01", "2"))
    with pytest.raises(BrainhiveError, match=r"trials\.csv"):
        prepare(epochs)


@pytest.mark.parametrize("has_label", [True, False])
def test_labels_of_runs_are_read_as_numbers(folder, has_label):
    """Runs 2 and 3 have 12 trials each, of which the first may have no label."""
    save_epochs(folder, cut_epochs(record()))
    labels = ["run-02"] * 12 + ["run-03"] * 12
    if not has_label:
        labels[0] = "n/a"
    lines = ["picture,run"]
    lines += [",".join(pair) for pair in zip(SHOWN.pictures, labels, strict=True)]
    (folder / "sub-01_ses-01_trials.csv").write_text("\n".join(lines) + "\n")

    built, prepared = prepare(epochs, whiten="no")

    warnings = built.look_over([1]).warnings
    assert any("1 of 24" in line for line in warnings) == (not has_label)
    for split, trials in prepared.items():
        is_split = np.isin(SHOWN.pictures, PICTURES[split])
        runs = np.repeat([2, 3], 12)[is_split].tolist()
        assert not has_label or trials.runs.tolist() == runs


def test_events_at_one_onset_of_eeglab_are_all_read(folder):
    def add_events(fields):
        """Add another event to each trial."""
        events, trials = [], []
        for number, event in enumerate(fields["event"]):
            events += [event, {**event, "type": "DIN8"}]
            types = np.array([event["type"], "DIN8"], object)
            trials.append({"event": [2 * number, 2 * number + 1], "eventtype": types})
        return {"event": events, "epoch": trials}

    write_set(folder, add_events)
    built, prepared = prepare(epochs, whiten="no")
    assert sum(len(trials.signal) for trials in prepared.values()) == 24
    assert any("DIN8" in line for line in built.look_over([1]).warnings)
    for trials in prepared.values():
        assert trials.provenance["dropped"] == {}


def test_the_axes_of_matlab_are_read_if_only_they_fit(folder):
    write(folder, "npz")
    _, expected = prepare(epochs, whiten="no")
    path = folder / "sub-01_ses-01.npz"
    content = dict(np.load(path))
    np.savez(path, **{**content, "X": content["X"].transpose(1, 2, 0)})
    _, prepared = prepare(epochs, whiten="no")
    for split, trials in expected.items():
        np.testing.assert_array_equal(prepared[split].signal, trials.signal)
    np.savez(path, **{**content, "X": content["X"][:, :, ::2]})
    with pytest.raises(BrainhiveError, match=r"sub-01_ses-01\.npz .*\[24, 6, 301\]"):
        prepare(epochs)


@pytest.mark.parametrize("name", ("../secret.fdt", "{root}/secret.fdt", "sub-02.fdt"))
def test_epochs_of_eeglab_that_name_a_file_elsewhere_are_refused(folder, name):
    def move_signal(fields):
        signal = fields["data"].astype("f4").tobytes(order="F")
        (folder / name.format(root=folder.parent)).write_bytes(signal)
        return {"data": name.format(root=folder.parent)}

    write_set(folder, move_signal)
    (folder / "sub-02.set").write_bytes((folder / "sub-01_ses-01.set").read_bytes())
    with pytest.raises(BrainhiveError, match=r"secret\.fdt|sub-02\.fdt"):
        prepare(epochs)


def test_a_pipe_instead_of_signals_is_refused_without_waiting(folder):
    write_set(folder, lambda fields: {"data": "sub-01_ses-01.fdt"})
    os.mkfifo(folder / "sub-01_ses-01.fdt")
    with pytest.raises(BrainhiveError, match=r"sub-01_ses-01\.fdt .*pipe"):
        prepare(epochs)


def name_next_part(path, name="", number=None):
    """Write a reference to the next part of a recording before the end of a .fif."""

    def tag(kind, type, content):
        return struct.pack(">iiii", kind, type, len(content), 0) + content

    block, role = struct.pack(">i", 118), struct.pack(">i", 2)
    text = tag(104, 3, block) + tag(115, 3, role)
    if name:
        text += tag(118, 10, name.encode())
    if number is not None:
        text += tag(117, 3, struct.pack(">i", number))
    content = path.read_bytes()
    path.write_bytes(content[:-16] + text + tag(105, 3, block) + content[-16:])


PARTS = {
    "elsewhere": "../sub-01_ses-01-{}.fif",
    "another": "sub-02-{}.fif",
    "itself": "sub-01_ses-01-{}.fif",
    "number": "",
}


@pytest.mark.parametrize("kind", ("epo", "raw"))
@pytest.mark.parametrize("location", PARTS)
def test_parts_of_fif_elsewhere_and_in_circles_are_refused(folder, kind, location):
    """A file that names itself would be read by mne until the memory is full."""
    raw = record()
    path = folder / f"sub-01_ses-01-{kind}.fif"
    if location == "number":
        path = path.with_name(f"sub-01_ses-01_{kind}-1.fif")
    (cut_epochs(raw) if kind == "epo" else raw).save(path, verbose="ERROR")
    (folder.parent / path.name).write_bytes(path.read_bytes())
    name = PARTS[location].format(kind)
    name_next_part(path, name, 1 if location == "number" else None)
    if location == "another":
        (folder / name).write_bytes((folder.parent / path.name).read_bytes())
    with pytest.raises(BrainhiveError, match=path.name):
        prepare(epochs if kind == "epo" else recording)


ODD = {
    "times": [np.zeros((301, 2)), np.array(["a"] * 301), np.full(301, np.nan)],
    "sfreq": ["fast", np.array([1.0, 2.0]), -250.0, np.inf],
    "ch_names": [np.zeros((6, 2)), "Oz"],
    "picture": [np.array([["a", "b"]] * 24), np.zeros((24, 2)), 1],
    "X": [np.zeros((0, 6, 301)), np.zeros((24, 6, 1))],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in ODD for value in ODD[name]]
)
def test_axes_of_a_wrong_shape_or_type_are_named(folder, name, value):
    content = {
        "X": np.random.default_rng(0).normal(size=(24, 6, 301)),
        "picture": SHOWN.pictures,
        "ch_names": CHANNELS,
        "times": np.arange(301) / 250 - 0.2,
        "unit": "uV",
    }
    np.savez(folder / "sub-01_ses-01.npz", **content | {name: value})
    axes = {"sfreq": "rate_hz", "ch_names": "channels", "X": "no trials|301 times"}
    with pytest.raises(BrainhiveError, match=axes.get(name, name)):
        prepare(epochs)
