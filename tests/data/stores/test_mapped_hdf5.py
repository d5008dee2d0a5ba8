"""Maps of datasets: only numbers and names that lie in the file itself, whatever else is in it."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.stores import hdf5

Make = Callable[[h5py.File, Path], object]


HOSTILE: dict[str, Make] = {
    "pointers to strings": lambda file, _: file.create_dataset("x", data=["a", "b"]),
    "arrays of any length": lambda file, _: file.create_dataset("x", (2,), h5py.vlen_dtype("f4")),
    "references": lambda file, _: file.create_dataset("x", (2,), h5py.ref_dtype),
    "structures": lambda file, _: file.create_dataset("x", (2,), "f4,i4"),
    "complex numbers": lambda file, _: file.create_dataset("x", (2,), "c8"),
    "opaque bytes": lambda file, _: file.create_dataset("x", data=np.array([b"ab"], "V2")),
    "chunks": lambda file, _: file.create_dataset("x", (4, 2), "f4", chunks=(1, 2)),
    "a null": lambda file, _: file.create_dataset("x", data=h5py.Empty("f4")),
    "a group": lambda file, _: file.create_group("x"),
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
