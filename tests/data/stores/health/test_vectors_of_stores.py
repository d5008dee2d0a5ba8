"""Vectors of stores: limits of their health, equal vectors, and rows that are found."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.data.stores import (
    Health,
    StorePlan,
    TargetStore,
    TargetWriter,
    find_equal_embeddings,
    get_stimuli_and_pixels,
    has_unknown_pictures,
    make_health_row,
    target_store,
)

SOUND = Health(16, 20, 1.0, [1.0] * 5, 2, 0, 0.5, 0.25)


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 0),
        ({"non_finite": 1}, 1),
        ({"non_finite": 1, "vectors": 15, "dead_dimensions": 20}, 1),
        ({"vectors": 15, "median_pair_cosine": 1.0, "near_duplicates": 1.0}, 0),
        ({"median_pair_cosine": 0.51}, 1),
        ({"median_pair_cosine": 0.1}, 0),
        ({"median_pair_cosine": 0.09}, 1),
        ({"dead_dimensions": 3}, 1),
        ({"near_duplicates": 0.26}, 1),
        ({"near_duplicates": 0.26, "dead_dimensions": 9, "non_finite": 2}, 3),
    ],
)
def test_limits_of_health_are_those_of_the_encoder(changes, count):
    health = Health(**{**vars(SOUND), **changes})
    problems = health.list_problems((0.1, 0.5), 0.25, 0.1)
    assert len(problems) == count


def test_figures_of_health_are_rounded_for_a_table():
    health = Health(
        9, 5, 1.23456, [0.1, 0.2, 0.34567, 4.0, 5.0], 6, 7, 0.12345, 0.98765
    )
    path = Path("a/b/set/train/vae.h5")
    row = make_health_row(path, health, True)
    assert row == ("set/train/vae", 9, 1.23, 0.346, 6, 7, 0.123, 0.988, "failed")
    assert make_health_row(path, health, False, True) == (
        "set/train/vae",
        9,
        "–",
        "–",
        "–",
        7,
        "–",
        "–",
        "passed",
    )


@pytest.mark.parametrize("numbers", [2**24, 200])
def test_equal_embeddings_are_equal_in_every_store(monkeypatch, numbers):
    monkeypatch.setattr(target_store, "VALUES_PER_BLOCK", numbers)
    random = np.random.default_rng(0)
    vectors = random.normal(size=(12, 40))
    tokens = random.normal(size=(12, 5, 8))
    # copies of another length, after rounding, and in a single store
    vectors[[5, 7, 9, 11]] = vectors[[1, 2, 3, 4]] * [[2], [1 + 1e-5], [1], [1]]
    tokens[[5, 7, 11]] = tokens[[1, 2, 4]]
    tokens[11] += 0.02
    stores = [SimpleNamespace(embedding=array) for array in (vectors, tokens)]
    is_candidate = np.ones(12, bool)
    rows = np.flatnonzero(find_equal_embeddings(stores, is_candidate))
    assert rows.tolist() == [1, 2, 5, 7]
    rows = np.flatnonzero(find_equal_embeddings(stores[:1], is_candidate))
    assert rows.tolist() == [1, 2, 3, 4, 5, 7, 9, 11]
    assert not find_equal_embeddings(stores, np.arange(12) < 5).any()
    assert not find_equal_embeddings(stores, np.arange(12) == 5).any()
    assert not find_equal_embeddings(stores, np.arange(12) < 0).any()


@pytest.mark.parametrize(("distance", "is_equal"), [(2.0e-4, True), (4.5e-4, False)])
def test_equal_embeddings_differ_by_rounding(distance, is_equal):
    random = np.random.default_rng(1)
    comparisons = []
    for _ in range(8):
        unit, step = random.normal(size=(2, 5000))
        unit /= np.linalg.norm(unit)
        step -= (step @ unit) * unit
        pair = np.stack([unit, unit + distance * step / np.linalg.norm(step)])
        store = SimpleNamespace(embedding=pair)
        comparisons.append(bool(find_equal_embeddings([store], np.ones(2, bool)).all()))
    # a few random directions keep distances within some 20 %
    assert np.mean(comparisons) > 0.7 if is_equal else np.mean(comparisons) < 0.3


IDS = [f"train/p{number}" for number in range(6)]


def write_store(path, shape=(3, 2), **attributes):
    path.parent.mkdir(parents=True, exist_ok=True)
    has_pixels = attributes.pop("has_pixels", False)
    StorePlan(
        path, IDS, IDS, shape, "float32", attributes, has_pixels=has_pixels
    ).create()
    writer = TargetWriter(path)
    values = np.arange(6.0 * np.prod(shape)).reshape(6, *shape)
    values[4] = np.nan
    pixels = {"pixels": np.ones((5, 25), np.uint64)} if has_pixels else {}
    writer.write(np.arange(5), values[:5], **pixels)
    writer.close()
    writer.finish()
    return TargetStore.open(path)


def test_rows_without_a_finite_target_are_not_found(tmp_path):
    store = write_store(tmp_path / "set/train/vae.h5", has_pixels=True)
    assert store.done.tolist() == [True] * 4 + [False] * 2
    assert store.find_rows(["p3", "p4", "train/p0", "p5"]).tolist() == [3, -1, 0, -1]
    attributes = store.attributes
    assert attributes["encoder"] == "vae"
    assert attributes["split"] == "train"
    assert attributes["dataset"] == "set"
    assert attributes["skipped"] == 1
    assert attributes["pictures"] == store.image_ids.digest
    assert store.pixels is not None
    assert store.pixels.shape == (6, 25)
    assert store.shape == (3, 2)
    assert store.alternatives is None
    assert not store.has_own_vectors


def test_flat_rows_have_the_first_alternative(tmp_path):
    plain_store = write_store(tmp_path / "set/train/vae.h5")
    several_store = write_store(tmp_path / "set/train/text.h5", alternatives=3)
    rows = np.array([2, 0])
    assert plain_store.read_flat(rows).tolist() == [
        [12, 13, 14, 15, 16, 17],
        list(range(6)),
    ]
    assert several_store.shape == (2,)
    assert several_store.alternatives == 3
    assert several_store.read_flat(rows).tolist() == [[12, 13], [0, 1]]


def test_a_view_is_read_from_the_store_of_all_views(tmp_path):
    store = write_store(tmp_path / "set/train/vae-all.h5", config={"views": "all"})
    view = store.select_view("vae-view-1", 1)
    assert view.shape == (2,)
    assert view.embedding[3].tolist() == [20, 21]
    assert view.attributes["config"] == {"views": 1}
    assert view.attributes["encoder"] == "vae-view-1"
    assert store.select_view("vae-all", None) is store
    with pytest.raises(BrainhiveError):
        store.select_view("vae-view-3", 3)
    for name, view_store in (
        ("vae-view-2", (store.path, 2)),
        ("vae-view-2-0123abcd", (tmp_path / "set/train/vae-view-2-0123abcd.h5", None)),
        ("vae", (tmp_path / "set/train/vae.h5", None)),
    ):
        assert target_store.find_store(tmp_path, "set", "train", name) == view_store
    stores = target_store.open_stores(
        tmp_path, "set", "train", ["vae-view-2", "vae-all"]
    )
    assert [stores[name].shape for name in stores] == [(2,), (3, 2)]


def test_a_store_of_other_pictures_is_refused(tmp_path):
    store = write_store(tmp_path / "set/train/vae.h5")
    store.require_pictures(IDS, "embed")
    for ids, changes in (
        (IDS[::-1], "the order differs"),
        (list(IDS[2:]) + ["new"], "1 added, 2 removed"),
        (IDS[:5], "0 added, 1 removed"),
    ):
        with pytest.raises(BrainhiveError) as caught:
            store.require_pictures(ids, "embed")
        assert caught.value.message.endswith(changes)


def test_pixels_are_taken_from_any_store(tmp_path):
    store = write_store(tmp_path / "set/train/a.h5")
    known_store = write_store(tmp_path / "set/train/b.h5", has_pixels=True)
    first_stimuli, pixels = get_stimuli_and_pixels({"a": store, "b": known_store})
    assert first_stimuli is store
    assert pixels is known_store.pixels
    assert get_stimuli_and_pixels({"a": store}) == (store, None)


@pytest.mark.parametrize(
    ("attributes", "is_unknown"),
    [
        ({}, False),
        ({"imported": ["a.pt"]}, True),
        ({"imported": ["a.pt"], "has_pixels": True}, False),
        ({"config": {"pictures": "drawn"}, "has_pixels": True}, True),
    ],
)
def test_imported_vectors_may_have_unknown_pictures(tmp_path, attributes, is_unknown):
    usual_store = write_store(tmp_path / "set/train/a.h5")
    store = write_store(tmp_path / "set/train/b.h5", **attributes)
    assert has_unknown_pictures([usual_store, store]) == is_unknown


@pytest.mark.parametrize(
    ("values", "is_refused"),
    [
        ([[0, -65504.0], [np.inf, np.nan]], False),
        ([[0, -65600.0], [np.inf, np.nan]], True),
        ([[1, 65504], [0, 0]], False),
        ([[1, 70_000], [0, 0]], True),
    ],
)
def test_values_that_float16_cannot_hold_are_refused(tmp_path, values, is_refused):
    path = tmp_path / "set/train/vae.h5"
    path.parent.mkdir(parents=True)
    StorePlan(path, IDS, IDS, (2,), "float16", {}).create()
    writer = TargetWriter(path)
    if is_refused:
        with pytest.raises(BrainhiveError):
            writer.write(np.arange(2), np.array(values))
    else:
        writer.write(np.arange(2), np.array(values))
    writer.close()
    pending = list(range(6)) if is_refused else [2, 3, 4, 5]
    assert TargetWriter(path).pending_rows.tolist() == pending


def test_stores_are_listed_once_without_hidden_files(tmp_path):
    store = write_store(tmp_path / "set/train/vae.h5")
    (tmp_path / "set/train/._vae.h5").write_bytes(b"")
    names = [str(tmp_path / "set"), str(store.path), str(tmp_path / "*")]
    assert target_store.list_stores(names, SimpleNamespace()) == [store.path]
    (tmp_path / "empty").mkdir()
    for absent in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(MissingData):
            target_store.list_stores([str(absent)], SimpleNamespace())
