"""Training histories of models."""

import json
import zlib
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.results.measurements import (
    SELECTED_ON_TEST,
    TRAINED_ON_SIMULATED,
    UNKNOWN_HISTORY,
    UNKNOWN_PICTURES,
    UNKNOWN_SELECTION,
    UNKNOWN_TRIALS,
    WHITENED_BY_TESTED,
)
from brainhive_cli.core.runs import weights
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.stores import ARRAYS_FILE, LearnedPictures, TrainingHistory
from brainhive_cli.training.alignment import Aligner, model as aligners, model_files
from tests.worlds.learned_histories import IDS, make_digests, make_history
from tests.worlds.model_layouts import make_signal_spec, make_token_layout

LAYOUT = make_token_layout(make_signal_spec(("Oz", "Pz"), 10, (1, 2)), 8, {"e": 4})
MEAN = Normaliser(np.zeros((2, 1), np.float32), np.ones((2, 1), np.float32))
OTHER = Normaliser(np.ones((2, 1), np.float32), np.ones((2, 1), np.float32))
STATISTICS = {
    "normalisers": {1: MEAN, 2: OTHER},
    "normaliser": MEAN,
    "whiteners": {2: np.arange(8, dtype=np.float32).reshape(2, 2, 2)},
    "recorded_channels": ("Oz", "P7"),
}


@pytest.fixture
def folder(tmp_path):
    Aligner(LAYOUT, learned=make_history(**STATISTICS)).save(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_folder_has_the_history_of_its_model(folder):
    config = json.loads((folder / "config.json").read_text())

    assert config["format"] == 8
    assert config["learned"] == weights.read_digest(folder / ARRAYS_FILE)
    for history in (aligners.load(folder).learned, model_files.read_history(folder)):
        assert history.subjects == (1, 2)
        assert history.recorded_channels == ("Oz", "P7")
        assert history.split == "train"
        assert history.dataset == "faces"
        assert history.selection == "validation"
        assert history.people == {"eeg": (1, 2)}
        assert len(history.pictures) == 3
        assert history.pictures.has_all_pixels is True
        assert list(history.normalisers) == [1, 2]
        digests = [history.normaliser_of(subject).digest for subject in (1, 2, 3)]
        assert digests == [MEAN.digest, OTHER.digest, MEAN.digest]
        np.testing.assert_array_equal(history.whiteners[2], STATISTICS["whiteners"][2])
        assert history.pictures.find_members(
            "faces", ["train/dog/1", "test/dog/1"]
        ).tolist() == [True, False]
        # other data sets have other pictures
        assert not history.pictures.find_members("other", IDS).any()
        assert history.caveats == []


def test_a_history_that_does_not_fit_its_model_is_refused(folder, tmp_path):
    path = folder / "config.json"
    sound = json.loads(path.read_text())
    file = folder / ARRAYS_FILE
    content = file.read_bytes()
    Aligner(LAYOUT, learned=make_history(ids=["other"])).save(tmp_path / "other")

    def assert_refused(message):
        for read_history in (aligners.load, model_files.read_history):
            with pytest.raises(BrainhiveError, match=message) as caught:
                read_history(folder)
            assert caught.value.hint == "run train-align --again, or copy it again"

    path.write_text(json.dumps({**sound, "format": 7}))
    assert_refused(r"config\.json: format: .*8, got 7")
    # folders of earlier versions have the history in their config
    path.write_text(json.dumps({**sound, "learned": {"split": "train"}}))
    assert_refused(f"{ARRAYS_FILE} .* does not belong to config.json")
    path.write_text(json.dumps(sound))
    file.write_bytes((tmp_path / "other" / ARRAYS_FILE).read_bytes())
    assert_refused(f"{ARRAYS_FILE} .* does not belong to config.json")
    file.unlink()
    assert_refused(f"no file .*{ARRAYS_FILE}")
    # a single bit of the last array
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert_refused(f"{ARRAYS_FILE} .* differs from its digest")


def test_a_model_may_be_saved_beside_other_weights(folder):
    save_file({}, folder / "other.safetensors")
    Aligner(LAYOUT, learned=make_history()).save(folder)
    assert aligners.load(folder).learned.caveats == []


@pytest.mark.parametrize("name", [item.name for item in fields(LearnedPictures)])
def test_a_history_without_an_array_of_pictures_is_refused(folder, name):
    file = folder / ARRAYS_FILE
    arrays = load_file(file)
    del arrays[f"pictures.{name}"]
    metadata = weights.read_metadata(file)
    del metadata[weights.DIGEST_KEY]
    save_file(arrays, file, metadata)
    with pytest.raises(BrainhiveError, match=rf"learned\.{name} is missing"):
        TrainingHistory.read(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_simulated": None}, r"learned\.is_simulated is missing"),
        ({"is_odd": True}, "is_odd"),
        ({"selection": "odd"}, "selection"),
        ({"people": {"eeg": ["odd"]}}, "people"),
    ],
)
def test_a_history_with_other_fields_is_refused(folder, change, message):
    file = folder / ARRAYS_FILE
    metadata = weights.read_metadata(file)
    facts = json.loads(metadata["learned"]) | change
    facts = {name: value for name, value in facts.items() if value is not None}
    metadata["learned"] = json.dumps(facts)
    save_file(load_file(file), file, metadata)

    with pytest.raises(BrainhiveError, match=message) as caught:
        aligners.load(folder)
    assert str(file) in caught.value.message


def test_pictures_are_found_by_their_pixels_under_any_name(folder):
    pictures = aligners.load(folder).learned.pictures
    copy = make_digests(zlib.crc32(b"train/cat/1"))
    other_digests = make_digests(zlib.crc32(b"test/cat/1"))

    assert pictures.find_members("others", ["test/new"], copy).all()
    assert not pictures.find_members("others", ["test/new"], other_digests).any()
    assert not pictures.find_members("others", ["test/new"]).any()
    # the file has changed since
    assert pictures.find_members("faces", ["train/cat/2"], other_digests).all()


def test_a_history_inherits_the_worst_caveats():
    for start_caveats, own_caveats, all_caveats in (
        ("test", "last epoch", [SELECTED_ON_TEST]),
        ("last epoch", "test", [SELECTED_ON_TEST]),
        ("", "validation", [UNKNOWN_SELECTION]),
        ("last epoch", "validation", []),
    ):
        assert (
            make_history(selection=own_caveats)
            .inherit(make_history(selection=start_caveats))
            .caveats
            == all_caveats
        )
    unknown = replace(
        make_history("drawn", ["a"]),
        pictures=LearnedPictures.from_image_ids("drawn", ["a"]),
    )
    assert (
        make_history().inherit(unknown).caveats == unknown.caveats == [UNKNOWN_PICTURES]
    )
    assert (
        make_history().inherit(TrainingHistory()).caveats
        == TrainingHistory().caveats
        == [UNKNOWN_HISTORY]
    )
    assert make_history(selection="test").inherit(TrainingHistory()).caveats == [
        UNKNOWN_HISTORY,
        SELECTED_ON_TEST,
    ]


@pytest.mark.parametrize("saved_by", ["another program", "another training"])
def test_changed_weights_have_an_unknown_history(folder, tmp_path, saved_by):
    """Weights that are later trained on test trials must not keep the old history."""
    file = folder / "model.safetensors"
    assert TrainingHistory.read(folder, file).caveats == []
    if saved_by == "another program":
        save_file(load_file(file), file)
    else:
        Aligner(LAYOUT, learned=make_history()).save(tmp_path / "other")
        file.write_bytes((tmp_path / "other" / file.name).read_bytes())

    for history in (
        aligners.load(folder).learned,
        model_files.read_history(folder),
        TrainingHistory.read(folder, file),
    ):
        assert UNKNOWN_HISTORY in history.caveats
        assert history.subjects == (1, 2)


def test_each_tested_subject_is_described_as_new_or_trained_on():
    """A model trained on 1 and 2 that starts from a model of 3 also knows 3."""
    child = make_history().inherit(make_history(people={"eeg": (3,)}))

    known_label, new_label = "trained on subject", "new subject"
    assert child.describe_subjects("eeg", [3]) == f"{known_label} 3"
    assert (
        child.describe_subjects("eeg", [2, 4, 3])
        == f"{known_label} 2, 3; {new_label} 4"
    )
    assert child.describe_subjects("meg", [3]) == f"{new_label} 3"
    assert new_label not in child.inherit(TrainingHistory()).describe_subjects(
        "eeg", [4]
    )


def test_subjects_pictures_and_simulation_are_inherited():
    initial_history = make_history(
        "drawn", ["a"], people={"eeg": (1, 3), "meg": (4,)}, is_simulated=True
    )

    inherit = make_history(people={"eeg": (2,)}).inherit(initial_history)

    assert inherit.people == {"eeg": (1, 2, 3), "meg": (4,)}
    assert inherit.subjects == (1, 2, 3)
    assert inherit.dataset == "drawn + faces"
    assert inherit.pictures.find_members("drawn", ["a"]).all()
    assert inherit.pictures.find_members("faces", IDS).all()
    assert inherit.caveats == [TRAINED_ON_SIMULATED]
    assert replace(inherit, selection="").caveats == [
        TRAINED_ON_SIMULATED,
        UNKNOWN_SELECTION,
    ]


@pytest.mark.parametrize("name", ["is_simulated", "is_whitened_by_tested"])
def test_a_fact_of_either_training_holds_for_both(name):
    plain, flagged = make_history(), make_history(**{name: True})
    assert getattr(plain.inherit(flagged), name)
    assert getattr(flagged.inherit(plain), name)
    assert not getattr(plain.inherit(plain), name)


def test_a_history_joins_that_of_its_start():
    start = make_history(
        "start",
        stimulus_kinds=("a", "c"),
        recording_kinds=("eeg",),
        pretrained_weights=("reve", "labram"),
        people={"eeg": (4, 1), "start": (1,)},
        signals={"shared": "start", "start": "x"},
        trials=np.array([3, 9], np.uint64),
        normalisers={5: MEAN},
    )
    own_history = make_history(
        "own",
        stimulus_kinds=("c", "b"),
        recording_kinds=(),
        pretrained_weights=("cbramod", "reve"),
        people={"eeg": (2, 1), "own": (1,)},
        signals={"shared": "own", "own": "x"},
        trials=np.array([9, 4], np.uint64),
        normalisers={3: MEAN},
    )

    joined = own_history.inherit(start)

    assert list(joined.stimulus_kinds) == ["a", "b", "c"]
    # kinds are unknown if those of one training are
    assert list(joined.recording_kinds) == []
    assert list(start.inherit(own_history).recording_kinds) == []
    assert joined.pretrained_weights == ("cbramod", "labram", "reve")
    assert joined.people == {"eeg": (1, 2, 4), "own": (1,), "start": (1,)}
    # the later training wins
    assert joined.signals == {"shared": "own", "start": "x", "own": "x"}
    assert joined.trials.tolist() == [3, 4, 9]
    assert joined.dataset == "start + own"
    assert own_history.inherit(own_history).dataset == "own"
    # normalisers are not inherited
    assert list(joined.normalisers) == [3]
    unknown = make_history(has_all_subjects=False)
    assert joined.has_all_subjects
    assert not unknown.inherit(start).has_all_subjects
    assert not start.inherit(unknown).has_all_subjects


def test_each_unknown_fact_of_a_history_is_a_caveat():
    sound = make_history()
    assert sound.caveats == []
    for field, caveat in (
        ({"is_simulated": True}, TRAINED_ON_SIMULATED),
        ({"is_whitened_by_tested": True}, WHITENED_BY_TESTED),
        ({"pictures": LearnedPictures()}, UNKNOWN_PICTURES),
        ({"selection": ""}, UNKNOWN_SELECTION),
        ({"selection": "test"}, SELECTED_ON_TEST),
        ({"has_all_subjects": False}, UNKNOWN_HISTORY),
    ):
        assert replace(sound, **field).caveats == [caveat]


@pytest.mark.parametrize(
    ("weights", "people", "caveats"),
    [
        ((), "things-eeg", []),
        (("cbramod",), "things-eeg", []),
        (("labram",), "things-eeg", []),
        (("labram",), "seed-dv", [UNKNOWN_PICTURES]),
        (("cbramod", "reve"), "things-eeg", [UNKNOWN_TRIALS]),
        (("reve",), "eegcvpr40", [UNKNOWN_PICTURES]),
        (("hub:owner/name", "reve"), "things-eeg", [UNKNOWN_TRIALS, UNKNOWN_PICTURES]),
    ],
)
def test_published_weights_may_have_learned_the_tested_people(
    folder, weights, people, caveats
):
    model = make_history(recordings=people, pretrained_weights=weights)
    # a model that starts from it inherits its weights
    inherit = make_history(recordings=people).inherit(model)

    for history in (model, inherit):
        assert history.list_caveats(people) == history.caveats == caveats
    Aligner(LAYOUT, learned=inherit).save(folder)
    assert (
        aligners.load(folder).learned.pretrained_weights == inherit.pretrained_weights
    )


def test_subjects_of_the_history_are_not_tested_as_new():
    history = make_history(people={"eeg": (1, 2), "meg": (5,)})

    def people(name, *left_out):
        return SimpleNamespace(
            people=name, list_excluded_subjects=lambda tested_subjects: set(left_out)
        )

    history.require_new_subjects(people("eeg", 3, 4), [3], "it")
    history.require_new_subjects(people("fmri", 1, 5), [1], "it")
    for name, number in (("eeg", 2), ("meg", 5)):
        with pytest.raises(BrainhiveError, match=f"subject {number} of {name}"):
            history.require_new_subjects(people(name, 3, number), [3], "it")


def test_a_subject_without_a_normaliser_gets_the_mean():
    history = make_history(
        **{**STATISTICS, "normalisers": {1: OTHER}, "people": {"eeg": (1, 2)}}
    )
    assert history.normaliser_of(1) is OTHER
    assert history.normaliser_of(7) is MEAN
    # subjects of the training use their own training signals
    assert history.normaliser_of(2) is None
    assert make_history().normaliser_of(7) is None


def test_a_history_next_to_another_config_is_read_back(
    tmp_path,
):
    assert TrainingHistory.read(tmp_path).caveats == TrainingHistory().caveats
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        weights.save(tmp_path / name / "x.safetensors", {})
    trials = np.array([3, 9], np.uint64)
    make_history(**STATISTICS, trials=trials).save(tmp_path)

    training_history = TrainingHistory.read(tmp_path)

    assert training_history.caveats == []
    assert training_history.trials.tolist() == [3, 9]
    assert training_history.normaliser is not None
    assert training_history.normaliser.digest == MEAN.digest
    # a further weight file may have been trained on anything
    weights.save(tmp_path / "a" / "y.safetensors", {})
    assert TrainingHistory.read(tmp_path).caveats == [UNKNOWN_HISTORY]


def test_a_file_of_another_program_is_not_a_history(
    tmp_path,
):
    assert TrainingHistory.read(tmp_path).caveats == TrainingHistory().caveats
    save_file({}, tmp_path / ARRAYS_FILE)
    assert TrainingHistory.read(tmp_path).caveats == TrainingHistory().caveats
