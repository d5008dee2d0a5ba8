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
from tests.tools.trial_numbers import (
    numbers_of_preparation,
    numbers_of_splits,
    numbers_of_stores,
)
from tests.worlds.own_recordings import (
    CHANNELS,
    PICTURES,
    RATE_HZ,
    Presentation,
    annotate,
    make_raw,
    write_pictures,
)

mne = pytest.importorskip("mne")
SHOWN = Presentation.randomize(3, seed=0)
AXES = {"channels": list(CHANNELS), "rate_hz": RATE_HZ, "start_ms": -200, "unit": "V"}
STEPS = {"epoch_ms": (-200, 1000), "keep_ms": (0, 1000)}


@pytest.fixture
def folder(home):
    write_pictures(home / "data/image-folder")
    (home / "data/recordings").mkdir()
    return home / "data/recordings"


def record(names=SHOWN.pictures):
    return annotate(make_raw(SHOWN, seed=0), SHOWN, list(names))


def cut_epochs(raw, **options):
    events, event_id = mne.events_from_annotations(raw, verbose="ERROR")
    options = {"tmin": -0.2, "tmax": 1.0, "baseline": None, "preload": True} | options
    return mne.Epochs(raw, events, event_id, verbose="ERROR", **options)


def write_trials(folder, more_lines=()):
    lines = [f"{name}.png,{row // 5}" for row, name in enumerate(SHOWN.pictures)]
    text = "\n".join(["picture,run"] + list(lines) + list(more_lines))
    (folder / "sub-01_ses-01_trials.csv").write_text(text + "\n")


def write(folder, kind):
    cut_once = cut_epochs(record())
    path = folder / f"sub-01_ses-01{'-epo.fif' if kind == 'fif' else '.' + kind}"
    signal = cut_once.get_data(verbose="ERROR")
    if kind == "fif":
        cut_once.save(path, fmt="double", verbose="ERROR")
    elif kind == "set":
        mne.export.export_epochs(path, cut_once, verbose="ERROR")
    elif kind == "npz":
        axes = {"ch_names": CHANNELS, "times": cut_once.times, "unit": "uV"}
        np.savez(path, X=signal * 1e6, picture=SHOWN.pictures, **axes)
    else:
        np.save(path, signal)
        write_trials(folder)


def prepare(module, **keys):
    built = module.Config(**keys).build(Paths())
    return built, built.session(1, 1)


@pytest.mark.parametrize("kind", ("fif", "set", "npz", "npy"))
def test_epochs_become_what_their_recording_becomes(folder, kind, recorded):
    record().save(folder / "sub-01_ses-01.fif", verbose="ERROR")
    built, expected = prepare(recording, **STEPS, rate_hz=125)
    write(folder, kind)
    keys = {"axes": AXES} if kind == "npy" else {}
    if kind in ("npy", "npz"):
        keys["in_order"] = True
    whole_train = prepare(epochs, whiten="no", rate_hz=RATE_HZ, **keys)[1]["train"]
    assert whole_train.times_s[[0, -1]].round(6).tolist() == [0, 1]  # no sample is lost
    built, prepared = prepare(epochs, rate_hz=125, keep_ms=(0, 1000), **keys)

    assert list(prepared) == ["train", "test"] and built.shapes(1, 1) == {
        split: trials.signal.shape for split, trials in expected.items()
    }
    for split, trials in expected.items():
        resulting_prepared = prepared[split]
        assert list(resulting_prepared.image_ids) == list(trials.image_ids)
        assert (resulting_prepared.unit, resulting_prepared.space.names) == (
            "whitened",
            trials.space.names,
        )
        # EEGLAB writes float32
        atol = 1e-3 if kind == "set" else 1e-5
        np.testing.assert_allclose(resulting_prepared.signal, trials.signal, atol=atol)
        np.testing.assert_allclose(
            resulting_prepared.times_s, trials.times_s, atol=1e-9
        )
        assert resulting_prepared.provenance["preparation"]["epoch_ms"] == [
            -200,
            1000.8,
        ]
        assert (
            UNKNOWN_STEPS not in resulting_prepared.caveats
        )  # the key of the recipe says it

    # times of events, runs of a table; a folder may hold both kinds
    if kind == "fif":
        seconds = prepared["train"].onset_s - expected["train"].onset_s
        np.testing.assert_allclose(seconds, 0, atol=1e-6)
    if kind == "npy":
        assert folder / "sub-01_ses-01_trials.csv" in built.files(1)
        indexs = [SHOWN.pictures.index(name) for name in prepared["test"].image_ids[:1]]
        assert prepared["test"].runs[0] == indexs[0] // 5
    if kind != "set":
        lines = built.look_over([1]).warnings
        (line,) = [line for line in lines if "--from recording" in line]
        assert "sub-01_ses-01.fif" in line
        built, _ = prepare(recording, **STEPS)
        assert any("--from epochs" in line for line in built.look_over([1]).warnings)
    recorded(digits=4, **numbers_of_splits(prepared))


@pytest.mark.parametrize("in_order", [True, False, None])
def test_an_unknown_order_of_trials_is_not_stored(folder, in_order):
    write(folder, "npy")
    _, prepared = prepare(epochs, axes=AXES, in_order=in_order)
    for trials in prepared.values():
        assert trials.onset_s is None
        assert (trials.trial_numbers is not None) == bool(in_order)
    if in_order:
        rows = np.concatenate(
            [recording.trial_numbers for recording in prepared.values()]
        )
        numbers = rows[rows >= 0]
        assert sorted(numbers) == list(range(len(SHOWN.pictures)))


@pytest.mark.parametrize("types", [None, ["eeg", "eog"]])
def test_eye_channels_of_arrays_are_left_out(folder, types):
    write(folder, "npy")
    axes = {**AXES, "channels": list(CHANNELS[:-1]) + ["HEOG"]}
    _, prepared = prepare(epochs, axes=axes, types=types, whiten="no")
    assert ("HEOG" in prepared["test"].channels) == bool(types)


def test_a_store_of_epochs_equals_that_of_prepare(folder, run_command):
    record().save(folder / "sub-01_ses-01.fif", verbose="ERROR")
    steps = [f"preparation.{key}=[{low},{high}]" for key, (low, high) in STEPS.items()]
    plain_overrides = ["preparation.whiten=no", "preparation.rate_hz=500", "name=raw"]
    run_command("prepare", "preparation.kind=recording", *steps, *plain_overrides)
    crop = cut_epochs(record(), baseline=(None, 0)).crop(0, 0.998)
    stored = api.store_trials(crop, name="cut", whitened=False, averaged=False)

    assert len(stored.signal) == len(SHOWN.pictures) and stored.caveats == []
    expected, written_stores = (
        api.open_signals("image-folder", 1, n) for n in ("raw", "cut")
    )
    for split, trials in expected.splits.items():
        other_trials = written_stores[split]
        np.testing.assert_allclose(other_trials.signal[:], trials.signal[:], atol=1e-5)
        np.testing.assert_array_equal(other_trials.repetitions, trials.repetitions)
        np.testing.assert_allclose(other_trials.onset_s, trials.onset_s, atol=1e-6)
        assert list(other_trials.image_ids) == list(trials.image_ids)
        assert (other_trials.unit, other_trials.space.names) == (
            trials.unit,
            trials.space.names,
        )

    # prepare does not replace it unnoticed, and check describes it
    with pytest.raises(BrainhiveError, match=r"\bkind\b"):
        run_command("prepare", "preparation.kind=recording", *steps, "name=cut")
    assert run_command("check", "stores=signals/image-folder/cut").exit_code == 0


def test_trials_that_were_dropped_or_lack_a_picture_are_left_out(folder, recorded):
    # a table of all trials, of which two were dropped before they were saved
    dropped = cut_epochs(record()).drop([0, 3], verbose="ERROR")
    dropped.save(folder / "sub-01_ses-01-epo.fif", verbose="ERROR")
    write_trials(folder)
    _, prepared = prepare(epochs, whiten="no")
    names = np.delete(SHOWN.pictures, [0, 3])
    counts = {split: np.isin(names, PICTURES[split]).sum() for split in PICTURES}
    assert {s: len(trials.signal) for s, trials in prepared.items()} == counts

    # metadata, and pictures of another data set
    pandas = pytest.importorskip("pandas")
    names = ["other.png"] + list(SHOWN.pictures[1:])
    all_trials = cut_epochs(record())
    all_trials.metadata = pandas.DataFrame({"picture": names})
    stored = api.store_trials(all_trials, "picture")
    assert stored.index.tolist() == list(range(1, len(names)))
    assert stored.caveats == [UNKNOWN_STEPS]
    session = api.open_signals("image-folder", 1)["train"].provenance["sessions"][0]
    assert list(session["dropped"].values()) == [1]
    recorded(digits=5, **numbers_of_stores(folder.parents[1]))


def test_files_that_do_not_fit_are_refused_with_a_hint(folder):
    with pytest.raises(MissingData, match=r"-epo\.fif, \.set, \.npy"):
        prepare(epochs)
    write(folder, "npy")
    with pytest.raises(RecipeError, match=r"\.npy .*channels and times_s"):
        prepare(epochs)
    write_trials(folder, ["train/cat/cat_0.png,9"])
    with pytest.raises(BrainhiveError, match=r"\b24\b.*\b25\b"):
        prepare(epochs, axes=AXES)
    table = folder / "sub-01_ses-01_trials.csv"
    lines = [f"{name}.png,{row % 2}" for row, name in enumerate(SHOWN.pictures)]
    table.write_text("\n".join(["picture,session"] + list(lines)))
    with pytest.raises(BrainhiveError, match=r"\b2 sessions\b"):
        prepare(epochs, axes=AXES)
    table.unlink()
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


def save_epochs(folder, kept_rows, metadata=None, stem="sub-01_ses-01"):
    if metadata:
        kept_rows.metadata = pytest.importorskip("pandas").DataFrame(metadata)
    kept_rows.save(folder / f"{stem}-epo.fif", verbose="ERROR", overwrite=True)


def list_pictures(**keys):
    """List the picture of each stored trial, in the order of time."""
    _, prepared = prepare(epochs, whiten="no", **keys)
    image_names = []
    for trials in prepared.values():
        image_names += zip(trials.onset_s, trials.image_ids, strict=True)
    return [name for _, name in sorted(image_names)]


def cut_one_code(**options):
    """Cut epochs whose events have the same code, without other events."""
    events = np.array([[250, 0, 8]] + [[onset, 0, 1] for onset in SHOWN.onsets])
    options = {"tmin": -0.2, "tmax": 1.0, "baseline": None, "preload": True} | options
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
    # codes of the events agree with a single order
    save_epochs(folder, cut_epochs(record())[shuffled])
    _, prepared = prepare(epochs, whiten="no")
    is_test = np.isin(names, PICTURES["test"])
    assert list(prepared["test"].image_ids) == names[is_test].tolist()
    # all events have the same code
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


def test_labels_of_runs_are_read_as_numbers(folder, recorded):
    save_epochs(folder, cut_epochs(record()))
    labels = [f"run-0{2 + row // 12}" for row in range(len(SHOWN.pictures))]

    def write_labels():
        lines = map(",".join, zip(SHOWN.pictures, labels, strict=True))
        table = folder / "sub-01_ses-01_trials.csv"
        table.write_text("picture,run\n" + "\n".join(lines) + "\n")

    write_labels()
    _, prepared = prepare(epochs, whiten="no")
    assert set(prepared["train"].runs.ravel().tolist()) == {2, 3}
    labels[0] = "n/a"
    write_labels()
    built, _ = prepare(epochs, whiten="no")
    assert any("1 of 24" in line for line in built.look_over([1]).warnings)
    recorded(digits=5, **numbers_of_preparation(built))


def test_events_at_one_onset_of_eeglab_are_all_read(folder):
    from scipy.io import loadmat, savemat

    path = folder / "sub-01_ses-01.set"
    mne.export.export_epochs(path, cut_epochs(record()), verbose="ERROR")
    eeg = loadmat(path, simplify_cells=True)
    events, epochs_of_file = [], []
    for number, event in enumerate(eeg["event"]):
        events += [event, {**event, "type": "DIN8"}]
        cells = np.array([event["type"], "DIN8"], object)
        epochs_of_file.append({"event": [2 * number, 2 * number + 1]})
        epochs_of_file[-1]["eventtype"] = cells
    content = {key: value for key, value in eeg.items() if key[0] != "_"}
    content |= {"event": events, "epoch": epochs_of_file}
    savemat(path, content, oned_as="row")
    built, prepared = prepare(epochs, whiten="no")
    assert sum(len(trials.signal) for trials in prepared.values()) == 24
    assert any("DIN8" in line for line in built.look_over([1]).warnings)
    # the trials of the other events are kept
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
    from scipy.io import loadmat, savemat

    path = folder / "sub-01_ses-01.set"
    mne.export.export_epochs(path, cut_epochs(record()), verbose="ERROR")
    content = loadmat(path, simplify_cells=True)
    signal = content["data"].astype("f4")
    (folder / "sub-02.set").write_bytes(path.read_bytes())
    for file in (folder.parent / "secret.fdt", folder / "sub-02.fdt"):
        file.write_bytes(signal.tobytes(order="F"))
    content = {key: value for key, value in content.items() if key[0] != "_"}
    content["data"] = name.format(root=folder.parent)
    savemat(path, content, oned_as="row")
    with pytest.raises(BrainhiveError, match=r"secret\.fdt|sub-02\.fdt"):
        prepare(epochs)


def test_a_pipe_instead_of_signals_is_refused_without_waiting(folder):
    from scipy.io import loadmat, savemat

    path = folder / "sub-01_ses-01.set"
    mne.export.export_epochs(path, cut_epochs(record()), verbose="ERROR")
    content = loadmat(path, simplify_cells=True)
    content = {key: value for key, value in content.items() if key[0] != "_"}
    savemat(path, {**content, "data": "sub-01_ses-01.fdt"}, oned_as="row")
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
    axes = {"ch_names": CHANNELS, "times": np.arange(301) / 250, "unit": "uV"}
    signal = np.random.default_rng(0).normal(size=(24, 6, 301))
    content = {"X": signal, "picture": SHOWN.pictures, **axes}
    times = np.arange(301) / 250 - 0.2
    np.savez(folder / "sub-01_ses-01.npz", **{**content, "times": times})
    prepare(epochs)
    np.savez(folder / "sub-01_ses-01.npz", **{**content, "times": times, name: value})
    axes = {"sfreq": "rate_hz", "ch_names": "channels", "X": "no trials|301 times"}
    with pytest.raises(BrainhiveError, match=axes.get(name, name)):
        prepare(epochs)
