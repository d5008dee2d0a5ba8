"""Checksums: any byte of a finished store that changes what it says is found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xxhash

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.stores.hdf5 import LazyRows
from brainhive_cli.data.stores.ids import Names
from brainhive_cli.data.stores.target_store import Blank, TargetStore, TargetWriter
from tests.resealed import resealed

COUNT, DIM = 300, 8
IDS = [f"train/c{number % 7}/p{number:03d}" for number in range(COUNT)]
VALUES = np.random.default_rng(0).normal(size=(COUNT, DIM)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "set/train/encoder.h5"
    Blank(path, IDS, IDS, (DIM,), "float32", {"encoder": "encoder"}, {"sizes": (2,)}).create()
    writer = TargetWriter(path)
    for rows in (np.arange(100, COUNT), np.arange(99, -1, -1)):
        writer.write(rows, VALUES[rows], sizes=VALUES[rows, :2])
    writer.close()
    writer.finish()
    return path


def place(path: Path, name: str) -> int:
    with h5py.File(path) as file:
        return file[name].id.get_offset()


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_sound_store_is_verified(path: Path) -> None:
    found = TargetStore.open(path)
    found.verify()
    assert np.array_equal(found.embedding, VALUES)


@pytest.mark.parametrize("row", [1, 150, 298])
def test_a_flipped_bit_of_a_row_is_found_where_it_is(path: Path, row: int) -> None:
    flip(path, place(path, "embedding") + row * DIM * 4 + 5)
    with pytest.raises(
        BrainhiveError, match=rf"1 of 300 rows of embedding do not match their checksums: {row}$"
    ):
        TargetStore.open(path).verify()


@pytest.mark.parametrize("change", ["twice", "others"])
def test_names_that_are_not_those_of_the_pictures_are_found(path: Path, change: str) -> None:
    with resealed(path) as file:
        file["image_id"][1] = file["image_id"][0] if change == "twice" else b"train/c0/other"
        if change == "twice":
            file.attrs["pictures"] = Names(file["image_id"][()]).digest
    found = TargetStore.open(path)
    with pytest.raises(BrainhiveError, match=r"several rows of one name|not those of the pictures"):
        found.verify()


@pytest.mark.parametrize(
    "read",
    [
        lambda rows: rows[150],
        lambda rows: rows[-150],
        lambda rows: rows[140:160, 2:],
        lambda rows: rows[250::-50],
        lambda rows: rows[[200, 150, 3]],
        lambda rows: rows[np.arange(300) > 100],
        lambda rows: rows.column(3)[100:],
        lambda rows: np.asarray(rows, np.float64),
    ],
    ids=["row", "from the end", "part", "steps", "list", "mask", "column", "all"],
)
def test_whatever_reads_a_damaged_row_refuses_it(path: Path, read: Callable[[LazyRows], Any]) -> None:
    read(TargetStore.open(path).embedding)
    flip(path, place(path, "embedding") + 150 * DIM * 4 + 5)
    rows = TargetStore.open(path).embedding
    assert np.array_equal(rows[:150], VALUES[:150]) and np.array_equal(rows[151:], VALUES[151:])
    for _ in range(2):  # what was refused once is not taken for sound
        with pytest.raises(BrainhiveError) as caught:
            read(rows)
        assert caught.value.message == f"{path} is damaged: row 150 of embedding does not match its checksum"
        assert caught.value.hint == (
            "delete it, then: brainhive embed --dataset set --encoders encoder splits=train"
        )


def test_rows_are_those_of_the_array_however_they_are_read(path: Path) -> None:
    rows = TargetStore.open(path).embedding
    assert (rows.shape, rows.dtype, rows.nbytes, len(rows)) == ((300, 8), "f4", 9600, 300)
    for index in (
        7,
        -1,
        slice(5, 2, -1),
        [3, 3, 1],
        VALUES[:, 0] > 0,
        (slice(None), 2),
        ([4, -2], 1),
        (..., 3),
    ):
        assert np.array_equal(rows[index], VALUES[index])
    assert np.array_equal(rows.column(4)[[5, 1]], VALUES[[5, 1], 4])
    with pytest.raises(IndexError):
        rows[300]
    assert rows[:0].shape == (0, 8) and np.array(rows).flags.writeable and not rows[:2].flags.writeable


def test_each_row_is_compared_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, digest, compared = TargetStore.open(path).embedding, xxhash.xxh3_64_intdigest, []
    monkeypatch.setattr(xxhash, "xxh3_64_intdigest", lambda row: compared.append(row) or digest(row))
    (
        rows[10:20],
        rows.column(0)[15:30],
        rows[[5, 5, 12]],
        rows[np.array([10, 29]), 2:],
        rows[np.arange(9, 31)],
    )
    assert len(compared) == 23  # rows 5, and 9 to 30


def test_a_store_that_was_rewritten_in_chunks_is_refused(path: Path) -> None:
    hdf5.unseal(path)
    with h5py.File(path, "r+") as file:
        values = file["embedding"][()]
        values[150:154] = 0
        del file["embedding"]
        file.create_dataset("embedding", data=values, chunks=(10, DIM))
    with pytest.raises(
        BrainhiveError, match=f"{path} is damaged or cut short: its seal is missing"
    ) as caught:
        TargetStore.open(path)
    assert caught.value.hint.startswith("delete it, then: brainhive embed --dataset set")


@pytest.mark.parametrize("name", ["image_id", "concept", "done", "checksum/embedding", "checksum/sizes"])
def test_opening_checks_all_that_is_small(path: Path, name: str) -> None:
    flip(path, place(path, name) + 150)
    with pytest.raises(BrainhiveError, match="its seal does not match") as caught:
        TargetStore.open(path)
    assert caught.value.hint.startswith("delete it, then: brainhive embed --dataset set")


def test_an_attribute_that_changed_is_found(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["encoder"] = "another"
    with pytest.raises(BrainhiveError, match="seal"):
        TargetStore.open(path)


@pytest.mark.parametrize("dtype", ["int32", "uint32"])
def test_numbers_of_another_kind_in_the_same_bytes_are_found(path: Path, dtype: str) -> None:
    with h5py.File(path, "r+") as file:
        values = file["sizes"][()].view(dtype)
        del file["sizes"]
        file["sizes"] = values
    with pytest.raises(BrainhiveError, match="seal"):
        TargetStore.open(path)


def test_a_seal_that_is_gone_is_found(path: Path) -> None:
    hdf5.unseal(path)
    with pytest.raises(BrainhiveError, match="its seal is missing"):
        TargetStore.open(path)


def test_every_bit_outside_the_rows_is_either_found_or_changes_nothing(path: Path) -> None:
    sound = json.dumps(seen(path))
    content, random = path.read_bytes(), np.random.default_rng(0)
    start = place(path, "embedding")
    outside = np.r_[0:start, start + VALUES.nbytes : len(content)]
    found = 0
    for at in random.choice(outside[outside < start + VALUES.nbytes + 4096], 150, replace=False):
        flip(path, at)
        try:
            assert json.dumps(seen(path)) == sound
        except BrainhiveError as error:
            assert "\n" not in error.message
            found += 1
        path.write_bytes(content)
    assert found > 20


def seen(path: Path) -> Any:
    store = TargetStore.open(path)
    return [
        np.asarray(store.embedding).tolist(),
        list(store.image_ids),
        list(store.concepts),
        store.attributes,
    ]


def without_checksums(path: Path) -> None:
    hdf5.unseal(path)
    with h5py.File(path, "r+") as file:
        del file[hdf5.CHECKSUMS]


def test_a_store_without_checksums_is_refused_with_the_line_that_makes_it_anew(path: Path) -> None:
    without_checksums(path)
    with pytest.raises(BrainhiveError, match="it has no dataset checksum/embedding") as caught:
        TargetStore.open(path)
    assert caught.value.hint == (
        "delete it, then: brainhive embed --dataset set --encoders encoder splits=train"
    )


def test_an_unfinished_store_without_checksums_is_begun_anew(path: Path) -> None:
    other = path.with_name("other.h5")
    blank = Blank(other, IDS, IDS, (DIM,), "float32", {"encoder": "encoder"})
    blank.create()
    writer = TargetWriter(other)
    writer.write(np.arange(200), VALUES[:200])
    writer.close()
    without_checksums(hdf5.part_of(other))
    blank.create()
    assert len(TargetWriter(other).pending) == COUNT


@pytest.mark.parametrize("text", ["", "[brackets]", "{", '"quoted"', "[1]"])
def test_text_stays_text_in_attributes(tmp_path: Path, text: str) -> None:
    hdf5.create(tmp_path / "a.h5", {}, {}, {"name": text})
    with hdf5.open_file(tmp_path / "a.h5", "") as file:
        assert hdf5.get_attributes(file) == {"name": text}


@pytest.mark.parametrize(
    "value",
    [
        np.arange(3),
        h5py.Empty("f4"),
        "{",
        "[" * 100_000,
        '{"a":',
    ],
)
def test_an_attribute_of_another_kind_is_one_line(tmp_path: Path, value: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w", track_order=False) as file:
        file.attrs["name"] = value if not isinstance(value, str) else value[:60_000]
    with (
        pytest.raises(BrainhiveError, match=r"a\.h5 is damaged or cut short: ") as caught,
        hdf5.open_file(tmp_path / "a.h5", "") as file,
    ):
        hdf5.get_attributes(file)
    assert "\n" not in caught.value.message


def test_a_store_of_another_layout_is_not_resumed(path: Path) -> None:
    other = path.with_name("other.h5")
    blank = Blank(other, IDS, IDS, (DIM,), "float32", {"encoder": "encoder"})
    blank.create()
    writer = TargetWriter(other)
    writer.write(np.arange(200), VALUES[:200])
    writer.close()
    with h5py.File(hdf5.part_of(other), "r+") as file:
        values = file["embedding"][()].view(np.int32)
        del file["embedding"]
        file["embedding"] = values
    blank.create()
    assert len(TargetWriter(other).pending) == COUNT
