"""Every changed byte of a finished store is found by a checksum or the seal."""

import h5py
import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.stores import StorePlan, TargetStore, TargetWriter

COUNT = 300
DIM = 8
IDS = [f"train/c{number % 7}/p{number:03d}" for number in range(COUNT)]
VALUES = np.random.default_rng(0).normal(size=(COUNT, DIM)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "set/train/encoder.h5"
    StorePlan(
        path, IDS, IDS, (DIM,), "float32", {"encoder": "encoder"}, {"sizes": (2,)}
    ).create()
    writer = TargetWriter(path)
    for rows in (np.arange(100, COUNT), np.arange(99, -1, -1)):
        writer.write(rows, VALUES[rows], sizes=VALUES[rows, :2])
    writer.close()
    writer.finish()
    return path


def find_offset(path, name):
    with h5py.File(path) as file:
        return file[name].id.get_offset()


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_every_index_reads_the_rows_of_the_array(path):
    rows = TargetStore.open(path).embedding
    assert (rows.shape, rows.dtype, rows.nbytes, len(rows)) == (
        (300, 8),
        "f4",
        9600,
        300,
    )
    for index in (
        -1,
        slice(5, 2, -1),
        [3, 3, 1],
        VALUES[:, 0] > 0,
        ([4, -2], 1),
        (..., 3),
    ):
        assert np.array_equal(rows[index], VALUES[index])
    assert np.array_equal(rows.select_column(4)[[5, 1]], VALUES[[5, 1], 4])
    with pytest.raises(IndexError):
        rows[300]
    assert rows[:0].shape == (0, 8)
    assert np.array(rows).flags.writeable
    assert not rows[:2].flags.writeable


def test_every_index_refuses_a_damaged_row(path):
    flip(path, find_offset(path, "embedding") + 150 * DIM * 4 + 5)
    rows = TargetStore.open(path).embedding
    assert np.array_equal(rows[:150], VALUES[:150])
    assert np.array_equal(rows[151:], VALUES[151:])
    reads = [
        lambda: rows[150],
        lambda: rows[-150],
        lambda: rows[140:160, 2:],
        lambda: rows[[200, 150, 3]],
        lambda: rows[np.arange(300) > 100],
        lambda: rows.select_column(3)[100:],
        lambda: np.asarray(rows),
    ]
    for read_rows in reads * 2:  # a damaged row is refused again
        with pytest.raises(BrainhiveError) as caught:
            read_rows()
        assert f"{path} is damaged: row 150 of embedding" in caught.value.message
        command = "brainhive embed --dataset set --encoders encoder splits=train"
        assert command in caught.value.hint


@pytest.mark.parametrize("name", ["image_id", "checksum/embedding"])
def test_opening_checks_all_that_is_small(path, name):
    flip(path, find_offset(path, name) + 150)
    with pytest.raises(BrainhiveError, match="seal") as caught:
        TargetStore.open(path)
    assert "brainhive embed --dataset set" in caught.value.hint


def test_a_changed_attribute_and_a_lost_seal_are_found(
    path,
):
    with h5py.File(path, "r+") as file:
        file.attrs["encoder"] = "another"
    with pytest.raises(BrainhiveError, match="seal"):
        TargetStore.open(path)
    hdf5.unseal(path)
    with pytest.raises(BrainhiveError, match=f"{path} .*seal"):
        TargetStore.open(path)
