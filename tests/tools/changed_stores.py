"""Changes of finished stores."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from brainhive_cli.data.files import hdf5


@contextmanager
def resealed(path: Path) -> Iterator[h5py.File]:
    """Context manager that opens a store for changes, and renews its checksums."""
    hdf5.unseal(path)
    with h5py.File(path, "r+") as file:
        yield file
        names: list[str] = []
        file[hdf5.CHECKSUMS].visititems(
            lambda name, item: names.extend([name] * hasattr(item, "shape"))
        )
        for name in names:
            sums = f"{hdf5.CHECKSUMS}/{name}"
            del file[sums]
            file[sums] = hdf5.row_checksums(file[name][()])
    hdf5.seal(path)
