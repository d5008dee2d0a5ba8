"""Maps of datasets: only numbers and names that lie in the file itself, whatever else is in it."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.stores import hdf5

Make = Callable[[h5py.File, Path], object]


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource(folder / "other.h5", "x", (2,))
    file.create_virtual_dataset("x", layout)


def external(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(bytes(8))
    file.create_dataset("x", (2,), "f4", external=[(folder / "secret", 0, 8)])


def beyond(file: h5py.File, folder: Path) -> None:
    """Allocate 64 MB, which the test cuts off."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((2**44,)), layout)


HOSTILE: dict[str, Make] = {
    "pointers to strings": lambda file, _: file.create_dataset("x", data=["a", "b"]),
    "arrays of any length": lambda file, _: file.create_dataset("x", (2,), h5py.vlen_dtype("f4")),
    "references": lambda file, _: file.create_dataset("x", (2,), h5py.ref_dtype),
    "structures": lambda file, _: file.create_dataset("x", (2,), "f4,i4"),
    "complex numbers": lambda file, _: file.create_dataset("x", (2,), "c8"),
    "long doubles": lambda file, _: file.create_dataset("x", (2,), np.longdouble),
    "numbers of another order of bytes": lambda file, _: file.create_dataset("x", (2,), ">f4"),
    "opaque bytes": lambda file, _: file.create_dataset("x", data=np.array([b"ab"], "V2")),
    "chunks": lambda file, _: file.create_dataset("x", (2**40, 2), "f4", chunks=(1, 2)),
    "a virtual dataset": virtual,
    "external storage": external,
    "no room": beyond,
    "a null": lambda file, _: file.create_dataset("x", data=h5py.Empty("f4")),
    "a group": lambda file, _: file.create_group("x"),
    "a soft link": lambda file, _: file.__setitem__("x", h5py.SoftLink("/sound")),
    "an external link": lambda file, folder: file.__setitem__(
        "x", h5py.ExternalLink(folder / "other.h5", "sound")
    ),
    "nothing": lambda file, _: None,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_whatever_is_no_plain_array_of_the_file_is_refused(tmp_path: Path, what: str) -> None:
    for name in ("other.h5", "store.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["sound"] = np.ones(2, np.float32)
            if name == "store.h5":
                HOSTILE[what](file, tmp_path)
    with (
        pytest.raises(BrainhiveError, match=r"store\.h5 is damaged or cut short: ") as caught,
        hdf5.open_file(tmp_path / "store.h5", "brainhive embed") as file,
    ):
        hdf5.map_numbers(file, "x")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("packed", "is_sound"),
    [
        (np.array(["é".encode(), b"ab"]), True),
        (np.array([b"\xff", b"ab"]), False),
        (np.array([b"a\xc3", b"\xa9b"]), False),  # one character in two names
        (np.array([[b"a"]]), False),
        (np.array([1, 2]), False),
        (np.array([], "S1"), True),
    ],
)
def test_names_are_a_list_in_utf_8(tmp_path: Path, packed: np.ndarray, is_sound: bool) -> None:
    with h5py.File(tmp_path / "store.h5", "w") as file:
        file["names"] = packed
        file.flush()
        if is_sound:
            assert np.array_equal(hdf5.read_strings(file, "names"), packed)
        else:
            with pytest.raises(ValueError, match=r"names|utf-8"):
                hdf5.read_strings(file, "names")


@pytest.mark.parametrize(
    ("values", "is_sound"),
    [
        (np.array([0, 1], np.uint8), True),
        (np.array([True, False]), True),
        (np.array([0, 2], np.uint8), False),
        (np.array([0, 1], np.uint16), False),
        (np.array([0.0, 1.0]), False),
    ],
)
def test_flags_are_0_or_1(tmp_path: Path, values: np.ndarray, is_sound: bool) -> None:
    with h5py.File(tmp_path / "store.h5", "w") as file:
        file["done"] = values
        file.flush()
        if is_sound:
            assert np.array_equal(hdf5.read_flags(file, "done"), values.astype(bool))
        else:
            with pytest.raises(ValueError, match="done"):
                hdf5.read_flags(file, "done")
