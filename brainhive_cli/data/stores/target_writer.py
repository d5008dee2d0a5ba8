"""Writing of target stores, which an interrupted command resumes."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainhive_cli.core.arrays import Array, Int64
from brainhive_cli.core.claims import Claim
from brainhive_cli.core.errors import (
    BrainhiveError,
    raise_if_interrupted,
)
from brainhive_cli.core.files import publish
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.stores.health import Health, measure_health

if TYPE_CHECKING:
    pass
from brainhive_cli.data.stores.target_store import (
    FORMAT,
    PIXEL_HASH_WORDS,
    PIXELS_DATASET,
)

CHECKSUMS_DATASET = f"{hdf5.CHECKSUMS}/embedding"


@dataclass(frozen=True)
class StorePlan:
    """A store before it is filled.

    Attributes:
        path: Where it will lie.
        image_ids: Stimulus ids, [N].
        concepts: Concepts, [N].
        shape: Shape of one target.
        dtype: In which targets are kept.
        attributes: What makes them; an interrupted store with the same ones is resumed.
        more: Shape of a row of further float32 datasets, by name.
        has_pixels: Whether the stimuli are decoded, so that each row gets what its
            pixels are known by.
    """

    path: Path
    image_ids: Sequence[str]
    concepts: Sequence[str]
    shape: tuple[int, ...]
    dtype: str
    attributes: dict[str, Any]
    extra_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    has_pixels: bool = False

    def create(self) -> None:
        """Create the unfinished store, or keep one that holds the same stimuli and
        encoder.
        """
        # attributes by which an interrupted store of the same targets is recognised
        part = hdf5.part_of(self.path)
        ids = Names.of(self.image_ids)
        count = len(self.image_ids)
        attributes = {
            "format": FORMAT,
            "dtype": self.dtype,
            "pictures": ids.digest,
            **self.attributes,
        }
        # datasets that are written row by row, and lists that are written now
        spaces = {"embedding": ((count, *self.shape), self.dtype)}
        spaces |= {
            name: ((count, *row), "float32") for name, row in self.extra_shapes.items()
        }
        spaces |= (
            {PIXELS_DATASET: ((count, PIXEL_HASH_WORDS), "uint64")}
            if self.has_pixels
            else {}
        )
        arrays = {"image_id": ids.packed, "concept": Names.of(self.concepts).packed}

        # resume what was interrupted
        if part.is_file() and _matches_plan(part, spaces, arrays, attributes):
            hdf5.unseal(part)
        else:
            hdf5.create(
                part, spaces, {**arrays, "done": np.zeros(count, np.uint8)}, attributes
            )


def find_pending_rows(path: Path) -> Int64:
    """Find the rows of an unfinished store that are not written yet."""
    with hdf5.open_unlocked(hdf5.part_of(path)) as file:
        # a row without a checksum was not written, whatever its mark says
        return np.flatnonzero(
            (file["done"][()] != 1) | (file[CHECKSUMS_DATASET][()] == 0)
        )


class TargetWriter:
    """A store being written; rows may come in any order and from several processes.

    Attributes:
        pending: Rows that were not written when writing began; default: those that are
            not written now.
    """

    def __init__(self, path: Path, pending_rows: Int64 | None = None) -> None:
        self.path = path
        self.pending_rows = (
            find_pending_rows(path) if pending_rows is None else pending_rows
        )
        part = hdf5.part_of(path)
        with hdf5.open_unlocked(part) as file:
            # the largest float16; only such stores can overflow
            self._most = np.inf
            if file["embedding"].dtype == np.float16:
                self._most = float(np.finfo(np.float16).max)
            # one writer for each dataset of rows; names were written at creation
            self._rows = {
                name: hdf5.RowWriter(part, name)
                for name in file.keys() - {"image_id", "concept", hdf5.CHECKSUMS}
            }

    def write(self, rows: Int64, values: Array, **more: Array) -> None:
        """Write targets [B, *shape], and the rows of further datasets, then mark these
        rows done.

        Raises:
            BrainhiveError: if a value is larger than the store's dtype can hold.
        """
        # float16 would turn larger values, whole numbers too, into infinity
        if self._most < np.inf:
            largest = np.abs(
                values, where=np.isfinite(values), out=np.zeros_like(values)
            ).max(initial=0)
            if largest > self._most:
                problem = (
                    f"{self.path}: values up to {largest:.6g} do not fit into float16"
                )
                raise BrainhiveError(
                    f"{problem}, which ends at {self._most:g}", "dtype=float32"
                )
        # values before their marks: a kill in between leaves the rows pending
        for name, rows_of_name in {"embedding": values, **more}.items():
            self._rows[name].write(rows, rows_of_name)
        self._rows["done"].write(rows, np.ones(len(rows), np.uint8))

    def close(self) -> None:
        """Stop writing; what is done stays done."""
        for rows in self._rows.values():
            rows.close()

    def finish(self) -> Health:
        """Measure health, seal the store and give it its final name."""
        # health comes before the seal, which covers the attributes
        part = hdf5.part_of(self.path)
        with hdf5.open_unlocked(part) as file:
            done = file["done"][()].astype(bool)
            health = measure_health(file["embedding"], np.flatnonzero(done))
        hdf5.seal(part, {"health": asdict(health), "skipped": int((~done).sum())})
        publish(part, self.path)
        return health


def finish_stores(writers: Sequence[TargetWriter], launch: Launch) -> None:
    """Give stores their final names when all processes have written their rows."""
    raise_if_interrupted()
    launch.run_on_main(lambda: [writer.finish() for writer in writers])


@contextmanager
def open_writers(
    blanks: Sequence[StorePlan],
    launch: Launch,
    force: bool = False,
    keeps_unfinished: bool = True,
    reopens_finished: bool = False,
) -> Iterator[list[TargetWriter]]:
    """Create stores, or resume interrupted ones, and lock them until the block ends.

    Args:
        blanks: The stores; none of another command is written to.
        launch: This process among those that fill them.
        force: Start from the first row, also where an interrupted store could be
            resumed.
        keep: Keep what is written when the block ends before `finish_stores`, for the
            next time.
        reopen: Add to a finished store, which has no final name meanwhile.

    Yields:
        A writer of each store.

    Raises:
        BrainhiveError: if another command writes one of the stores.
    """
    with ExitStack() as stack:
        # the main process creates the stores; all learn from it which rows are pending
        create = partial(
            _create_stores, blanks, stack, force, keeps_unfinished, reopens_finished
        )
        yield [
            stack.enter_context(closing(TargetWriter(path, pending)))
            for path, pending in launch.run_on_main(create).items()
        ]


def _create_stores(
    blanks: Sequence[StorePlan], stack: ExitStack, force: bool, keep: bool, reopen: bool
) -> dict[Path, Int64]:
    """Claim and create stores until the stack is left; find the pending rows of each,
    by path.
    """
    # claim all stores before the first is changed
    for blank in blanks:
        stack.callback(Claim.for_path(blank.path).release)
    for blank in blanks:
        part = hdf5.part_of(blank.path)
        if reopen and blank.path.is_file():
            # readers must not open a store that is being changed
            os.replace(blank.path, part)
        if force:
            part.unlink(missing_ok=True)
        if not keep:
            stack.callback(part.unlink, missing_ok=True)
        blank.create()
    return {blank.path: find_pending_rows(blank.path) for blank in blanks}


def _matches_plan(
    part: Path,
    spaces: Mapping[str, tuple[tuple[int, ...], str]],
    arrays: Mapping[str, Array],
    attributes: dict[str, Any],
) -> bool:
    """Whether an interrupted store was to hold the same; its health figures stand in
    one that was sealed.
    """
    try:
        with hdf5.open_file(part, "") as file:
            # the same datasets, attributes and lists; every row has room for a checksum
            spaces = {**spaces, "done": (spaces["embedding"][0][:1], "uint8")}
            stored = {
                name: hdf5.map_numbers(file, name)
                for name in (*spaces, CHECKSUMS_DATASET)
            }
            return (
                attributes.items() <= hdf5.get_attributes(file).items()
                and all(
                    (stored[name].shape, stored[name].dtype.name) == spaces[name]
                    for name in spaces
                )
                and all(
                    np.array_equal(hdf5.read_strings(file, name), array)
                    for name, array in arrays.items()
                )
            )
    except BrainhiveError:
        # interrupted while it was being created, or damaged: nothing in it to keep
        return False
