"""HDF5 stores at the level of bytes: rows in any order, maps, failed writes, claims and image ids."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.data.stores import hdf5, ids


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "deep/er/store.h5"
    spaces = {"embedding": ((6, 2, 3), "float32"), "below/signal": ((4, 5), "float16")}
    attributes: dict[str, Any] = {
        "format": 1,
        "name": "é",
        "health": {"mean": 0.5},
        "list": [1, 2],
        "is_new": True,
    }
    hdf5.create(path, spaces, {"below/ids": np.array([b"a", b"bc"])}, attributes)
    hdf5.seal(path)
    return path


def read(path: Path, made_by: str = "") -> dict[str, Any]:
    with hdf5.open_file(path, made_by) as file:
        return hdf5.get_attributes(file)


def test_rows_come_in_any_order_and_number(path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    writer = hdf5.RowWriter(path, "embedding")
    for rows in ([5], [1, 0], [], [2, 3, 4]):
        writer.write(rows, values[rows])
    writer.close()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["embedding"][()], values)


def test_a_map_is_what_h5py_reads_and_cannot_be_written(path: Path) -> None:
    writer = hdf5.RowWriter(path, "below/signal")
    writer.write(range(4), np.arange(20).reshape(4, 5))
    writer.close()
    with h5py.File(path) as file:
        mapped, read = hdf5.map_numbers(file, "below/signal"), file["below/signal"][()]
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, read)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 1


def test_attributes_come_back_as_they_went_in(path: Path) -> None:
    assert read(path) == {"format": 1, "name": "é", "health": {"mean": 0.5}, "list": [1, 2], "is_new": True}


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_cut_short_is_one_clear_error(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BrainhiveError, match=r"store\.h5 is damaged or cut short: ") as caught:
        read(path, "brainhive embed")
    assert caught.value.hint == "delete it, then: brainhive embed"
    assert "\n" not in caught.value.message


def test_a_file_of_something_else_is_the_same_error(path: Path) -> None:
    path.write_text("not HDF5 at all" * 100)
    with pytest.raises(BrainhiveError, match="is damaged or cut short"):
        read(path)


def test_a_missing_file_is_told_from_an_unfinished_one(path: Path) -> None:
    with pytest.raises(MissingData, match="does not exist"):
        read(path.with_name("other.h5"))
    path.rename(hdf5.part_of(path))
    with pytest.raises(MissingData, match="is not finished"):
        read(path)


def test_a_failed_write_is_an_os_error_and_the_file_still_opens(tmp_path: Path) -> None:
    path = tmp_path / "big.h5"
    hdf5.create(path, {"embedding": ((64, 1024), "float32")}, {}, {})
    program = f"""if True:
        import numpy as np, resource, sys
        from pathlib import Path
        from brainhive_cli.data.stores import hdf5, ids
        writer = hdf5.RowWriter(Path({str(path)!r}), "embedding")
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, 2**17))  # the disk is full after about half
        try:
            writer.write(range(64), np.ones((64, 1024), np.float32))
        except OSError:
            sys.exit(28)
    """
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 28
    hdf5.RowWriter(path, "embedding").write([63], np.full((1, 1024), 7))
    with h5py.File(path) as file:
        assert file["embedding"][0].sum() == 1024 and file["embedding"][63].sum() == 7 * 1024


def test_a_limit_on_the_size_of_files_is_an_os_error_that_leaves_no_store(tmp_path: Path) -> None:
    program = """if True:
        import resource, sys
        from pathlib import Path
        from brainhive_cli.data.stores import hdf5
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
        try:
            hdf5.create(Path("new.h5"), {"embedding": ((2**16, 10), "float32")}, {}, {})
        except OSError as error:
            sys.exit(error.errno or 1)
    """
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=False)
    assert ended.returncode != 0 and not list(tmp_path.iterdir())


IDS = ["train/cat/one", "train/dog/two", "test/dog/two", "loose", "train/dog/two.copy"]


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        (IDS, [0, 1, 2, 3, 4]),
        (["one", "loose"], [0, 3]),
        (["elsewhere/loose"], [3]),
        (["train/cat/one.jpg", "two.copy", r"test\dog\two.PNG", "loose.tif"], [0, 4, 2, 3]),
        (["loose", "loose"], [3, 3]),
        ([], []),
    ],
)
def test_ids_match_in_full_or_by_stem(wanted: list[str], rows: list[int]) -> None:
    assert ids.match_ids(wanted, IDS, "store").tolist() == rows


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        ("two", "'two' could be any of train/dog/two, test/dog/two"),
        ("three", "store has no picture 'three', of 5: train/cat/one, train/dog/two, test/dog/two …"),
        ("train/bird/one", "store has no picture 'train/bird/one'"),
    ],
)
def test_an_ambiguous_or_unknown_id_is_refused(wanted: str, what: str) -> None:
    with pytest.raises(MissingData, match=what):
        ids.match_ids(["loose", wanted], IDS, "store")


def test_the_way_out_of_an_unknown_id_says_what_ids_are() -> None:
    with pytest.raises(MissingData) as error:
        ids.match_ids(["three"], IDS, "store")
    assert error.value.hint.startswith("name pictures by their paths below the image root, or their stems")


def test_none_and_the_text_null_come_back_as_they_went_in(tmp_path: Path) -> None:
    hdf5.create(tmp_path / "x.h5", {}, {}, written := {"none": None, "text": "null"})
    with h5py.File(tmp_path / "x.h5") as file:
        assert hdf5.get_attributes(file) == written


def test_image_ids_are_compared_composed():
    known = ["train/cafe\u0301/cafe\u0301_1", "train/cafe\u0301/cafe\u0301_2"]
    assert ids.match_ids(["train/caf\u00e9/caf\u00e9_2.png", "caf\u00e9_1"], known, "x").tolist() == [1, 0]
