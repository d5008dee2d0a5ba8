"""Pictures that a BIDS data set lists in stimuli/stimuli.tsv, as NEMAR's nm000232."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.preparations.recording import Config
from brainhive_cli.data.recordings.event_names import EventNames
from brainhive_cli.data.stores.signal_store import SignalStore
from tests.tools.trial_numbers import numbers_of_stores

pytest.importorskip("mne")
edfio = pytest.importorskip("edfio")
CHANNELS = ("Fp1", "Cz", "Pz", "O1", "Oz", "O2")
RATE_HZ, EVERY_S = 1000, 1.4
COLUMNS = (
    "onset duration sample value trial_type tot_img_number img_category category_name "
    "block sequence img_in_sequence soa"
).split()
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
STEPS = ("preparation.whiten=no", "preparation.epoch_ms=[-100,500]")
STEPS += ("preparation.keep_ms=[0,500]",)


def paint(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def microvolts(task, number):
    """Return the level of all channels after a picture, which differs by picture."""
    return 10.0 * (1 + list(LISTED).index((task, number)))


def record(path, levels, kind="bdf"):
    """Write a recording in which each event raises all channels.

    Returns:
        Onsets of the events in seconds.
    """
    samples = RATE_HZ * int(3 + EVERY_S * len(levels))
    signal = np.random.default_rng(len(levels)).normal(size=(len(CHANNELS), samples))
    onsets_s = [round(1 + EVERY_S * row, 3) for row in range(len(levels))]
    for onset_s, level in zip(onsets_s, levels, strict=True):
        sample = round(onset_s * RATE_HZ)
        signal[:, sample : sample + round(0.6 * RATE_HZ)] += level
    path.parent.mkdir(parents=True, exist_ok=True)
    make, signals = {
        "edf": (edfio.Edf, edfio.EdfSignal),
        "bdf": (edfio.Bdf, edfio.BdfSignal),
    }[kind]
    rows = zip(CHANNELS, signal, strict=True)
    channels = [
        signals(row, RATE_HZ, label=name, physical_dimension="uV") for name, row in rows
    ]
    make(channels).write(path)
    stem = path.name.removesuffix(f"_eeg.{kind}")
    (path.parent / f"{stem}_eeg.json").write_text(
        json.dumps({"SamplingFrequency": RATE_HZ, "TaskName": "x"})
    )
    table = ["name\ttype\tunits"] + [f"{name}\tEEG\tuV" for name in CHANNELS]
    (path.parent / f"{stem}_channels.tsv").write_text("\n".join(table) + "\n")
    return onsets_s


def write_table(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(map(str, row)) for row in (columns,) + tuple(rows)]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def nemar(home):
    """A subject's session of nm000232: files, columns and rows as they are there."""
    root = home / "data/things-eeg-nemar"
    stimuli = root / "stimuli"
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text(
        '{"Name": "THINGS-EEG2", "BIDSVersion": "1.10.0"}'
    )

    # pictures, of the archive by the names of their source
    rows = []
    for (task, number), file in LISTED.items():
        paint(stimuli / file)
        stimulus_id = f"stim-{task}{number:0{5 if task == 'train' else 3}d}"
        name = Path(file).name
        described = f'a picture, original filename "{name}" of the THINGS images'
        # of two training pictures the archive has the name of the source
        if task == "train" and number > 1:
            file = file.replace(name, f"{stimulus_id}_image.jpg")
        about = ("image", "n/a", "THINGS", described, "https://osf.io/jum2f")
        rows.append((stimulus_id,) + tuple(about) + (file, "true"))
    columns = "stimulus_id type license copyright description URL filename present"
    write_table(stimuli / "stimuli.tsv", columns.split(), rows)
    for name in ("training_images.zip", "test_images.zip", "image_metadata.npy"):
        (stimuli / name).write_bytes(b"")
    (stimuli / "stimuli.json").write_text("{}")
    (stimuli / "LICENSE.txt").write_text("")

    # recordings of both tasks and of rest, and files that are not read
    folder, stem = root / "sub-01/ses-01/eeg", "sub-01_ses-01_task"
    for task, run_suffix in (("train", "_run-01"), ("test", "")):
        levels = [microvolts(task, n) if n else 99.0 for n in SHOWN[task]]
        onsets_s = record(folder / f"{stem}-{task}{run_suffix}_eeg.bdf", levels)
        rows = []
        for row, (onset_s, number) in enumerate(
            zip(onsets_s, SHOWN[task], strict=True), 1
        ):
            start = (onset_s, 0.0999, round(onset_s * RATE_HZ))
            concept = LISTED.get((task, number), "/n/a").split("/")[1]
            # the trigger's code, which for training is another number
            code = row if task == "train" else number
            cells = (1, 1, row, "n/a" if row == 1 else 0.1999)
            rows.append(
                (
                    tuple(start)
                    + (code, "image", number, int(concept[:5]), concept)
                    + tuple(cells)
                )
                if number
                else (
                    tuple(start) + (255, "target") + tuple(["n/a"] * 3) + tuple(cells)
                )
            )
        write_table(folder / f"{stem}-{task}{run_suffix}_events.tsv", COLUMNS, rows)
    record(folder / f"{stem}-rest_run-01_eeg.bdf", [0.0])
    write_table(
        folder / f"{stem}-rest_run-01_events.tsv",
        COLUMNS,
        [(0.5, 0, 250, 1, "rest") + tuple(["n/a"] * 7)],
    )
    for other_name in ("sourcedata", "derivatives/cleaned"):
        path = root / other_name / f"sub-01/ses-01/eeg/{stem}-train_run-01_eeg.vhdr"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"not to be read")
    return root


def prepare(*arguments):
    return CliRunner().invoke(app, ["prepare"] + list(arguments) + list(STEPS))


def test_nm000232_is_prepared_with_the_picture_of_each_trial(nemar, home, recorded):
    result = prepare("--recipe", "papers/things-eeg-nemar")

    assert result.exit_code == 0, result.output
    assert "root: data/things-eeg-nemar/stimuli" in " ".join(result.output.split())
    store = SignalStore.open(home / "signals/things-eeg/nemar/sub-01.h5")
    for task, numbers in SHOWN.items():
        trials, shown_numbers = store[task], [number for number in numbers if number]
        files = [LISTED[task, number] for number in dict.fromkeys(shown_numbers)]
        assert sorted(trials.pictures) == sorted(file[:-4] for file in files)

        # the level of a trial says which picture it shows
        for row, image_id in enumerate(trials.pictures):
            number = next(n for n in shown_numbers if LISTED[task, n][:-4] == image_id)
            assert trials.repetitions[row] == shown_numbers.count(number)
            levels_uv = trials.signal[trials.find_trials([row])].mean((1, 2))
            np.testing.assert_allclose(levels_uv, microvolts(task, number), atol=2)
    recorded(digits=5, **numbers_of_stores(home))


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
        ("{tot_img_number:9999999999d}", "line 2: .*width"),
        ("{tot_img_number:>9999999999}", "line 2: .*width"),
        ("stim-{task}{tot_img_number", r"has no column stim-\{task\}\{tot_img_number"),
        ("stim-{task}{}", r"has no column stim-\{task\}\{\}"),
        ("stim-{run}{tot_img_number}", "test_events.tsv has no column run"),
        ("stim-{tot_img_number:05q}", "line 2: .*Unknown format code 'q'"),
        ("stim-{category_name:d}", "line 2: .*'00154_sailboat'"),
    ],
)
def test_a_wrong_template_is_refused_with_the_columns(nemar, template, problem):
    preparation = build(nemar, files="*_task-test*", column=template)
    with pytest.raises(BrainhiveError, match=problem) as raised:
        preparation.session(1, 1)
    assert ", ".join(COLUMNS) in raised.value.hint


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
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text(
        '{"Name": "own", "BIDSVersion": "1.10.0"}'
    )
    for name in ("b/owl.jpg", "a/cat.jpg", "stim-03_image.jpg"):
        paint(root / "stimuli" / name)
    write_table(
        root / "stimuli/stimuli.tsv",
        ("stimulus_id", "filename", "type", "present"),
        [
            ("stim-01", "b/owl.jpg", "image", "true"),
            ("stim-02", "a/cat.jpg", "image", "true"),
            ("stim-03", "n/a", "image", "true"),
            ("stim-04", "a/film.jpg", "image", "false"),
        ],
    )
    return root


def write_own(root, columns, rows):
    path = root / "sub-01/eeg/sub-01_task-look_eeg.edf"
    onsets_s = record(path, [10.0] * len(rows), "edf")
    write_table(
        path.with_name("sub-01_task-look_events.tsv"),
        ("onset", "duration") + tuple(columns),
        [
            ((onsets_, 0.1) + tuple(row))
            for onsets_, row in zip(onsets_s, rows, strict=True)
        ],
    )


def test_ids_of_events_name_the_pictures_without_a_key(own_folder):
    write_own(own_folder, ["stimulus_id"], [("stim-02",), ("stim-01",), ("stim-3",)])
    assert read_shown(own_folder) == ["a/cat", "b/owl", "stim-03_image"]
    assert build(own_folder).dataset == "own"

    result = prepare("--from", "recording", "preparation.root=data/own")
    assert result.exit_code == 0, result.output
    assert "name: own" in " ".join(result.output.split())


def test_stim_file_is_read_before_stimulus_id_unless_it_is_empty(own_folder):
    columns = ["stim_file", "stimulus_id"]
    write_own(own_folder, columns, [("b/owl.jpg", "stim-02"), ("a/cat.jpg", "stim-01")])
    assert read_shown(own_folder) == ["b/owl", "a/cat"]
    assert read_shown(own_folder, column="stimulus_id") == ["a/cat", "b/owl"]
    write_own(own_folder, columns, [("n/a", "stim-02"), ("n/a", "stim-01")])
    assert read_shown(own_folder) == ["a/cat", "b/owl"]


def test_pictures_of_the_usual_folder_come_before_stimuli(own_folder, home):
    write_own(own_folder, ["stimulus_id"], [("stim-02",)])
    paint(home / "data/image-folder/train/a/cat.jpg")
    preparation = build(own_folder)
    assert preparation.dataset == "image-folder"
    assert read_shown(own_folder) == ["train/a/cat"]


def test_a_picture_that_is_not_present_is_listed(own_folder):
    write_own(own_folder, ["stimulus_id"], [("stim-02",), ("stim-04",), ("stim-04",)])
    preparation = build(own_folder)
    lines = preparation.look_over([1]).warnings
    assert any(line.endswith(" 1: a/film.jpg (present: false)") for line in lines)
    (trials,) = preparation.session(1, 1).values()
    assert trials.provenance["dropped"] == {"no such picture": 2}
    write_own(own_folder, ["stimulus_id"], [("stim-04",)])
    with pytest.raises(BrainhiveError, match=r"1: a/film\.jpg \(present: false\)"):
        read_shown(own_folder)


def test_ids_that_differ_only_in_leading_zeros_are_refused(tmp_path):
    path = tmp_path / "stimuli.tsv"
    rows = [("stim-test1", "a.jpg"), ("stim-test001", "b.jpg")]
    write_table(path, ("stimulus_id", "filename"), rows)
    problem = r"stim-test1 .*stim-test001 .*a\.jpg .*b\.jpg"
    with pytest.raises(BrainhiveError, match=problem):
        EventNames(path, ["a", "b"])
    # decimals are no leading zeros
    write_table(path, ("event", "picture"), [("1.05", "a"), ("1.5", "b")])
    names = EventNames(path, ["a", "b"])
    assert names.find_row("1.5") == 1 and names.find_row("01.05") == 0
