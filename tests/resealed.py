"""Finished stores that a test changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from brainhive_cli.data.stores import checksums


@contextmanager
def resealed(path: Path) -> Iterator[h5py.File]:
    """Open a store for changes; it is then as if it had been made with them."""
    checksums.unseal(path)
    with h5py.File(path, "r+") as file:
        yield file
        names: list[str] = []
        file[checksums.GROUP].visititems(lambda name, found: names.extend([name] * hasattr(found, "shape")))
        for name in names:
            sums = f"{checksums.GROUP}/{name}"
            del file[sums]
            file[sums] = checksums.of_rows(file[name][()])
    checksums.seal(path)
