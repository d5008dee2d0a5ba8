"""Layouts, batches and stored copies of vectors in files of other projects."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.data.exchange import vectors
from brainhive_cli.data.exchange.vectors import (
    Vectors,
    copy_vectors,
    digest_pictures,
    open_vectors,
    read_checked_batches,
    write_parquet,
)
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media import BadPicture, StimulusSet, describe_pixels
from brainhive_cli.data.stores import (
    PIXEL_HASH_WORDS,
    StorePlan,
    TargetStore,
    TargetWriter,
)

IDS = [f"set/p{number}" for number in range(7)]
CONCEPTS = [f"c{number % 3}" for number in range(7)]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(vectors, "VECTORS_PER_BATCH", 3)


def write_store(path, values, dtype="float32"):
    path.parent.mkdir(parents=True, exist_ok=True)
    StorePlan(path, IDS, CONCEPTS, values.shape[1:], dtype, {}).create()
    writer = TargetWriter(path)
    writer.write(np.arange(7), values)
    writer.close()
    writer.finish()
    return TargetStore.open(path)


@pytest.mark.parametrize("shape", [(1,), (5,), (4, 1), (1, 3), (2, 3, 2)])
def test_a_parquet_file_gives_back_ids_and_vectors(tmp_path, shape):
    values = (
        np.random.default_rng(0).normal(size=(7,) + tuple(shape)).astype(np.float32)
    )
    rows = np.array([6, 0, 2, 3, 1])
    file = tmp_path / "set_train_vae-part-00000-of-00000.parquet"

    write_parquet(write_store(tmp_path / "set/train/vae.h5", values), file, rows)
    source = open_vectors([file], ["vae"])

    assert source.layout == "parquet"
    assert source.has_encoder_name
    assert source.names == [IDS[row] for row in rows]
    batches = list(source.read_batches())
    assert [len(batch) for batch in batches] == [3, 2]
    assert np.array_equal(np.concatenate(batches), values[rows])
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(file)
    assert table["image_id"].to_pylist() == [f"p{row}" for row in rows]
    assert table["concept"].to_pylist() == [CONCEPTS[row] for row in rows]


def test_files_of_the_named_encoder_are_chosen(tmp_path):
    store = write_store(tmp_path / "set/train/vae.h5", np.ones((7, 2), np.float32))
    for encoder, row in (("vae", 1), ("clip", 2)):
        file = tmp_path / f"files/set_train_{encoder}-part-00000-of-00001.parquet"
        file.parent.mkdir(exist_ok=True)
        write_parquet(store, file, np.array([row]))
    assert open_vectors([tmp_path / "files"], ["x", "clip"]).names == [IDS[2]]
    with pytest.raises(MissingData):
        open_vectors([tmp_path / "files"], ["x"])
    # files whose names say nothing are all read
    for file in list((tmp_path / "files").iterdir()):
        file.rename(file.with_name(file.name.replace("-part-", "-")))
    unnamed = open_vectors([tmp_path / "files"], ["x"])
    assert sorted(unnamed.names) == IDS[1:3]
    assert not unnamed.has_encoder_name


def test_dictionaries_of_vectors_are_joined(tmp_path):
    torch.save(
        {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0, 4.0]])[0]},
        tmp_path / "1.pt",
    )
    torch.save({"c": torch.tensor([[5.0, 6.0]])}, tmp_path / "2.pt")
    source = open_vectors([tmp_path / "1.pt", tmp_path / "2.pt"], [])
    assert list(source.names) == ["a", "b", "c"]
    assert source.layout == "dictionary"
    assert np.concatenate(list(source.read_batches())).tolist() == [
        [1, 2],
        [3, 4],
        [5, 6],
    ]


def test_a_list_of_names_goes_with_the_array_of_its_length(tmp_path):
    ids = np.array(["a", "b"], "S3")
    values = np.arange(6.0).reshape(2, 3)
    np.savez(tmp_path / "1.npz", ids=ids, values=values, mean=np.ones((3, 3)))
    source = open_vectors([tmp_path / "1.npz"], [])
    assert list(source.names) == ["a", "b"]
    assert np.array_equal(np.concatenate(list(source.read_batches())), values)
    np.savez(tmp_path / "2.npz", ids=ids, values=values, more=values)
    with pytest.raises(BrainhiveError):
        open_vectors([tmp_path / "2.npz"], [])


def test_an_array_without_names_has_those_of_known_rows(tmp_path):
    values = np.arange(8.0).reshape(4, 2)
    np.save(tmp_path / "1.npy", values)
    source = open_vectors([tmp_path / "1.npy"], [], row_names=list("abcd"))
    assert source.layout == vectors.ORDERED_LAYOUT
    assert list(source.names) == list("abcd")
    assert [batch.tolist() for batch in source.read_batches()] == [
        values[:3].tolist(),
        values[3:].tolist(),
    ]
    for names in (None, list("abc")):
        with pytest.raises(BrainhiveError):
            open_vectors([tmp_path / "1.npy"], [], row_names=names)


def test_a_folder_has_a_vector_for_each_picture(tmp_path):
    for name in ("cat/1_vae", "cat/1_clip", "dog/2_vae"):
        path = tmp_path / f"{name}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.full((1, 2), len(name)))
    source = open_vectors([tmp_path], [], "_vae")
    assert list(source.names) == ["cat/1", "dog/2"]
    assert [batch.tolist() for batch in source.read_batches()] == [[[9, 9], [9, 9]]]
    assert len(open_vectors([tmp_path], []).names) == 3
    with pytest.raises(MissingData):
        open_vectors([tmp_path], [], "_dino")
    with pytest.raises(RecipeError):
        np.save(tmp_path / "array.npy", np.ones((2, 2)))
        open_vectors([tmp_path / "array.npy"], [], "_vae", list("ab"))


def test_parts_of_features_are_read_in_order(tmp_path):
    (tmp_path / "file_names.txt").write_text("a\nb\nc\nd\n")
    np.save(tmp_path / "features_02.npy", np.array([[3.0], [4.0]]))
    np.save(tmp_path / "features_01.npy", np.array([[1.0], [2.0]]))
    source = open_vectors([tmp_path], [])
    assert source.layout == "thingsvision"
    assert list(source.names) == list("abcd")
    assert np.concatenate(list(source.read_batches())).ravel().tolist() == [1, 2, 3, 4]
    np.savez(tmp_path / "features_03.npz", np.ones(1))
    with pytest.raises(BrainhiveError):
        open_vectors([tmp_path], [])


def write_parts(folder, names, rows):
    """Write `file_names.txt`, and parts whose rows are their numbers."""
    (folder / "file_names.txt").write_text("\r\n".join(map(str, range(12))))
    files = []
    for name, numbers in zip(names, rows, strict=True):
        with (folder / name).open("wb") as file:  # np.save appends .npy to .NPY
            np.save(file, np.array(numbers, float)[:, None])
        files.append(folder / name)
    return files


@pytest.mark.parametrize(
    "names",
    [
        ("features_0-2.npy", "features_2-10.npy", "features_10-12.npy"),
        ("features_vit_b_16_0-1.npy", "features_vit_b_16_2-9.npy"),
        ("features_1_part_9.npy", "features_1_part_10.npy"),
        ("features_3_9.NPY", "features_3_10.NPY"),
    ],
)
@pytest.mark.parametrize("names_files", [False, True])
def test_parts_are_joined_in_the_order_of_their_numbers(tmp_path, names, names_files):
    numbers = [range(2), range(2, 10), range(10, 12)]
    if len(names) == 2:
        numbers = [range(2), range(2, 12)]
    files = write_parts(tmp_path, list(names), numbers)
    source = open_vectors(sorted(files) if names_files else [tmp_path], [])
    batches = list(source.read_batches())
    assert list(source.names) == list(map(str, range(12)))
    assert np.concatenate(batches).ravel().tolist() == list(range(12))


@pytest.mark.parametrize(
    "names",
    [
        ("features_0-4.npy", "features_8-16.npy"),
        ("features_0-8.npy", "features_4-12.npy"),
        ("features_4-8.npy", "features_8-12.npy"),
    ],
)
def test_parts_with_gaps_or_overlaps_are_refused(tmp_path, names):
    write_parts(tmp_path, list(names), [range(6), range(6, 12)])
    with pytest.raises(BrainhiveError):
        open_vectors([tmp_path], [])


@pytest.mark.parametrize(
    ("names", "is_refused"),
    [
        (["set/1", "set/10", "set/2"], True),
        (["set/B", "set/a"], True),
        (["set/01", "set/02", "set/10"], False),
        (["bow/1", "bow-tie/1", "bow1/1"], False),
    ],
)
def test_rows_without_names_need_a_single_order(tmp_path, names, is_refused):
    file = tmp_path / "array.npy"
    np.save(file, np.ones((len(names), 2)))
    if is_refused:
        with pytest.raises(BrainhiveError, match="two ways"):
            open_vectors([file], [], row_names=names)
        (tmp_path / "file_names.txt").write_text("\n".join(names))
    assert list(open_vectors([file], [], row_names=names).names) == names


@pytest.mark.parametrize(
    ("second", "is_refused"),
    [
        (np.ones((1, 2), np.int8), False),
        (np.ones((1, 2), np.uint8), False),
        (np.ones((1, 3)), True),
        (np.ones((1, 2, 1)), True),
        (np.ones((1, 2), bool), True),
        (np.array([["a", "b"]]), True),
    ],
)
def test_batches_are_numbers_of_one_shape(second, is_refused):
    source = Vectors("x", [Path("x")], [], lambda: iter([np.ones((3, 2)), second]))
    if is_refused:
        with pytest.raises(BrainhiveError):
            list(read_checked_batches(source))
    else:
        assert [len(batch) for batch in read_checked_batches(source)] == [3, 1]
    for empty in (np.ones((2, 0)), np.ones(2)):
        lone = Vectors("x", [Path("x")], [], lambda empty=empty: iter([empty]))
        with pytest.raises(BrainhiveError):
            list(read_checked_batches(lone))


def pictures(split="train", **facts):
    def open_picture(row):
        if row == 5:
            raise BadPicture("picture 5")
        levels = np.random.default_rng(row).integers(0, 256, (9, 9, 3), np.uint8)
        return Image.fromarray(levels)

    facts = {"open": open_picture, **facts}
    return StimulusSet("set", split, Names.of(IDS), Names.of(CONCEPTS), **facts)


def make_empty_digests():
    return np.zeros((len(IDS), PIXEL_HASH_WORDS), np.uint64)


def test_pictures_of_the_rows_are_identified_if_all_are_here():
    images = pictures()
    digests = digest_pictures(images, np.array([2, -1, 0, 2]), make_empty_digests())
    assert digests is not None
    assert digests.any(1).tolist() == [
        True,
        False,
        True,
        False,
        False,
        False,
        False,
    ]
    assert np.array_equal(digests[2], describe_pixels(images.open(2)))
    assert digest_pictures(images, np.array([2, 5]), make_empty_digests()) is None
    for facts in (
        {"has_pictures": False},
        {"missing_error": MissingData("none", "fetch")},
    ):
        assert (
            digest_pictures(pictures(**facts), np.array([2]), make_empty_digests())
            is None
        )


def test_pictures_are_read_once_for_several_encoders(tmp_path):
    opened_rows = []

    def open_picture(row):
        opened_rows.append(row)
        return pictures().open(row)

    images = pictures(open=open_picture)
    identified = dict[str, np.ndarray]()
    source = Vectors(
        "x", [Path("x.npy")], ["a", "b", "c"], lambda: iter([np.ones((3, 2))])
    )
    for number, rows in enumerate(([0, 2, -1], [2, 0, 3], [3, -1, -1])):
        path = tmp_path / f"set/train/{number}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        share = images, path, np.array(rows)
        copy_vectors([share], source, {}, "float32", False, identified)

        # as if no other vectors were copied
        expected = digest_pictures(pictures(), np.array(rows), make_empty_digests())
        assert np.array_equal(TargetStore.open(path).pixels, expected)
    assert sorted(opened_rows) == [0, 2, 3]


VALUES = np.arange(16.0).reshape(8, 2)
ROWS = {
    "train": np.array([1, -1, 0, 6, -1, -1, 2, -1]),
    "test": np.array([-1, 3, -1, -1, -1, 4, -1, 0]),
}


def copy_values(tmp_path, values, skip_missing=False):
    names = [f"v{number}" for number in range(8)]
    source = Vectors(
        "x",
        [Path("x.npy")],
        names,
        lambda: iter(np.split(values, range(3, len(values), 3))),
    )
    shares = [
        (pictures(split), tmp_path / f"set/{split}/own.h5", rows)
        for split, rows in ROWS.items()
    ]
    for _, path, _ in shares:
        path.parent.mkdir(parents=True, exist_ok=True)
    copy_vectors(shares, source, {"imported": ["x.npy"]}, "float32", skip_missing, {})
    return [TargetStore.open(path) for _, path, _ in shares]


def test_vectors_go_to_the_rows_of_their_stores(tmp_path):
    train, test = copy_values(tmp_path, VALUES)
    for store, rows in ((train, ROWS["train"]), (test, ROWS["test"])):
        vector_rows = np.flatnonzero(rows >= 0)
        assert np.array_equal(store.embedding[rows[vector_rows]], VALUES[vector_rows])
        assert np.flatnonzero(store.done).tolist() == sorted(rows[vector_rows])
        assert store.pixels is not None
        assert store.pixels.any(1).tolist() == store.done.tolist()
    assert (test.attributes["dataset"], test.attributes["split"]) == ("set", "test")
    assert train.attributes["imported"] == ["x.npy"]


def test_vectors_that_are_not_finite_are_refused_or_left_out(tmp_path):
    values = VALUES.copy()
    # no store has row 4, but a store has row 3
    values[4, 0] = np.nan
    copy_values(tmp_path / "unwanted", values)
    values[3, 1] = np.inf
    with pytest.raises(BrainhiveError):
        copy_values(tmp_path / "refused", values)
    assert not list((tmp_path / "refused").rglob("*.h5*"))
    train, _ = copy_values(tmp_path / "skipped", values, skip_missing=True)
    assert np.flatnonzero(train.done).tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [7, 9])
def test_vectors_that_are_not_as_many_as_names_are_refused(tmp_path, count):
    with pytest.raises(BrainhiveError):
        copy_values(tmp_path, np.ones((count, 2)))
    assert not list(tmp_path.rglob("*.h5*"))


def test_files_of_overlapping_sources_are_read_once(tmp_path):
    store = write_store(tmp_path / "set/train/vae.h5", np.ones((7, 2), np.float32))
    file = tmp_path / "files/set_train_vae-part-00000-of-00001.parquet"
    file.parent.mkdir()
    write_parquet(store, file, np.array([1]))
    assert open_vectors([file.parent, file], ["vae"]).names == [IDS[1]]

    path = tmp_path / "single/cat/1_vae.npy"
    path.parent.mkdir(parents=True)
    np.save(path, np.ones((1, 2)))
    folders = [path.parents[1], path.parent]
    assert len(list(open_vectors(folders, [], "_vae").names)) == 1
