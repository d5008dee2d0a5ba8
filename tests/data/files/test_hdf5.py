"""HDF5 stores are opened without locks, and damage or foreign content is refused."""

import fcntl
import os

import h5py
import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, MissingExtra
from brainhive_cli.data.files import hdf5


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "deep/er/store.h5"
    spaces = {"embedding": ((6, 2, 3), "float32"), "below/signal": ((4, 5), "float16")}
    attributes = {
        "format": 1,
        "name": "é",
        "health": {"mean": 0.5},
        "list": [1, 2],
        "is_new": True,
    }
    hdf5.create(path, spaces, {"below/ids": np.array([b"a", b"bc"])}, attributes)
    hdf5.seal(path)
    return path


def read_attributes(path, made_by=""):
    with hdf5.open_file(path, made_by) as file:
        return hdf5.get_attributes(file)


def test_a_missing_file_is_told_from_an_unfinished_one(path):
    with pytest.raises(MissingData, match=r"other\.h5 does not"):
        read_attributes(path.with_name("other.h5"))
    path.rename(hdf5.get_part_path(path))
    with pytest.raises(MissingData, match=r"store\.h5 .*finished"):
        read_attributes(path)


def test_a_store_is_written_and_read_without_locks(path):
    """Another program holds all locks, as on network disks without locks."""
    with path.open() as store_file, hdf5.get_part_path(path).open("w") as part_file:
        for file in (store_file, part_file):
            fcntl.flock(file, fcntl.LOCK_EX)
        assert read_attributes(path)["name"] == "é"
        hdf5.seal(path, {"more": 1})
    assert read_attributes(path)["more"] == 1


def test_a_file_cut_short_or_of_another_format_is_refused(path):
    for content in (
        path.read_bytes()[: path.stat().st_size // 2],
        b"not HDF5 at all" * 100,
    ):
        path.write_bytes(content)
        with pytest.raises(BrainhiveError, match=r"store\.h5") as caught:
            read_attributes(path, "brainhive embed")
        assert "brainhive embed" in caught.value.hint
        assert "\n" not in caught.value.message


def test_hdf5_that_names_other_files_is_refused(tmp_path):
    """Links, raw storage and virtual datasets refer to other files or pipes."""
    (tmp_path / "secret").write_bytes(b"secretsecret" * 100)
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(tmp_path / "other.h5", "w") as other_file:
        other_file["x"] = np.ones(100, "f4")

    def write(form):
        with h5py.File(tmp_path / f"{form}.h5", "w") as file:
            group = file.create_group("betas")
            if form in ("secret", "pipe"):
                raw = [(str(tmp_path / form), 0, 400)]
                group.create_dataset("b", (100,), "f4", external=raw)
            elif form == "virtual":
                layout = h5py.VirtualLayout((100,), "f4")
                layout[...] = h5py.VirtualSource(tmp_path / "other.h5", "x", (100,))
                group.create_virtual_dataset("b", layout)
            elif form == "own":
                group["a"] = np.ones(100, "f4")
                group["b"] = h5py.SoftLink("/betas/a")
            else:
                target = tmp_path / ("pipe" if form == "link to a pipe" else "other.h5")
                group["b"] = h5py.ExternalLink(str(target), "x")
        return tmp_path / f"{form}.h5"

    for form in ("secret", "pipe", "virtual", "link", "link to a pipe"):
        path = write(form)
        with (
            pytest.raises(BrainhiveError, match=r"betas/b.*other file|link to another"),
            hdf5.open_file(path, "") as file,
        ):
            hdf5.open_numbers(file, "betas/b", "f")
        with hdf5.open_unlocked(path) as file, pytest.raises(ValueError, match="other"):
            hdf5.refuse_other_files(file, has_datasets=True)
    with hdf5.open_file(write("own"), "") as file:
        assert len(hdf5.open_numbers(file, "betas/b", "f")) == 100


def test_rows_without_a_checksum_are_not_read(path):
    """A foreign file had fewer checksums than rows."""
    with hdf5.open_unlocked(path, "r+") as file:
        del file[f"{hdf5.CHECKSUMS}/embedding"]
        file[f"{hdf5.CHECKSUMS}/embedding"] = np.ones(2, np.uint64)
    with hdf5.open_unlocked(path) as file:
        rows = hdf5.open_rows(file, "embedding", "")
        with pytest.raises(IndexError):
            rows[0:6]


def test_a_filter_that_is_not_installed_is_named(tmp_path):
    with h5py.File(tmp_path / "packed.h5", "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((4,))
        settings.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (2, 2, 4, 16, 5, 1, 0))
        space = h5py.h5s.create_simple((4,))
        h5py.h5d.create(file.id, b"betas", h5py.h5t.NATIVE_FLOAT, space, settings)
    with (
        pytest.raises(MissingExtra, match="blosc"),
        hdf5.open_file(tmp_path / "packed.h5", "save it again") as file,
    ):
        hdf5.open_numbers(file, "betas")
