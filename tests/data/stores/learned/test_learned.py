"""Training history of a model, stored in its folder and inherited by later models."""

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.measurements import (
    SEEN_CONCEPTS,
    SEEN_COPIES,
    SELECTED_ON_TEST,
    TRAINED_ON_SIMULATED,
    TWINS,
    UNKNOWN_HISTORY,
    UNKNOWN_NETWORK,
    UNKNOWN_PICTURES,
    UNKNOWN_SELECTION,
    UNKNOWN_TRIALS,
    WHITENED_BY_TESTED,
)
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media.kept_likenesses import KeptLikenesses
from brainhive_cli.data.media.pictures import BadPicture
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.signals.holdout import SEPARATE_TEST, Holdout
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.stores import learned as module
from brainhive_cli.data.stores.learned import (
    ALTERED_WARNINGS,
    ARRAYS_FILE,
    CONCEPT_WARNING,
    COPY_WARNING,
    EQUAL_WARNING,
    LearnedPictures,
    PixelComparison,
    TestedPictures,
    TrainingHistory,
    find_similar_pictures,
    hash_concepts,
    hash_names,
    summarise_tested_pictures,
)
from brainhive_cli.training.alignment import (
    model as aligners,
    model_files,
)
from brainhive_cli.training.alignment.model import Aligner
from tests.worlds.model_layouts import make_signal_spec, make_token_layout

LAYOUT = make_token_layout(make_signal_spec(("Oz", "Pz"), 10, (1, 2)), 8, {"e": 4})
IDS = ["train/cat/1", "train/cat/2", "train/dog/1"]
MEAN = Normaliser(np.zeros((2, 1), np.float32), np.ones((2, 1), np.float32))
OTHER = Normaliser(np.ones((2, 1), np.float32), np.ones((2, 1), np.float32))
STATISTICS = {
    "normalisers": {1: MEAN, 2: OTHER},
    "normaliser": MEAN,
    "whiteners": {2: np.arange(8, dtype=np.float32).reshape(2, 2, 2)},
    "recorded_channels": ("Oz", "P7"),
}


def make_digests(*digests: int) -> np.ndarray:
    """Make digests of pixels without perceptual hashes [N, 25]."""
    return np.array([[digest, *[0] * 24] for digest in digests], np.uint64)


def make_history(
    dataset: str = "faces", ids: list[str] = IDS, **fields: object
) -> TrainingHistory:
    given = {
        "selection": "validation",
        "dataset": dataset,
        "recordings": "eeg",
        "people": {"eeg": (1, 2)},
    }
    given = given | {"has_all_subjects": True} | fields
    pixels = make_digests(*(zlib.crc32(image_id.encode()) for image_id in ids))
    return TrainingHistory(
        pictures=LearnedPictures.from_image_ids(dataset, ids, pixels), **given
    )  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Aligner(LAYOUT, learned=make_history(**STATISTICS)).save(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_folder_has_the_history_of_its_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())

    assert config["format"] == 8
    block = config["learned"]
    assert block["split"] == "train" and block["dataset"] == "faces"
    assert block["selection"] == "validation" and block["people"] == {"eeg": [1, 2]}
    assert block["pictures"]["count"] == 3
    for found in (aligners.load(folder).learned, model_files.read_history(folder)):
        assert found.subjects == (1, 2) and found.recorded_channels == ("Oz", "P7")
        assert list(found.normalisers) == [1, 2]
        digests = [found.normaliser_of(subject).digest for subject in (1, 2, 3)]
        assert digests == [MEAN.digest, OTHER.digest, MEAN.digest]
        np.testing.assert_array_equal(found.whiteners[2], STATISTICS["whiteners"][2])
        assert found.pictures.find_members(
            "faces", ["train/dog/1", "test/dog/1"]
        ).tolist() == [True, False]
        # other data sets have other pictures
        assert not found.pictures.find_members("other", IDS).any()
        assert found.caveats == []


def test_a_history_that_does_not_fit_its_model_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    path = folder / "config.json"
    sound = json.loads(path.read_text())
    facts = {
        name: fact for name, fact in sound["learned"].items() if name != "is_simulated"
    }
    for config, message in (
        ({**sound, "learned": facts}, r"learned\.is_simulated"),
        ({**sound, "format": 7}, r"config\.json: format: .*8, got 7"),
    ):
        path.write_text(json.dumps(config))
        with pytest.raises(BrainhiveError, match=message) as caught:
            aligners.load(folder)
    assert caught.value.hint == "run train-align --again, or copy it again"

    path.write_text(json.dumps(sound))
    Aligner(LAYOUT, learned=make_history(ids=["other"])).save(tmp_path / "other")
    (folder / ARRAYS_FILE).write_bytes((tmp_path / "other" / ARRAYS_FILE).read_bytes())
    with pytest.raises(BrainhiveError, match=ARRAYS_FILE):
        aligners.load(folder)


def test_pictures_are_found_by_their_pixels_under_any_name(folder: Path) -> None:
    found = aligners.load(folder).learned.pictures
    copy = make_digests(zlib.crc32(b"train/cat/1"))
    other = make_digests(zlib.crc32(b"test/cat/1"))

    assert found.find_members("others", ["test/new"], copy).all()
    assert not found.find_members("others", ["test/new"], other).any()
    assert not found.find_members("others", ["test/new"]).any()
    # the file has changed since
    assert found.find_members("faces", ["train/cat/2"], other).all()


def test_a_history_inherits_the_worst_caveats() -> None:
    for before, own, both in (
        ("test", "last epoch", [SELECTED_ON_TEST]),
        ("last epoch", "test", [SELECTED_ON_TEST]),
        ("", "validation", [UNKNOWN_SELECTION]),
        ("last epoch", "validation", []),
    ):
        assert (
            make_history(selection=own).inherit(make_history(selection=before)).caveats
            == both
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
def test_changed_weights_have_an_unknown_history(
    folder: Path, tmp_path: Path, saved_by: str
) -> None:
    """Weights that are later trained on test trials must not keep the old history."""
    file = folder / "model.safetensors"
    assert TrainingHistory.read_next_to(file).caveats == []
    if saved_by == "another program":
        save_file(load_file(file), file)
    else:
        Aligner(LAYOUT, learned=make_history()).save(tmp_path / "other")
        file.write_bytes((tmp_path / "other" / file.name).read_bytes())

    for found in (
        aligners.load(folder).learned,
        model_files.read_history(folder),
        TrainingHistory.read_next_to(file),
    ):
        assert UNKNOWN_HISTORY in found.caveats and found.subjects == (1, 2)


def test_each_tested_subject_is_described_as_new_or_trained_on() -> None:
    """A model trained on 1 and 2 that starts from a model of 3 also knows 3."""
    child = make_history().inherit(make_history(people={"eeg": (3,)}))

    known, new = "trained on subject", "new subject"
    assert child.describe_subjects("eeg", [3]) == f"{known} 3"
    assert child.describe_subjects("eeg", [2, 4, 3]) == f"{known} 2, 3; {new} 4"
    assert child.describe_subjects("meg", [3]) == f"{new} 3"
    assert new not in child.inherit(TrainingHistory()).describe_subjects("eeg", [4])


def test_subjects_pictures_and_simulation_are_inherited() -> None:
    before = make_history(
        "drawn", ["a"], people={"eeg": (1, 3), "meg": (4,)}, is_simulated=True
    )

    found = make_history(people={"eeg": (2,)}).inherit(before)

    assert found.people == {"eeg": (1, 2, 3), "meg": (4,)}
    assert found.subjects == (1, 2, 3) and found.dataset == "drawn + faces"
    assert found.pictures.find_members("drawn", ["a"]).all()
    assert found.pictures.find_members("faces", IDS).all()
    assert found.caveats == [TRAINED_ON_SIMULATED]
    assert replace(found, selection="").caveats == [
        TRAINED_ON_SIMULATED,
        UNKNOWN_SELECTION,
    ]


PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)


def test_names_are_hashed_with_their_data_set() -> None:
    names = hash_names("a", ["1", "2", "1"])
    assert names[0] == names[2] != names[1] and names.dtype == np.uint64
    assert not np.isin(hash_names("b", ["1", "2"]), names).any()
    assert hash_names("a", []).shape == (0,)

    same = ["owl", "Owl", "00012_owl", "n0123_OWL", "n01_owl"]
    assert len(np.unique(hash_concepts(same))) == 1
    others = ["owl", "owls", "n_owl", "owl_2", "12owl", "", "1_2_owl"]
    assert len(np.unique(hash_concepts(others))) == len(others)


def make_pixels(*digests: int, hashed: bool = True) -> np.ndarray:
    """Make digests of pixels with random perceptual hashes [N, 25]."""
    rows = [
        np.random.default_rng(digest).integers(1, 2**63, 25, dtype=np.uint64)
        for digest in digests
    ]
    pixels = np.array(rows, np.uint64).reshape(-1, 25)
    pixels[:, 0] = digests
    if not hashed:
        pixels[:, 1:] = 0
    return pixels


sets = st.lists(st.integers(1, 9), max_size=6)


@PROPERTY
@given(sets, sets, st.booleans(), st.booleans())
def test_pictures_of_two_trainings_are_those_of_either(
    own: list[int], start: list[int], has_own: bool, has_start: bool
) -> None:
    def of(numbers: list[int], has_pixels: bool) -> LearnedPictures:
        names, pixels = [f"p{number}" for number in numbers], make_pixels(*numbers)
        concepts = [f"c{number // 2}" for number in numbers]
        return LearnedPictures.from_image_ids(
            "set", names, pixels if has_pixels else None, concepts
        )

    found = of(own, has_own).inherit(of(start, has_start))

    every = [*range(1, 10)]
    names = [f"p{number}" for number in every]
    by_name = found.find_members("set", names)
    assert by_name.tolist() == [number in own + start for number in every]
    with_pixels = own * has_own + start * has_start
    by_pixels = found.find_members("other", names, make_pixels(*every))
    assert by_pixels.tolist() == [number in with_pixels for number in every]
    assert found.has_all_pixels == (has_own and has_start)
    assert len(found) == len({*own, *start})
    assert len(found.hashes) == len({*with_pixels})

    def concepts(numbers: list[int]) -> set[int]:
        shown = [f"c{number}" for number in {number // 2 for number in numbers}]
        return {*hash_concepts(shown).tolist()}

    assert {*found.concepts.tolist()} == concepts(own)
    # concepts of the own training are left out
    assert {*found.start_concepts.tolist()} == concepts(start) - concepts(own)
    further = of([], True).inherit(found)
    assert {*further.start_concepts.tolist()} == concepts(own + start)
    for array in (found.names, found.pixels, found.concepts):
        assert (np.diff(array.astype(object)) > 0).all()


def test_pictures_without_a_hash_have_only_a_digest() -> None:
    pixels = np.concatenate([make_pixels(1, hashed=False), make_pixels(2)])
    found = LearnedPictures.from_image_ids("set", ["a", "b"], pixels, ["", "owl"])
    assert found.pixels.tolist() == [1, 2] and len(found.hashes) == 1
    assert found.hashes[0, 0] == hash_names("set", ["b"])[0]
    assert found.concepts.tolist() == hash_concepts(["owl"]).tolist()


@pytest.mark.parametrize("name", ["names", *module.PICTURE_ARRAYS])
def test_the_digest_of_pictures_changes_with_each_array(name: str) -> None:
    found = LearnedPictures.from_image_ids("set", ["a"], make_pixels(1), ["owl"])
    found = replace(found, start_concepts=np.array([5], np.uint64))
    changed = getattr(found, name).copy()
    changed.ravel()[0] += 1
    other = replace(found, **{name: changed})
    assert found.digest != other.digest and len(found.digest) == 16
    assert found.digest == replace(found).digest


def edit_pixels(pixels: np.ndarray, bits: int, digest: int = 99) -> np.ndarray:
    """Change the hashes of each view by a number of bits, as an edit does."""
    edited = pixels.copy()
    edited[:, 0] = digest
    edited[:, 2::2] ^= np.uint64((1 << bits) - 1)
    return edited


@pytest.mark.parametrize(
    ("likeness", "is_contained"),
    [("copy", True), ("cropped", True), (None, True), ("mirrored", False), ("", False)],
)
def test_near_copies_and_unknown_likenesses_are_members(
    likeness: Any, is_contained: bool
) -> None:
    found = LearnedPictures.from_image_ids("set", ["a", "b"], make_pixels(1, 2))
    tested = np.concatenate([edit_pixels(make_pixels(2), 8), make_pixels(7)])
    compared = list[tuple[int, int]]()

    def confirm(row: int, name: int) -> Any:
        compared.append((row, name))
        return likeness

    names = ["x", "y"]
    assert found.find_members("set", names, tested, confirm).tolist() == [
        is_contained,
        False,
    ]
    assert compared == [(0, hash_names("set", ["b"]).tolist()[0])]
    assert not found.find_members("set", names, tested, confirm, 7).any()
    assert not found.find_members("set", names, tested).any()
    # pictures of the same name or pixels are not compared
    compared.clear()
    assert found.find_members("set", ["a", "y"], tested, confirm).tolist() == [
        True,
        False,
    ]
    assert not compared


def test_one_copy_settles_a_picture() -> None:
    """Two trainings share four pictures that resemble the tested picture."""
    ids = [*"abcd"]
    learned_pixels = np.concatenate(
        [edit_pixels(make_pixels(1), bits) for bits in range(4)]
    )
    pictures = LearnedPictures.from_image_ids("set", ids, learned_pixels)
    letter = dict(zip(hash_names("set", ids).tolist(), ids, strict=True))
    tested = np.concatenate([edit_pixels(make_pixels(1), 0)] * 3)

    def find(likenesses: str) -> dict[Any, Any]:
        kinds = dict(
            zip("-?mc.", ("", None, "mirrored", "cropped", "copy"), strict=True)
        )
        found = find_similar_pictures(
            tested,
            np.array([False, True, False]),
            [pictures, pictures],
            lambda row, name: kinds[likenesses[ids.index(letter[name])]],
        )
        assert {row for pairs in found.values() for row, _ in pairs} <= {1}
        return {
            kind: "".join(letter[name] for _, name in pairs)
            for kind, pairs in found.items()
        }

    assert find("----") == {}
    assert find("?-?-") == {None: "ac"}
    assert find("mmmm") == {"mirrored": "a"}
    assert find("-m?m") == {"mirrored": "b", None: "c"}
    # every copy is listed, because each may be from another model
    assert find("m.c-") == {"mirrored": "a", "copy": "b", "cropped": "c"}
    assert find(".m.-") == {"copy": "ac"}


def paint_grey(level: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (level,) * 3)


def test_pictures_are_compared_where_both_are_on_this_machine(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_levels(*pair: Image.Image) -> str:
        return "".join(chr(picture.getpixel((0, 0))[0]) for picture in pair)  # type: ignore[index]

    monkeypatch.setattr(module, "confirm_near_copy", write_levels)
    monkeypatch.setattr(KeptLikenesses, "keep", lambda *likeness: None)
    splits = list[str]()

    def data_set(name: str, ids: str, is_there: bool = True) -> Any:
        def images(split: str) -> Any:
            splits.append(f"{name} {split}")
            if not is_there:
                raise MissingData("absent", "")

            def show(index: int) -> Image.Image:
                if ids[index] == "-":
                    raise MissingData("lost", "")
                return paint_grey(ord(ids[index]))

            return StimulusSet(name, split, Names.of(ids), Names.of(ids), show)

        return SimpleNamespace(
            images=images, pictured_as=name, holdout=Holdout(by="pictures", folds=2)
        )

    tested = data_set("T", "ab-")
    learned_sets = [data_set("absent", "", False), data_set("L", "l-")]
    learned_sets.append(data_set("M", "m"))
    confirm = PixelComparison(
        ["b", "a", "elsewhere", "-"], tested, "test", learned_sets
    )

    first, lost = hash_names("L", ["l", "-"]).tolist()
    (other,), (unknown,) = (hash_names(n, ["m"]).tolist() for n in ("M", "L"))
    assert confirm(0, first) == "bl" and confirm(1, other) == "am"
    for row, name in ((2, first), (3, first), (0, lost), (0, unknown)):
        assert confirm(row, name) is None
    # held-out pictures lie in the split train; sets are listed once
    assert splits == ["T train", "absent train", "L train", "M train"]
    PixelComparison("ba", tested, "other", learned_sets[1:2], "test")(0, first)
    assert splits[4:] == ["T other", "L test"]


@pytest.mark.parametrize("has_files", [True, False])
def test_two_pictures_are_compared_once_in_a_home(
    home: Path, monkeypatch: pytest.MonkeyPatch, has_files: bool
) -> None:
    compared, opened = list[Any](), list[int]()

    def compare(*pair: Image.Image) -> str:
        compared.append(pair)
        return "mirrored"

    def read(index: int) -> Image.Image:
        opened.append(index)
        try:
            return Image.open(f"{index}.png")
        except FileNotFoundError as error:
            raise BadPicture("gone", "") from error

    monkeypatch.setattr(module, "confirm_near_copy", compare)
    for index in range(2):
        paint_grey(index).save(f"{index}.png")
    names = Names.of("ab")
    file_of = "{}.png".format if has_files else None
    images = StimulusSet("set", "train", names, names, read, file_of=file_of)
    dataset: Any = SimpleNamespace(
        images=lambda split: images, pictured_as="set", holdout=SEPARATE_TEST
    )
    _, learned = hash_names("set", "ab").tolist()

    def confirm() -> Any:
        return PixelComparison("ab", dataset, "train", [dataset])(0, learned)

    # a later command decodes no file, and compares nothing
    assert [confirm(), confirm()] == ["mirrored"] * 2
    assert len(compared) == 1 and opened == [0, 1] * (1 if has_files else 2)

    # a changed picture is compared again, and a missing picture is not compared
    paint_grey(9).save("1.png")
    assert confirm() == "mirrored" and len(compared) == 2
    Path("1.png").unlink()
    assert confirm() is None


def test_a_clip_without_a_file_is_read_once_in_later_commands(home: Path) -> None:
    """A film is decoded for each clip, so digests are kept for all pairs of a clip."""
    opened = list[int]()

    def read(index: int) -> Image.Image:
        opened.append(index)
        return paint_grey(index)

    names = Names.of("abcd")
    images = StimulusSet("set", "train", names, names, read)
    dataset: Any = SimpleNamespace(
        images=lambda split: images, pictured_as="set", holdout=SEPARATE_TEST
    )
    learned = hash_names("set", "abcd").tolist()
    pairs = [(row, name) for row in range(4) for name in learned]
    likenesses = []
    for _ in range(2):
        opened.clear()
        compare = PixelComparison("abcd", dataset, "train", [dataset])
        likenesses.append([compare(*pair) for pair in pairs])
    assert sorted(opened) == [0, 1, 2, 3]
    assert likenesses[0] == likenesses[1]


FLAGS = ("has_all_subjects", "is_simulated", "is_whitened_by_tested")


@PROPERTY
@given(st.integers(0, 10**6))
def test_a_history_joins_that_of_its_start(seed: int) -> None:
    random = np.random.default_rng(seed)

    def draw(name: str) -> TrainingHistory:
        kinds = [(), ("a",), ("c", "b")][random.integers(3)]
        return make_history(
            name,
            **{flag: bool(random.integers(2)) for flag in FLAGS},
            stimulus_kinds=kinds,
            recording_kinds=kinds[:1],
            pretrained_weights=kinds,
            people={"eeg": tuple(random.permutation(5)[:3].tolist()), name: (1,)},
            signals={"s": name, name: "x"},
            trials=random.integers(1, 9, 4).astype(np.uint64),
            normalisers={len(name): MEAN},
        )

    own, start = draw("own"), draw("start")

    found = own.inherit(start)

    assert found.has_all_subjects == (own.has_all_subjects and start.has_all_subjects)
    for name in FLAGS[1:]:
        assert getattr(found, name) == (getattr(own, name) or getattr(start, name))
    for name in ("stimulus_kinds", "recording_kinds"):
        kinds = getattr(own, name), getattr(start, name)
        expected = sorted({*kinds[0], *kinds[1]}) if all(kinds) else []
        assert [*getattr(found, name)] == expected
    weights = {*own.pretrained_weights, *start.pretrained_weights}
    assert found.pretrained_weights == tuple(sorted(weights))
    eeg = {*own.people["eeg"], *start.people["eeg"]}
    assert found.people == {"eeg": tuple(sorted(eeg)), "own": (1,), "start": (1,)}
    assert found.signals == {"s": "own", "own": "x", "start": "x"}
    assert {*found.trials.tolist()} == {*own.trials.tolist(), *start.trials.tolist()}
    assert found.dataset == "start + own" and own.inherit(own).dataset == "own"
    # normalisers are not inherited
    assert [*found.normalisers] == [len("own")]


def test_each_unknown_fact_of_a_history_is_a_caveat() -> None:
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
    folder: Path, weights: tuple[str, ...], people: str, caveats: list[str]
) -> None:
    model = make_history(recordings=people, pretrained_weights=weights)
    # a model that starts from it inherits its weights
    tuned = make_history(recordings=people).inherit(model)

    for history in (model, tuned):
        assert history.list_caveats(people) == history.caveats == caveats
    Aligner(LAYOUT, learned=tuned).save(folder)
    assert aligners.load(folder).learned.pretrained_weights == tuned.pretrained_weights


def test_subjects_of_the_history_are_not_tested_as_new() -> None:
    found = make_history(people={"eeg": (1, 2), "meg": (5,)})

    def people(name: str, *left_out: int) -> Any:
        return SimpleNamespace(
            people=name, list_excluded_subjects=lambda tested: {*left_out}
        )

    found.require_new_subjects(people("eeg", 3, 4), [3], "it")
    found.require_new_subjects(people("fmri", 1, 5), [1], "it")
    for name, number in (("eeg", 2), ("meg", 5)):
        with pytest.raises(BrainhiveError, match=f"subject {number} of {name}"):
            found.require_new_subjects(people(name, 3, number), [3], "it")


def test_a_subject_without_a_normaliser_gets_the_mean() -> None:
    found = make_history(
        **{**STATISTICS, "normalisers": {1: OTHER}, "people": {"eeg": (1, 2)}}
    )
    assert found.normaliser_of(1) is OTHER and found.normaliser_of(7) is MEAN
    # subjects of the training use their own training signals
    assert found.normaliser_of(2) is None
    assert make_history().normaliser_of(7) is None


def test_a_history_next_to_another_config_is_read_back(
    tmp_path: Path,
) -> None:
    assert TrainingHistory.read_folder(tmp_path).caveats == TrainingHistory().caveats
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        module.weights.save(tmp_path / name / "x.safetensors", {})
    trials = np.array([3, 9], np.uint64)
    make_history(**STATISTICS, trials=trials).write_folder(tmp_path)

    found = TrainingHistory.read_folder(tmp_path)

    assert found.caveats == [] and found.trials.tolist() == [3, 9]
    assert found.normaliser is not None and found.normaliser.digest == MEAN.digest
    # a further weight file may have been trained on anything
    module.weights.save(tmp_path / "a" / "y.safetensors", {})
    assert TrainingHistory.read_folder(tmp_path).caveats == [UNKNOWN_HISTORY]


def test_a_file_of_another_program_is_not_a_history(
    tmp_path: Path,
) -> None:
    weights = tmp_path / "model.safetensors"
    assert TrainingHistory.read_next_to(weights).caveats == TrainingHistory().caveats
    save_file({}, tmp_path / ARRAYS_FILE)
    assert TrainingHistory.read_next_to(weights).caveats == TrainingHistory().caveats


IMAGES = [f"t{row}" for row in range(20)]


def make_stores(
    pixels: Any = None, embedding: Any = None, done: Any = None, **attributes: Any
) -> dict[str, Any]:
    """Make a target store of 20 pictures of 20 concepts."""
    random = np.random.default_rng(0)
    attributes = {"config": {}, **attributes}
    store = SimpleNamespace(
        image_ids=np.array(IMAGES),
        concepts=[f"c{row}" for row in range(20)],
        done=np.ones(20, bool) if done is None else done,
        pixels=pixels,
        embedding=random.normal(size=(20, 6)) if embedding is None else embedding,
        attributes=attributes,
    )
    return {"e": store}


def compare_pictures(
    models: dict[int, list[TrainingHistory]],
    confirm: Callable[[int, int], Any] = lambda row, name: "",
    stores: Any = None,
    split: str = "test",
    holdout: Any = SEPARATE_TEST,
    **more: Any,
) -> TestedPictures:
    dataset = SimpleNamespace(
        name="set", pictured_as="set", people="eeg", holdout=holdout
    )
    stores = stores or make_stores(make_pixels(*range(100, 120)))
    return TestedPictures(dataset, split, 1, stores, models, confirm, **more)  # type: ignore[arg-type]


def make_model_history(
    ids: list[str], pixels: Any = None, concepts: list[str] | None = None, **more: Any
) -> TrainingHistory:
    pixels = make_pixels(*range(1, 1 + len(ids))) if pixels is None else pixels
    pictures = LearnedPictures.from_image_ids("set", ids, pixels, concepts or [])
    return replace(make_history(**more), pictures=pictures)


def list_rows(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask).tolist()


def test_each_subject_leaves_out_the_pictures_of_its_models() -> None:
    by_name, by_pixels = (
        make_model_history(["t3"]),
        make_model_history(["x"], make_pixels(105)),
    )
    near_copy = make_model_history(["n"], edit_pixels(make_pixels(107), 3))
    name = hash_names("set", ["n"]).tolist()[0]
    models = {1: [by_name, by_pixels], 2: [near_copy], 3: [make_model_history(["z"])]}
    prior = {"prior": make_model_history(["t9"])}

    found = compare_pictures(
        models,
        lambda row, other: "cropped" if (row, other) == (7, name) else "",
        sources=prior,
    )

    seen_rows = [list_rows(found.seen_by_subject[subject]) for subject in (1, 2, 3)]
    assert seen_rows == [[3, 5], [7], []]
    assert list_rows(found.seen_by_source["prior"]) == [9]
    assert list_rows(found.is_seen) == [3, 5, 7, 9] and found.caveats == []
    assert not any(rows.any() for rows in found.masks_by_warning.values())
    shown = np.array([5, 5, 0, 9, 3, *range(10, 20)])
    assert list_rows(found.find_seen_signals(1, shown, "it")) == [0, 1, 3, 4]
    assert list_rows(found.find_seen_signals(3, shown, "it")) == [3]

    # pictures without targets are not tested
    done = np.ones(20, bool)
    done[[3, 7]] = False
    stores = make_stores(make_pixels(*range(100, 120)), done=done)
    fewer = compare_pictures(models, lambda row, other: "copy", stores, sources=prior)
    assert list_rows(fewer.is_seen) == [5, 9] and list_rows(~fewer.is_tested) == [3, 7]


def test_copies_that_are_allowed_are_tested_with_a_caveat() -> None:
    models = {1: [make_model_history(["t3", "x"], make_pixels(103, 105))]}

    found = compare_pictures(models, allows_copies=True)

    assert list_rows(found.is_seen) == list_rows(found.seen_by_subject[1]) == [3]
    assert list_rows(found.masks_by_warning[COPY_WARNING]) == [5] and found.caveats == [
        SEEN_COPIES
    ]
    assert len(found.warnings) == 2 and "t5" in found.warnings[1]
    assert not compare_pictures(models).masks_by_warning[COPY_WARNING].any()


@pytest.mark.parametrize("likeness", [*ALTERED_WARNINGS, "copy", ""])
def test_altered_pictures_are_tested_with_a_warning(likeness: Any) -> None:
    models = {1: [make_model_history(["n"], edit_pixels(make_pixels(107), 3))]}

    found = compare_pictures(models, lambda row, name: likeness)

    altered = {
        kind: list_rows(found.masks_by_warning[ALTERED_WARNINGS[kind]])
        for kind in ALTERED_WARNINGS
    }
    expected = {kind: [7] if kind == likeness else [] for kind in ALTERED_WARNINGS}
    assert altered == expected
    assert list_rows(found.is_seen) == ([7] if likeness == "copy" else [])
    assert len(found.warnings) == (likeness != "")
    assert found.caveats == []


def test_only_concepts_of_earlier_trainings_are_named() -> None:
    own = make_model_history(["a"], concepts=["c1"], recordings="eeg")
    other = make_model_history(["b"], concepts=["c2"], recordings="meg")
    started = make_model_history(["c"], concepts=["c3"], recordings="eeg").inherit(
        make_model_history(["d"], concepts=["c4", "c3"], recordings="eeg")
    )
    done = np.arange(20) != 2

    def concepts(*models: TrainingHistory, stores: Any = None) -> list[int]:
        found = compare_pictures({1: [*models]}, stores=stores)
        assert (SEEN_CONCEPTS in found.caveats) == found.masks_by_warning[
            CONCEPT_WARNING
        ].any()
        return list_rows(found.masks_by_warning[CONCEPT_WARNING])

    assert concepts(own) == [] and concepts(other) == [2] and concepts(started) == [4]
    assert concepts(own, other, started) == [2, 4]
    stores = make_stores(make_pixels(*range(100, 120)), done=done)
    assert concepts(other, stores=stores) == []


def test_held_out_trials_of_seen_pictures_are_all_tested() -> None:
    models = {1: [make_model_history(["t3"])]}
    holdout = Holdout(by="runs", folds=2)

    found = compare_pictures(
        models, holdout=holdout, sources={"prior": make_model_history(["t3"])}
    )
    assert (
        not found.is_seen.any()
        and found.masks_by_warning == {}
        and found.seen_by_source == {}
    )
    assert found.is_tested.all() and found.warnings == []
    # without pixels, trials have no caveat
    assert compare_pictures(models, holdout=holdout, stores=make_stores()).caveats == []
    trained = compare_pictures(models, holdout=holdout, split="train")
    assert list_rows(trained.is_seen) == [3]
    # with held-out pictures, the pictures of the fold are tested
    by_picture = compare_pictures(models, holdout=Holdout(by="pictures", test=["t3"]))
    assert list_rows(by_picture.is_tested) == list_rows(by_picture.is_seen) == [3]


def test_unknown_facts_of_stores_are_caveats() -> None:
    models = {1: [make_model_history(["t3"])]}
    pixels = make_pixels(*range(100, 120))
    for stores, caveats in (
        (make_stores(pixels), []),
        (make_stores(), [UNKNOWN_PICTURES]),
        (make_stores(pixels, imported=True), [UNKNOWN_NETWORK]),
        (make_stores(imported=True), [UNKNOWN_PICTURES, UNKNOWN_NETWORK]),
        (make_stores(pixels, config={"pictures": "x"}), [UNKNOWN_PICTURES]),
    ):
        found = compare_pictures(models, stores=stores)
        assert found.caveats == caveats and list_rows(found.is_seen) == [3]
    # without models, nothing is compared
    assert compare_pictures({}).masks_by_warning == {}


def test_pictures_with_equal_embeddings_are_named() -> None:
    embedding = np.random.default_rng(0).normal(size=(20, 6))
    embedding[[4, 9]] = 2 * embedding[0]
    stores = make_stores(make_pixels(*range(100, 120)), embedding, np.arange(20) != 9)
    found = compare_pictures({1: [make_model_history(["z"])]}, stores=stores)
    assert list_rows(found.has_equal_embedding) == [0, 4] and found.caveats == [TWINS]
    (line,) = found.warnings
    assert EQUAL_WARNING in line and "t0, t4" in line and "2 of the 19" in line


@pytest.mark.parametrize(("count", "is_refused"), [(4, False), (5, True)])
def test_more_than_a_fifth_of_seen_pictures_is_refused(
    count: int, is_refused: bool
) -> None:
    models = {1: [make_model_history(IMAGES[:count])], 2: [make_model_history(["z"])]}
    found = compare_pictures(models)
    # a picture that was shown often counts once
    rows = np.array([0] * 50 + [*range(20)])

    if is_refused:
        with pytest.raises(BrainhiveError, match=r"^it .* 5 of the 20"):
            found.find_seen_signals(1, rows, "it")
    else:
        assert found.find_seen_signals(1, rows, "it").sum() == 50 + count
    assert not found.find_seen_signals(2, rows, "it").any()
    assert len(found.find_seen_signals(1, rows[:0], "it")) == 0
    # the share is of the shown pictures, not of all pictures
    with pytest.raises(BrainhiveError, match="2 of the 3"):
        found.find_seen_signals(1, np.array([0, 1, 19]), "it")
    (line,) = found.warnings
    assert ("…" in line) == (count > 5) and f"{count} of the 20" in line


def test_pictures_that_any_run_leaves_out_are_summarised() -> None:
    first = compare_pictures({1: [make_model_history(["t3", "t5"])]})
    second = compare_pictures({1: [make_model_history(["t5", *IMAGES[10:15]])]})

    runs = [first, second, first]
    seen, lines = summarise_tested_pictures(runs, ["warning", *first.warnings])

    names = ["t3", "t5", "t10", "t11", "t12"]
    assert (seen.count, seen.of, seen.names) == (7, 20, names)
    assert lines == ["warning", *first.warnings, *second.warnings]
