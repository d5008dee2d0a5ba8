"""THINGS-EEG1 as it lies on OpenNeuro, by its shipped recipe: BIDS, but for onsets in
milliseconds.
"""

import numpy as np
import pytest

from brainhive_cli.commands.prepare import Recipe
from brainhive_cli.core.base.errors import BrainhiveError
from tests.worlds.bids_eeg import describe_dataset, paint, write_tsv

pytest.importorskip("mne")
pybv = pytest.importorskip("pybv")
RATE_HZ = 1000
CHANNELS = ("Fp1", "Pz", "O1", "Oz", "O2")
SHOWN = [
    "cat/cat_01",
    "owl/owl_09",
    "owl/owl_01",
    "train/train_01",
    "owl/owl_09",
    "cat/cat_02",
    "yak/yak_01",
]
"""In order; owl_09 is a test picture, and of the yak there is no picture."""
ONSETS_MS = 1000 + 100 * np.arange(len(SHOWN))


@pytest.fixture
def signal():
    return np.random.default_rng(0).normal(size=(len(CHANNELS), 4 * RATE_HZ)) * 1e-5


@pytest.fixture
def table(home, signal):
    """The table of events, of which every second has the paths of Windows."""
    root = home / "data/things-eeg1"
    for name in SHOWN[:-1]:
        paint(root / f"stimuli/{name}.jpg")
    (root / "test_images.csv").write_text("owl/owl_09.jpg\n")
    describe_dataset(root, "things-eeg")
    folder = root / "sub-01/eeg"
    pybv.write_brainvision(
        data=signal,
        sfreq=RATE_HZ,
        ch_names=CHANNELS,
        fname_base="sub-01_task-rsvp_eeg",
        folder_out=str(folder),
        events=np.stack([ONSETS_MS, np.ones_like(ONSETS_MS)], axis=1),
        resolution=0.01,
    )
    rows = []
    for number, name in enumerate(SHOWN):
        path = f"stimuli/{name}.jpg"
        path = path.replace("/", "\\") if number % 2 else path
        rows.append((ONSETS_MS[number], 50, number, path))
    path = folder / "sub-01_task-rsvp_events.tsv"
    write_tsv(path, "onset duration eventnumber stim", rows)
    return path


def build(*overrides):
    recipe = Recipe.resolve("prepare", "papers/things-eeg1", {}, overrides)
    return recipe.preparation.build(recipe.paths)


def test_onsets_are_in_ms_and_a_list_names_the_test_pictures(table, signal):
    preparation = build(
        "preparation.whiten=no",
        "preparation.baseline=false",
        "preparation.rate_hz=1000",
    )
    assert preparation.dataset == "things-eeg1"
    assert (preparation.subjects, preparation.sessions(1)) == ((1,), [1])
    assert table in [path.absolute() for path in preparation.files(1)]
    session = preparation.session(1, 1)
    for split, numbers in (("train", [0, 3, 5]), ("test", [1, 4])):
        trials = session[split]
        assert list(trials.image_ids) == [SHOWN[number] for number in numbers]
        np.testing.assert_allclose(trials.onset_s, ONSETS_MS[numbers] / 1000)
        assert trials.space.names == CHANNELS
        assert trials.space.positions is not None
        for trial, onset in zip(trials.signal, ONSETS_MS[numbers], strict=True):
            expected_uv = signal[:, onset : onset + 1000] * 1e6
            np.testing.assert_allclose(trial, expected_uv, atol=0.011)
    facts = session["train"].provenance
    # owl_01, whose category is tested, and the yak
    assert facts["dropped"] == {"no such picture": 2}
    assert facts["events_from"] == [table.name]


def test_training_pictures_of_test_categories_are_kept_on_demand(table):
    preparation = build("preparation.stimuli.exclude_test_concepts=false")
    train = preparation.session(1, 1)["train"]
    names = ["cat/cat_01", "owl/owl_01", "train/train_01", "cat/cat_02"]
    assert list(train.image_ids) == names
    assert train.provenance["dropped"] == {"no such picture": 1}
    assert train.unit == "whitened"


def test_an_onset_that_is_no_number_is_refused(table):
    table.write_text(table.read_text().replace(f"{ONSETS_MS[2]}\t", "soon\t"))
    with pytest.raises(
        BrainhiveError,
        match=r"sub-01_task-rsvp_events\.tsv.*\bms\b.*'soon'",
    ):
        build().shapes(1, 1)
