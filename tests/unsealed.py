"""Finished stores that a test changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from brainhive_cli.stores.checksums import GROUP, unseal


@contextmanager
def unsealed(path: Path) -> Iterator[h5py.File]:
    """Open a store for changes; it is then like one of an older version, which has no checksums."""
    unseal(path)
    with h5py.File(path, "r+") as file:
        if GROUP in file:
            del file[GROUP]
        yield file
