"""Target store: its content, its health, and missing stores."""

import h5py
import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.data.stores import StorePlan, TargetStore, TargetWriter, target_store
from brainhive_cli.data.stores.health import measure_health
from tests.tools.changed_stores import resealed
from tests.tools.mapped_arrays import is_mapped

COUNT, DIM = 400, 16
IDS = [f"train/c{number % 7}/p{number:03d}" for number in range(COUNT)]
CONCEPTS = [f"c{number % 7}" for number in range(COUNT)]


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(COUNT, DIM)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    return target_store.build_store_path(tmp_path, "set", "train", "encoder")


def write_store(path, values, **attributes):
    attributes = {"encoder": "encoder", **attributes}
    StorePlan(path, IDS, CONCEPTS, (DIM,), "float32", attributes).create()
    writer = TargetWriter(path)
    writer.write(writer.pending_rows, values[writer.pending_rows])
    writer.close()
    writer.finish()


def test_a_finished_store_gives_back_what_was_written(path, values):
    write_store(path, values, weights={"digest": "d"})
    target_store = TargetStore.open(path)
    np.testing.assert_array_equal(target_store.embedding, values)
    assert is_mapped(target_store.embedding[:])
    assert (
        target_store.image_ids,
        target_store.concepts,
        target_store.done.all(),
    ) == (IDS, CONCEPTS, True)
    assert target_store.attributes["weights"] == {"digest": "d"}
    assert target_store.attributes["skipped"] == 0
    assert target_store.find_rows(["p003", IDS[5]]).tolist() == [3, 5]
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["embedding"][()], target_store.embedding)


def test_a_store_carries_its_health_as_plain_json(path, values):
    values[3, 2] = np.nan
    write_store(path, values)
    target_store = TargetStore.open(path)
    health = measure_health(values, np.arange(COUNT))
    assert target_store.health == target_store.remeasure_health() == health
    assert health.non_finite == 1
    assert isinstance(target_store.attributes["health"]["spread"], list)


def test_a_store_with_fewer_embeddings_than_pictures_is_refused(path, values):
    write_store(path, values)
    with resealed(path) as file:
        del file["embedding"]
        file["embedding"] = values[:-2]
    with pytest.raises(BrainhiveError, match=f"{COUNT - 2} .* {COUNT}"):
        TargetStore.open(path)


def test_missing_stores_are_listed_with_the_line_to_make_them(path, values):
    write_store(path, values)
    root = path.parents[2]
    stores = target_store.open_stores(root, "set", "train", ["encoder"])
    assert list(stores) == ["encoder"]
    with pytest.raises(MissingData, match=r"train .*vae, clip-h14 for set") as caught:
        target_store.open_stores(root, "set", "train", ["vae", "encoder", "clip-h14"])
    assert caught.value.hint == "brainhive embed --encoders vae,clip-h14 --dataset set"
