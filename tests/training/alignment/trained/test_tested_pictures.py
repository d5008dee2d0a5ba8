"""Pictures of a test, compared with learned pictures."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.results.measurements import (
    SEEN_CONCEPTS,
    SEEN_COPIES,
    TWINS,
    UNKNOWN_NETWORK,
    UNKNOWN_PICTURES,
)
from brainhive_cli.data.signals.holdout import SEPARATE_TEST, Holdout
from brainhive_cli.data.stores.learned_pictures import (
    LearnedPictures,
    hash_names,
)
from brainhive_cli.training.alignment.trained.tested_pictures import (
    ALTERED_WARNINGS,
    CONCEPT_WARNING,
    COPY_WARNING,
    EQUAL_WARNING,
    TestedPictures,
    summarise_tested_pictures,
)
from tests.worlds.learned_histories import edit_pixels, make_history, make_pixels

IMAGES = [f"t{row}" for row in range(20)]


def make_stores(
    pixels=None,
    embedding=None,
    is_finished=None,
    **attributes,
):
    """Make a target store of 20 pictures of 20 concepts."""
    random = np.random.default_rng(0)
    attributes = {"config": {}, **attributes}
    store = SimpleNamespace(
        image_ids=np.array(IMAGES),
        concepts=[f"c{row}" for row in range(20)],
        done=np.ones(20, bool) if is_finished is None else is_finished,
        pixels=pixels,
        embedding=random.normal(size=(20, 6)) if embedding is None else embedding,
        attributes=attributes,
    )
    return {"e": store}


def compare_pictures(
    models,
    confirm=lambda row, name: "",
    stores=None,
    split="test",
    holdout=SEPARATE_TEST,
    **fields,
):
    dataset = SimpleNamespace(
        name="set", pictured_as="set", people="eeg", holdout=holdout
    )
    stores = stores or make_stores(make_pixels(*range(100, 120)))
    return TestedPictures(dataset, split, 1, stores, models, confirm, **fields)  # type: ignore[arg-type]


def make_model_history(ids, pixels=None, concepts=None, **fields):
    pixels = make_pixels(*range(1, 1 + len(ids))) if pixels is None else pixels
    pictures = LearnedPictures.from_image_ids("set", ids, pixels, concepts or [])
    return replace(make_history(**fields), pictures=pictures)


def list_rows(mask):
    return np.flatnonzero(mask).tolist()


def test_each_subject_leaves_out_the_pictures_of_its_models():
    by_name, by_pixels = (
        make_model_history(["t3"]),
        make_model_history(["x"], make_pixels(105)),
    )
    near_copy = make_model_history(["n"], edit_pixels(make_pixels(107), 3))
    name = hash_names("set", ["n"]).tolist()[0]
    models = {1: [by_name, by_pixels], 2: [near_copy], 3: [make_model_history(["z"])]}
    prior = {"prior": make_model_history(["t9"])}

    pictures = compare_pictures(
        models,
        lambda row, name_: "cropped" if (row, name_) == (7, name) else "",
        sources=prior,
    )

    seen_rows = [list_rows(pictures.seen_by_subject[subject]) for subject in (1, 2, 3)]
    assert seen_rows == [[3, 5], [7], []]
    assert list_rows(pictures.seen_by_source["prior"]) == [9]
    assert list_rows(pictures.is_seen) == [3, 5, 7, 9]
    assert pictures.caveats == []
    assert not any(rows.any() for rows in pictures.masks_by_warning.values())
    array = np.array([5, 5, 0, 9, 3] + list(range(10, 20)))
    assert list_rows(pictures.find_seen_signals(1, array, "it")) == [0, 1, 3, 4]
    assert list_rows(pictures.find_seen_signals(3, array, "it")) == [3]

    # pictures without targets are not tested
    is_embedded = np.ones(20, bool)
    is_embedded[[3, 7]] = False
    stores = make_stores(make_pixels(*range(100, 120)), is_finished=is_embedded)
    fewer = compare_pictures(models, lambda row, name_: "copy", stores, sources=prior)
    assert list_rows(fewer.is_seen) == [5, 9]
    assert list_rows(~fewer.is_tested) == [3, 7]


def test_copies_that_are_allowed_are_tested_with_a_caveat():
    models = {1: [make_model_history(["t3", "x"], make_pixels(103, 105))]}

    pictures = compare_pictures(models, allows_copies=True)

    assert list_rows(pictures.is_seen) == list_rows(pictures.seen_by_subject[1]) == [3]
    assert list_rows(pictures.masks_by_warning[COPY_WARNING]) == [5]
    assert pictures.caveats == [SEEN_COPIES]
    assert len(pictures.warnings) == 2
    assert "t5" in pictures.warnings[1]
    assert not compare_pictures(models).masks_by_warning[COPY_WARNING].any()


@pytest.mark.parametrize("likeness", list(ALTERED_WARNINGS) + ["copy", ""])
def test_altered_pictures_are_tested_with_a_warning(likeness):
    models = {1: [make_model_history(["n"], edit_pixels(make_pixels(107), 3))]}

    pictures = compare_pictures(models, lambda row, name: likeness)

    altered = {
        kind: list_rows(pictures.masks_by_warning[ALTERED_WARNINGS[kind]])
        for kind in ALTERED_WARNINGS
    }
    expected = {kind: [7] if kind == likeness else [] for kind in ALTERED_WARNINGS}
    assert altered == expected
    assert list_rows(pictures.is_seen) == ([7] if likeness == "copy" else [])
    assert len(pictures.warnings) == (likeness != "")
    assert pictures.caveats == []


def test_only_concepts_of_earlier_trainings_are_named():
    own_model_history = make_model_history(["a"], concepts=["c1"], recordings="eeg")
    other_model_history = make_model_history(["b"], concepts=["c2"], recordings="meg")
    started = make_model_history(["c"], concepts=["c3"], recordings="eeg").inherit(
        make_model_history(["d"], concepts=["c4", "c3"], recordings="eeg")
    )
    has_embedding = np.arange(20) != 2

    def concepts(*models, stores=None):
        pictures = compare_pictures({1: list(models)}, stores=stores)
        assert (SEEN_CONCEPTS in pictures.caveats) == pictures.masks_by_warning[
            CONCEPT_WARNING
        ].any()
        return list_rows(pictures.masks_by_warning[CONCEPT_WARNING])

    assert concepts(own_model_history) == []
    assert concepts(other_model_history) == [2]
    assert concepts(started) == [4]
    assert concepts(own_model_history, other_model_history, started) == [2, 4]
    stores = make_stores(make_pixels(*range(100, 120)), is_finished=has_embedding)
    assert concepts(other_model_history, stores=stores) == []


def test_held_out_trials_of_seen_pictures_are_all_tested():
    models = {1: [make_model_history(["t3"])]}
    holdout = Holdout(by="runs", folds=2)

    pictures = compare_pictures(
        models, holdout=holdout, sources={"prior": make_model_history(["t3"])}
    )
    assert not pictures.is_seen.any()
    assert pictures.masks_by_warning == {}
    assert pictures.seen_by_source == {}
    assert pictures.is_tested.all()
    assert pictures.warnings == []
    # without pixels, trials have no caveat
    assert compare_pictures(models, holdout=holdout, stores=make_stores()).caveats == []
    trained = compare_pictures(models, holdout=holdout, split="train")
    assert list_rows(trained.is_seen) == [3]
    # with held-out pictures, the pictures of the fold are tested
    by_picture = compare_pictures(models, holdout=Holdout(by="pictures", test=["t3"]))
    assert list_rows(by_picture.is_tested) == list_rows(by_picture.is_seen) == [3]


def test_unknown_facts_of_stores_are_caveats():
    models = {1: [make_model_history(["t3"])]}
    pixels = make_pixels(*range(100, 120))
    for stores, caveats in (
        (make_stores(pixels), []),
        (make_stores(), [UNKNOWN_PICTURES]),
        (make_stores(pixels, imported=True), [UNKNOWN_NETWORK]),
        (make_stores(imported=True), [UNKNOWN_PICTURES, UNKNOWN_NETWORK]),
        (make_stores(pixels, config={"pictures": "x"}), [UNKNOWN_PICTURES]),
    ):
        pictures = compare_pictures(models, stores=stores)
        assert pictures.caveats == caveats
        assert list_rows(pictures.is_seen) == [3]
    # without models, nothing is compared
    assert compare_pictures({}).masks_by_warning == {}


def test_pictures_with_equal_embeddings_are_named():
    embedding = np.random.default_rng(0).normal(size=(20, 6))
    embedding[[4, 9]] = 2 * embedding[0]
    stores = make_stores(make_pixels(*range(100, 120)), embedding, np.arange(20) != 9)
    pictures = compare_pictures({1: [make_model_history(["z"])]}, stores=stores)
    assert list_rows(pictures.has_equal_embedding) == [0, 4]
    assert pictures.caveats == [TWINS]
    (line,) = pictures.warnings
    assert EQUAL_WARNING in line
    assert "t0, t4" in line
    assert "2 of the 19" in line


@pytest.mark.parametrize(("count", "is_refused"), [(4, False), (5, True)])
def test_more_than_a_fifth_of_seen_pictures_is_refused(count, is_refused):
    models = {1: [make_model_history(IMAGES[:count])], 2: [make_model_history(["z"])]}
    pictures = compare_pictures(models)
    # a picture that was shown often counts once
    rows = np.array([0] * 50 + list(range(20)))

    if is_refused:
        with pytest.raises(BrainhiveError, match=r"^it .* 5 of the 20"):
            pictures.find_seen_signals(1, rows, "it")
    else:
        assert pictures.find_seen_signals(1, rows, "it").sum() == 50 + count
    assert not pictures.find_seen_signals(2, rows, "it").any()
    assert len(pictures.find_seen_signals(1, rows[:0], "it")) == 0
    # the share is of the shown pictures, not of all pictures
    with pytest.raises(BrainhiveError, match="2 of the 3"):
        pictures.find_seen_signals(1, np.array([0, 1, 19]), "it")
    (line,) = pictures.warnings
    assert ("…" in line) == (count > 5)
    assert f"{count} of the 20" in line


def test_pictures_that_any_run_leaves_out_are_summarised():
    first_pictures = compare_pictures({1: [make_model_history(["t3", "t5"])]})
    second = compare_pictures({1: [make_model_history(["t5"] + list(IMAGES[10:15]))]})

    runs = [first_pictures, second, first_pictures]
    summary, lines = summarise_tested_pictures(
        runs, ["warning"] + list(first_pictures.warnings)
    )

    names = ["t3", "t5", "t10", "t11", "t12"]
    assert (summary.count, summary.of, summary.names) == (7, 20, names)
    assert lines == ["warning"] + list(first_pictures.warnings) + list(second.warnings)
