"""HDF5 stores at the level of bytes: rows in any order, maps, failed writes, claims and image ids."""

import errno
import subprocess
import sys
from contextlib import closing
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


@pytest.mark.parametrize("size", range(4096, 60_000, 8192))
@pytest.mark.parametrize(
    "line",
    [
        "hdf5.create(Path('new.h5'), spaces, {'ids': np.arange(3000)}, {'about': 'a' * 5000})",
        "hdf5.seal(Path('open.h5'), {'more': 'b' * 40_000})",
    ],
)
def test_a_limit_on_the_size_of_files_is_an_os_error_before_anything_is_written(
    tmp_path: Path, line: str, size: int
) -> None:
    hdf5.create(tmp_path / "open.h5", {"embedding": ((20, 10), "float32")}, {}, {})
    content = (tmp_path / "open.h5").read_bytes()
    program = f"""if True:
        import numpy as np, resource, sys
        from pathlib import Path
        from brainhive_cli.data.stores import hdf5
        spaces = {{"embedding": ((20, 10), "float32")}}
        resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
        try:
            {line}
        except OSError as error:
            sys.exit(error.errno)
    """
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (errno.EFBIG, b"")
    assert [file.name for file in tmp_path.iterdir()] == ["open.h5"]
    assert (tmp_path / "open.h5").read_bytes() == content


def test_a_limit_is_noticed_where_the_system_allocates_no_files(tmp_path: Path) -> None:
    """As macOS; and with many datasets, whose headers take more than the rows."""
    program = """if True:
        import os, resource
        from pathlib import Path
        del os.posix_fallocate
        from brainhive_cli.data.stores import hdf5
        maps = {f"map-{number}": [number] for number in range(400)}
        hdf5.create(Path("new.h5"), {}, maps, {})
        size = os.path.getsize("new.h5") - 100
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        hdf5.create(Path("newer.h5"), {}, maps, {})
    """
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.stderr.splitlines()[-1].startswith("OSError: [Errno 27] File too large: ")
    assert ended.stderr.count("Traceback") == 1 + ended.stderr.count("The above exception was")
    with h5py.File(tmp_path / "new.h5") as file:
        assert file["map-399"][0] == 399 and not (tmp_path / "newer.h5").exists()


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


def test_a_chunk_far_larger_than_its_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with h5py.File(path := tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (9,), "f8", maxshape=(None,), chunks=(2**28,), compression="gzip")
    with h5py.File(path) as file, pytest.raises(ValueError, match="would take"):
        hdf5.open_numbers(file, "x")


def test_a_store_is_read_from_the_disk_of_a_node_where_a_job_asks_for_it(tmp_path, monkeypatch, capsys):
    store = tmp_path / "network/store.h5"

    def write(value: float) -> None:
        hdf5.create(store, {"rows": ((4, 2), "float32")}, {}, {"format": 1})
        with closing(hdf5.RowWriter(store, "rows")) as writer:
            writer.write(np.arange(4), np.full((4, 2), value, np.float32))
        hdf5.seal(store)

    def read() -> tuple[Path, float]:
        with hdf5.open_file(store, "make it") as file:
            return Path(file.filename), float(hdf5.open_rows(file, "rows", lambda: "")[:].max())

    write(1.0)
    assert read() == (store, 1.0)
    monkeypatch.setenv("BRAINHIVE_STAGE", str(tmp_path / "node"))
    first, value = read()
    assert value == 1.0 and first.is_relative_to(tmp_path / "node")
    assert first.parent.stat().st_mode & 0o77 == 0
    changed_ns = first.stat().st_mtime_ns
    assert read() == (first, 1.0) and first.stat().st_mtime_ns == changed_ns

    write(2.0)
    second, value = read()
    assert value == 2.0 and second != first
    (tmp_path / "file").touch()
    monkeypatch.setenv("BRAINHIVE_STAGE", str(tmp_path / "file"))
    assert read() == (store, 2.0) and "is read where it lies" in capsys.readouterr().err


def test_raw_data_are_read_where_they_lie(tmp_path, monkeypatch):
    raw = tmp_path / "betas.hdf5"
    with h5py.File(raw, "w") as file:
        file["betas"] = np.zeros(3)
    monkeypatch.setenv("BRAINHIVE_STAGE", str(tmp_path / "node"))
    with hdf5.open_file(raw, "download it") as file:
        assert Path(file.filename) == raw and not (tmp_path / "node").exists()


def test_image_ids_are_compared_composed():
    known = ["train/cafe\u0301/cafe\u0301_1", "train/cafe\u0301/cafe\u0301_2"]
    assert ids.match_ids(["train/caf\u00e9/caf\u00e9_2.png", "caf\u00e9_1"], known, "x").tolist() == [1, 0]
