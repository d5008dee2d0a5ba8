"""Data sets as they are published: what is known before any file is here, and files of tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from brainhive_cli.core.damage import reading
from brainhive_cli.data.datasets import Published
from brainhive_cli.data.stores import pickles

PUBLISHED = {
    "things-eeg": Published({"train": 16_540, "test": 200}),
    "things-meg": Published({"train": 19_848, "test": 200}),
    "imagenet": Published({"train": 1_281_167, "validation": 50_000, "test": 100_000}),
    # Allen et al. 2022; voxels of nsdgeneral in func1pt8mm
    "nsd": Published(
        {"train": 72_000, "test": 1_000},
        {1: 15724, 2: 14278, 3: 15226, 4: 13153, 5: 13039, 6: 17907, 7: 12682, 8: 14386},
        captions=5,
    ),
    # gongzx/cc2017_dataset: tensors [N, 2, V] and [N, 10, V] of responses, [N, 6, 3, 224, 224] of frames
    "cc2017": Published({"train": 4_320, "test": 1_200}, {1: 13447, 2: 14828, 3: 9114}, frames=6, captions=1),
}
"""By the name of the data set."""

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
            tensor = pickles.load(self.path, verify=False)
            shape, dtype = (
                tuple(getattr(tensor, "shape", ())),
                getattr(tensor, "dtype", type(tensor).__name__),
            )
            if len(shape) != axes.count(",") + 1 or pickles.array(tensor[:0]).dtype.kind not in "fiub":
                raise ValueError(f"it holds {dtype} {list(shape)}, not numbers [{axes}]")
        return shape

    def __getitem__(self, index: int) -> NDArray[Any]:
        """Read one row; one of `damage.RAISED`, or a BrainhiveError, when it cannot be."""
        return pickles.array(pickles.load(self.path, verify=False)[index])
