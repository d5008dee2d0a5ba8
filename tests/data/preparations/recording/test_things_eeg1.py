"""THINGS-EEG1 as it lies on OpenNeuro, by its shipped recipe: BIDS, but for onsets in
milliseconds.
"""

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.commands.prepare import Recipe
from brainhive_cli.core.base.errors import BrainhiveError
from tests.tools.trial_numbers import numbers_of_preparation

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
    root = home / "data/things-eeg1"
    for name in set(SHOWN[:-1]):
        path = root / f"stimuli/{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    (root / "test_images.csv").write_text("owl/owl_09.jpg\n")
    (root / "dataset_description.json").write_text(
        '{"Name": "things-eeg", "BIDSVersion": "1.0.2"}'
    )
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
    path = folder / "sub-01_task-rsvp_events.tsv"
    rows = [
        f"{onset}\t50\t{number}\t"
        + ("stimuli\\" + name.replace("/", "\\") if number % 2 else f"stimuli/{name}")
        for number, (onset, name) in enumerate(zip(ONSETS_MS, SHOWN, strict=True))
    ]
    path.write_text(
        "\n".join(
            ["onset\tduration\teventnumber\tstim"] + [f"{row}.jpg" for row in rows]
        )
        + "\n"
    )
    return path


def build(*overrides):
    recipe = Recipe.resolve("prepare", "papers/things-eeg1", {}, overrides)
    return recipe.preparation.build(recipe.paths)


def test_onsets_are_in_ms_and_a_list_names_the_test_pictures(table, signal, recorded):
    preparation = build(
        "preparation.whiten=no",
        "preparation.baseline=false",
        "preparation.rate_hz=1000",
    )
    assert (
        preparation.dataset == "things-eeg1"
        and preparation.subjects == (1,)
        and preparation.sessions(1) == [1]
    )
    assert table in [path.absolute() for path in preparation.files(1)]
    session = preparation.session(1, 1)
    assert list(session["train"].image_ids) == [
        "cat/cat_01",
        "train/train_01",
        "cat/cat_02",
    ]
    assert list(session["test"].image_ids) == ["owl/owl_09", "owl/owl_09"]
    for split, rows in (("train", (0, 3, 5)), ("test", (1, 4))):
        expected = [
            signal[:, onset : onset + 1000] * 1e6 for onset in ONSETS_MS[list(rows)]
        ]
        np.testing.assert_allclose(session[split].signal, expected, atol=0.011)
    assert session["train"].provenance["dropped"] == {
        "no such picture": 2
    }  # owl_01, whose category is tested, and the yak
    assert session["train"].provenance["events_from"] == [table.name]
    assert (
        session["train"].space.names == CHANNELS
        and session["train"].space.positions is not None
    )
    recorded(digits=5, **numbers_of_preparation(preparation))


def test_training_pictures_of_test_categories_are_kept_on_demand(table):
    train = build("preparation.stimuli.exclude_test_concepts=false").session(1, 1)[
        "train"
    ]
    assert list(train.image_ids) == [
        "cat/cat_01",
        "owl/owl_01",
        "train/train_01",
        "cat/cat_02",
    ]
    assert (
        train.provenance["dropped"] == {"no such picture": 1}
        and train.unit == "whitened"
    )


def test_an_onset_that_is_no_number_is_refused(table):
    table.write_text(table.read_text().replace(f"{ONSETS_MS[2]}\t", "soon\t"))
    with pytest.raises(
        BrainhiveError,
        match=r"sub-01_task-rsvp_events\.tsv.*\bms\b.*'soon'",
    ):
        build().shapes(1, 1)
