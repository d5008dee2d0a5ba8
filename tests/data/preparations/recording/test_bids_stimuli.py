"""Pictures that a BIDS data set lists in stimuli/stimuli.tsv, as NEMAR's nm000232."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.preparations.recording import Config
from brainhive_cli.data.recordings.event_names import EventNames
from brainhive_cli.data.stores import SignalStore
from tests.worlds.bids_eeg import (
    describe_dataset,
    paint,
    write_edf,
    write_sidecars,
    write_tsv,
)

pytest.importorskip("mne")
pytest.importorskip("edfio")
CHANNELS = ("Fp1", "Cz", "Pz", "O1", "Oz", "O2")
RATE_HZ = 1000
ONSET_INTERVAL_S = 1.4
COLUMNS = (
    "onset duration sample value trial_type tot_img_number img_category category_name "
    "block sequence img_in_sequence soa"
)
TRAIN = {
    1: ("00001_aardvark", "aardvark_01b.jpg"),
    154: ("00016_alligator", "alligator_04s.jpg"),
    11742: ("01175_roller_coaster", "roller_coaster_02s.jpg"),
}
TEST = {1: ("00001_aircraft_carrier", "06s.jpg"), 154: ("00154_sailboat", "10s.jpg")}
FOLDERS = {"train": "training_images", "test": "test_images"}
LISTED = {
    (task, number): f"{FOLDERS[task]}/{concept}/{name}"
    for task, pictures in (("train", TRAIN), ("test", TEST))
    for number, (concept, name) in pictures.items()
}
"""File of each picture, by task and number: the numbers of the tasks are alike."""
SHOWN = {"train": (11742, None, 1, 154, 11742, 1), "test": (154, 1, 154)}
"""Numbers of the pictures of each recording in order; None is a target."""
STEPS = [
    "preparation.whiten=no",
    "preparation.epoch_ms=[-100,500]",
    "preparation.keep_ms=[0,500]",
]


def level_uv(task, number):
    """Return the level of all channels after a picture or a target."""
    if number is None:
        return 99.0
    return 10.0 * (1 + list(LISTED).index((task, number)))


def record(path, levels_uv):
    """Write a recording in which each event raises all channels.

    Returns:
        Onsets of the events in seconds.
    """
    # EDF holds whole seconds
    samples = RATE_HZ * int(3 + ONSET_INTERVAL_S * len(levels_uv))
    random = np.random.default_rng(len(levels_uv))
    signal_uv = random.normal(size=(len(CHANNELS), samples))
    onsets_s = []
    for row, level in enumerate(levels_uv):
        onsets_s.append(round(1 + ONSET_INTERVAL_S * row, 3))
        sample = round(onsets_s[-1] * RATE_HZ)
        signal_uv[:, sample : sample + 600] += level
    write_edf(path, signal_uv, CHANNELS, RATE_HZ)
    stem = path.with_name(path.name.removesuffix(f"_eeg{path.suffix}"))
    write_sidecars(stem, CHANNELS, RATE_HZ)
    return onsets_s


@pytest.fixture
def nemar(home):
    """A subject's session of nm000232: files, columns and rows as they are there."""
    root = home / "data/things-eeg-nemar"
    describe_dataset(root, "THINGS-EEG2")

    # pictures, which the archive calls as their source does, except for two
    rows = []
    for (task, number), file in LISTED.items():
        paint(root / "stimuli" / file)
        digits = 5 if task == "train" else 3
        stimulus_id = f"stim-{task}{number:0{digits}d}"
        name = Path(file).name
        description = f'a picture, original filename "{name}" of the THINGS images'
        if task == "train" and number > 1:
            file = file.replace(name, f"{stimulus_id}_image.jpg")
        rows.append((stimulus_id, "image", description, file, "true"))
    columns = "stimulus_id type description filename present"
    write_tsv(root / "stimuli/stimuli.tsv", columns, rows)

    # recordings of both tasks and of rest
    folder = root / "sub-01/ses-01/eeg"
    for task, name in (("train", "train_run-01"), ("test", "test")):
        stem = f"sub-01_ses-01_task-{name}"
        levels_uv = [level_uv(task, number) for number in SHOWN[task]]
        onsets_s = record(folder / f"{stem}_eeg.bdf", levels_uv)
        rows = []
        for row, number in enumerate(SHOWN[task]):
            if number is None:
                cells = [255, "target", "n/a", "n/a", "n/a"]
            else:
                concept = LISTED[task, number].split("/")[1]
                # the code of a trigger is in training no number of a picture
                code = row if task == "train" else number
                cells = [code, "image", number, int(concept[:5]), concept]
            onset_s = onsets_s[row]
            start = [onset_s, 0.0999, round(onset_s * RATE_HZ)]
            rows.append(start + cells + [1, 1, row, "n/a" if row == 0 else 0.1999])
        write_tsv(folder / f"{stem}_events.tsv", COLUMNS, rows)
    stem = "sub-01_ses-01_task-rest_run-01"
    record(folder / f"{stem}_eeg.bdf", [0.0])
    rest = [0.5, 0, 250, 1, "rest"] + ["n/a"] * 7
    write_tsv(folder / f"{stem}_events.tsv", COLUMNS, [rest])

    # files that are not read
    for other_name in ("sourcedata", "derivatives/cleaned"):
        name = f"{other_name}/sub-01/ses-01/eeg/sub-01_ses-01_task-train_eeg.vhdr"
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(b"not to be read")
    return root


def prepare(*arguments):
    return CliRunner().invoke(app, ["prepare"] + list(arguments) + STEPS)


def test_nm000232_is_prepared_with_the_picture_of_each_trial(nemar, home):
    result = prepare("--recipe", "papers/things-eeg-nemar")

    assert result.exit_code == 0, result.output
    assert "root: data/things-eeg-nemar/stimuli" in " ".join(result.output.split())
    store = SignalStore.open(home / "signals/things-eeg/nemar/sub-01.h5")
    for task, numbers in SHOWN.items():
        trials = store[task]
        shown = []  # onset and picture of each trial
        for row, number in enumerate(numbers):
            if number is not None:
                onset_s = round(1 + ONSET_INTERVAL_S * row, 3)
                shown.append((onset_s, LISTED[task, number].removesuffix(".jpg")))
        onsets_s = [round(float(onset_s), 3) for onset_s in trials.onset_s]
        assert sorted(zip(onsets_s, trials.image_ids, strict=True)) == shown

        # the level of a trial says which picture it shows
        signal = np.asarray(trials.signal[:])
        assert signal.shape[1:] == (len(CHANNELS), 125)  # 500 ms at 250 Hz
        for image_id, trial in zip(trials.image_ids, signal, strict=True):
            (picture,) = (key for key in LISTED if LISTED[key] == f"{image_id}.jpg")
            np.testing.assert_allclose(trial.mean(), level_uv(*picture), atol=2)


def test_a_recording_of_rest_is_refused_with_a_key(nemar):
    result = prepare("--recipe", "papers/things-eeg-nemar", "preparation.files=*")
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    assert "task-rest_run-01_events.tsv" in text
    assert "preparation.files=PATTERN" in text


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("stim-{task}{number}", "has no column number"),
        ("{tot_img_number:>9999999999}", "line 2: .*width"),
        ("stim-{task}{tot_img_number", r"has no column stim-\{task\}\{tot_img_number"),
        ("stim-{run}{tot_img_number}", "test_events.tsv has no column run"),
        ("stim-{tot_img_number:05q}", "line 2: .*Unknown format code 'q'"),
    ],
)
def test_a_wrong_template_is_refused_with_the_columns(nemar, template, problem):
    preparation = build(nemar, files="*_task-test*", column=template)
    with pytest.raises(BrainhiveError, match=problem) as raised:
        preparation.session(1, 1)
    assert ", ".join(COLUMNS.split()) in raised.value.hint


def build(root, **keys):
    window = {"epoch_ms": (-100, 500), "keep_ms": (0, 500)}
    return Config(root=str(root), whiten="no", **window, **keys).build(Paths())


def read_shown(root, **keys):
    """Read the picture of each trial in the order of time."""
    (trials,) = build(root, **keys).session(1, 1).values()
    return list(trials.image_ids)


@pytest.fixture
def own_folder(home):
    """A data set of the draft, whose events have ids that sort otherwise than files."""
    root = home / "data/own"
    describe_dataset(root, "own")
    for name in ("b/owl.jpg", "a/cat.jpg", "stim-03_image.jpg"):
        paint(root / "stimuli" / name)
    rows = [
        ("stim-01", "b/owl.jpg", "true"),
        ("stim-02", "a/cat.jpg", "true"),
        ("stim-03", "n/a", "true"),
        ("stim-04", "a/film.jpg", "false"),
    ]
    write_tsv(root / "stimuli/stimuli.tsv", "stimulus_id filename present", rows)
    return root


def write_own(root, columns, rows):
    """Write a recording with a row of the events table for each picture."""
    stem = "sub-01/eeg/sub-01_task-look"
    onsets_s = record(root / f"{stem}_eeg.edf", [10.0] * len(rows))
    lines = [(onset_s, 0.1) + row for onset_s, row in zip(onsets_s, rows, strict=True)]
    write_tsv(root / f"{stem}_events.tsv", f"onset duration {columns}", lines)


def test_ids_of_events_name_the_pictures_without_a_key(own_folder):
    write_own(own_folder, "stimulus_id", [("stim-02",), ("stim-01",), ("stim-3",)])
    assert read_shown(own_folder) == ["a/cat", "b/owl", "stim-03_image"]
    assert build(own_folder).dataset == "own"

    result = prepare("--from", "recording", "preparation.root=data/own")
    assert result.exit_code == 0, result.output
    assert "name: own" in " ".join(result.output.split())


def test_stim_file_is_read_before_stimulus_id_unless_it_is_empty(own_folder):
    columns = "stim_file stimulus_id"
    write_own(own_folder, columns, [("b/owl.jpg", "stim-02"), ("a/cat.jpg", "stim-01")])
    assert read_shown(own_folder) == ["b/owl", "a/cat"]
    assert read_shown(own_folder, column="stimulus_id") == ["a/cat", "b/owl"]
    write_own(own_folder, columns, [("n/a", "stim-02"), ("n/a", "stim-01")])
    assert read_shown(own_folder) == ["a/cat", "b/owl"]


def test_pictures_of_the_usual_folder_come_before_stimuli(own_folder, home):
    write_own(own_folder, "stimulus_id", [("stim-02",)])
    paint(home / "data/image-folder/train/a/cat.jpg")
    preparation = build(own_folder)
    assert preparation.dataset == "image-folder"
    assert read_shown(own_folder) == ["train/a/cat"]


def test_a_picture_that_is_not_present_is_listed(own_folder):
    write_own(own_folder, "stimulus_id", [("stim-02",), ("stim-04",), ("stim-04",)])
    preparation = build(own_folder)
    lines = preparation.look_over([1]).warnings
    assert any(line.endswith(" 1: a/film.jpg (present: false)") for line in lines)
    (trials,) = preparation.session(1, 1).values()
    assert trials.provenance["dropped"] == {"no such picture": 2}
    write_own(own_folder, "stimulus_id", [("stim-04",)])
    with pytest.raises(BrainhiveError, match=r"1: a/film\.jpg \(present: false\)"):
        read_shown(own_folder)


def test_ids_that_differ_only_in_leading_zeros_are_refused(tmp_path):
    path = tmp_path / "stimuli.tsv"
    rows = [("stim-test1", "a.jpg"), ("stim-test001", "b.jpg")]
    write_tsv(path, "stimulus_id filename", rows)
    problem = r"stim-test1 .*stim-test001 .*a\.jpg .*b\.jpg"
    with pytest.raises(BrainhiveError, match=problem):
        EventNames(path, ["a", "b"])
    # decimals are no leading zeros
    write_tsv(path, "event picture", [("1.05", "a"), ("1.5", "b")])
    names = EventNames(path, ["a", "b"])
    assert names.find_row("1.5") == 1
    assert names.find_row("01.05") == 0
