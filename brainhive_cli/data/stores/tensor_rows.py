"""Files of tensors: where they lie, and rows of those that are larger than memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from brainhive_cli.core.damage import reading
from brainhive_cli.data.stores import pickles

FOLDERS = ("", "*/", "*/*/")
"""Where files may lie below the folder of a data set."""


def find_below(root: Path, name: str) -> Path | None:
    """Find a file or folder at most two folders below `root`; None where there is none."""
    return next((path for folder in FOLDERS for path in sorted(root.glob(f"{folder}{name}"))), None)


@dataclass(frozen=True)
class TensorRows:
    """The rows of a file of torch with one tensor [N, …] or array; it is open no longer than one is read."""

    path: Path

    def shape(self, axes: str, source: str) -> tuple[int, ...]:
        """Check what the file holds; no row is read.

        Args:
            axes: What its axes must be, as `N, F, H, W`, for the number and for the error.
            source: How to get the file.

        Raises:
            BrainhiveError: if it is damaged, or holds something else.
        """
        with reading(self.path, source):
            found = pickles.load(self.path, verify=False)
            shape, dtype = tuple(getattr(found, "shape", ())), getattr(found, "dtype", type(found).__name__)
            if len(shape) != axes.count(",") + 1 or pickles.array(found[:0]).dtype.kind not in "fiub":
                raise ValueError(f"it holds {dtype} {list(shape)}, not numbers [{axes}]")
        return shape

    def __getitem__(self, index: int) -> NDArray[Any]:
        """Read one row; one of `damage.RAISED`, or a BrainhiveError, when it cannot be."""
        return pickles.array(pickles.load(self.path, verify=False)[index])
