"""The embedding store: resumable to the byte, honest about its health, closed until
complete.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from brainhive_cli.core.errors import MissingData
from brainhive_cli.data.stores import target_store
from brainhive_cli.data.stores.health import measure_health
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.stores.target_writer import StorePlan, TargetWriter
from tests.tools.mapped_arrays import is_mapped

COUNT, DIM = 400, 16
IDS = [f"train/c{number % 7}/p{number:03d}" for number in range(COUNT)]
CONCEPTS = [f"c{number % 7}" for number in range(COUNT)]


@pytest.fixture
def values() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(COUNT, DIM)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return target_store.build_store_path(tmp_path, "set", "train", "encoder")


def begin(path: Path, **attributes: Any) -> TargetWriter:
    StorePlan(
        path, IDS, CONCEPTS, (DIM,), "float32", {"encoder": "encoder", **attributes}
    ).create()
    return TargetWriter(path)


def fill(writer: TargetWriter, values: NDArray[np.float32]) -> None:
    writer.write(writer.pending_rows, values[writer.pending_rows])
    writer.close()
    writer.finish()


def test_a_finished_store_gives_back_what_was_written(
    path: Path, values: NDArray[np.float32]
) -> None:
    fill(begin(path, weights={"digest": "d"}), values)
    found = TargetStore.open(path)
    np.testing.assert_array_equal(found.embedding, values)
    assert is_mapped(found.embedding[:])
    assert (found.image_ids, found.concepts, found.done.all()) == (IDS, CONCEPTS, True)
    assert (
        found.attributes["weights"] == {"digest": "d"}
        and found.attributes["skipped"] == 0
    )
    assert found.find_rows(["p003", IDS[5]]).tolist() == [3, 5]
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["embedding"][()], found.embedding)


def test_a_store_carries_its_health_as_plain_json(
    path: Path, values: NDArray[np.float32]
) -> None:
    values[3, 2] = np.nan
    fill(begin(path), values)
    found = TargetStore.open(path)
    assert (
        found.health
        == found.remeasure_health()
        == measure_health(values, np.arange(COUNT))
    )
    assert found.health.non_finite == 1
    assert isinstance(found.attributes["health"]["spread"], list)


def test_every_missing_store_is_named_with_the_line_that_makes_it(
    path: Path, values: NDArray[np.float32]
) -> None:
    fill(begin(path), values)
    root = path.parents[2]
    assert list(target_store.open_stores(root, "set", "train", ["encoder"])) == [
        "encoder"
    ]
    with pytest.raises(
        MissingData, match="no train embeddings of vae, clip-h14 for set"
    ) as caught:
        target_store.open_stores(root, "set", "train", ["vae", "encoder", "clip-h14"])
    assert caught.value.hint == "brainhive embed --encoders vae,clip-h14 --dataset set"
