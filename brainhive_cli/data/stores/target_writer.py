"""Writing of target stores. An interrupted store is resumed."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.base import Array, BrainhiveError, Int64, raise_if_interrupted
from brainhive_cli.core.files import publish
from brainhive_cli.core.runs import Claim, Launch
from brainhive_cli.data.files import Names, hdf5
from brainhive_cli.data.stores.health import Health, measure_health
from brainhive_cli.data.stores.target_store import (
    FORMAT,
    PIXEL_HASH_WORDS,
    PIXELS_DATASET,
)

CHECKSUMS_DATASET = f"{hdf5.CHECKSUMS}/embedding"
"""Dataset with the checksum of each row of the embeddings."""


@dataclass(frozen=True)
class StorePlan:
    """Plan of a target store that is to be written.

    Attributes:
        path: Path of the finished store.
        image_ids: Stimulus ids [N].
        concepts: Concepts [N].
        shape: Shape of a target.
        dtype: Dtype of the targets.
        attributes: Settings that determine the targets. An interrupted store with the
            same settings is resumed.
        extra_shapes: Shape of a row of each further float32 dataset, by name.
        has_pixels: True if each row gets the digest and hash of its pixels.
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
        """Create the unfinished store, or keep an interrupted one of the same plan."""
        unfinished_path = hdf5.get_part_path(self.path)
        names = Names.of(self.image_ids)
        count = len(self.image_ids)
        attributes = {
            "format": FORMAT,
            "dtype": self.dtype,
            "pictures": names.digest,
            **self.attributes,
        }
        spaces: hdf5.Spaces = {"embedding": ((count, *self.shape), self.dtype)}
        for name, shape in self.extra_shapes.items():
            spaces[name] = ((count, *shape), "float32")
        if self.has_pixels:
            spaces[PIXELS_DATASET] = ((count, PIXEL_HASH_WORDS), "uint64")
        arrays = {"image_id": names.packed, "concept": Names.of(self.concepts).packed}

        if unfinished_path.is_file() and _matches_plan(
            unfinished_path, spaces, arrays, attributes
        ):
            hdf5.unseal(unfinished_path)
        else:
            arrays["done"] = np.zeros(count, np.uint8)
            hdf5.create(unfinished_path, spaces, arrays, attributes)


def find_pending_rows(path: Path) -> Int64:
    """Find the rows of an unfinished store that are not written yet."""
    with hdf5.open_unlocked(hdf5.get_part_path(path)) as file:
        # a row without a checksum was not written, even if it is marked as done
        is_done = file["done"][()] == 1
        has_checksum = file[CHECKSUMS_DATASET][()] != 0
        return np.flatnonzero(~(is_done & has_checksum))


class TargetWriter:
    """Writer of an unfinished store. Several processes may write rows in any order.

    Args:
        path: Path of the finished store.
        pending_rows: Rows to write, or None for all rows that are not written yet.

    Attributes:
        path: Path of the finished store.
        pending_rows: Rows that were not written when writing began.
    """

    def __init__(self, path: Path, pending_rows: Int64 | None = None) -> None:
        self.path = path
        if pending_rows is None:
            pending_rows = find_pending_rows(path)
        self.pending_rows = pending_rows
        unfinished_path = hdf5.get_part_path(path)
        with hdf5.open_unlocked(unfinished_path) as file:
            # only float16 can overflow
            self._max_value = np.inf
            if file["embedding"].dtype == np.float16:
                self._max_value = float(np.finfo(np.float16).max)
            # names were written when the store was created
            names = file.keys() - {"image_id", "concept", hdf5.CHECKSUMS}
            self._writers = {
                name: hdf5.RowWriter(unfinished_path, name) for name in names
            }

    def write(self, rows: Int64, values: Array, **datasets: Array) -> None:
        """Write rows and mark them as done.

        Args:
            rows: Row numbers [B].
            values: Targets [B, *shape].
            datasets: Rows [B, …] of the further datasets, by name.

        Raises:
            BrainhiveError: if a value is too large for the dtype of the store.
        """
        # casting to float16 would turn larger values into infinity
        if self._max_value < np.inf:
            magnitudes = np.abs(
                values, where=np.isfinite(values), out=np.zeros_like(values)
            )
            largest = magnitudes.max(initial=0)
            if largest > self._max_value:
                raise BrainhiveError(
                    f"{self.path}: values up to {largest:.6g} do not fit into float16, "
                    f"which ends at {self._max_value:g}",
                    "dtype=float32",
                )
        # an interruption before the marks leaves the rows pending
        self._writers["embedding"].write(rows, values)
        for name, dataset_rows in datasets.items():
            self._writers[name].write(rows, dataset_rows)
        self._writers["done"].write(rows, np.ones(len(rows), np.uint8))

    def close(self) -> None:
        """Close the files. Written rows are kept."""
        for writer in self._writers.values():
            writer.close()

    def finish(self) -> Health:
        """Measure the health, seal the store and give it its final name."""
        # the seal covers the attributes, so health is measured first
        unfinished_path = hdf5.get_part_path(self.path)
        with hdf5.open_unlocked(unfinished_path) as file:
            is_done = file["done"][()].astype(bool)
            health = measure_health(file["embedding"], np.flatnonzero(is_done))
        n_skipped = int((~is_done).sum())
        hdf5.seal(unfinished_path, {"health": asdict(health), "skipped": n_skipped})
        publish(unfinished_path, self.path)
        return health


def finish_stores(writers: Sequence[TargetWriter], launch: Launch) -> None:
    """Finish stores in the main process, when all processes have written their rows."""
    raise_if_interrupted()
    launch.run_on_main(lambda: [writer.finish() for writer in writers])


@contextmanager
def open_writers(
    plans: Sequence[StorePlan],
    launch: Launch,
    force: bool = False,
    keeps_unfinished: bool = True,
    reopens_finished: bool = False,
) -> Iterator[list[TargetWriter]]:
    """Create or resume stores, and lock them until the block ends.

    Args:
        plans: Plans of the stores.
        launch: Processes that write the stores.
        force: True to write all rows again instead of resuming.
        keeps_unfinished: True to keep written rows if the block ends before
            `finish_stores`.
        reopens_finished: True to add rows to a finished store. It loses its final name
            until it is finished again.

    Yields:
        A writer for each store.

    Raises:
        BrainhiveError: if another command is writing one of the stores.
    """
    with ExitStack() as stack:

        def create_stores() -> dict[Path, Int64]:
            """Create or resume the stores, and find the pending rows of each path."""
            # claim all stores before the first is changed
            for plan in plans:
                stack.callback(Claim.for_path(plan.path).release)
            for plan in plans:
                unfinished_path = hdf5.get_part_path(plan.path)
                if reopens_finished and plan.path.is_file():
                    # nobody may open a store while it is changed
                    os.replace(plan.path, unfinished_path)
                if force:
                    unfinished_path.unlink(missing_ok=True)
                if not keeps_unfinished:
                    stack.callback(unfinished_path.unlink, missing_ok=True)
                plan.create()
            return {plan.path: find_pending_rows(plan.path) for plan in plans}

        pending_rows = launch.run_on_main(create_stores)
        writers = []
        for path, rows in pending_rows.items():
            writers.append(stack.enter_context(closing(TargetWriter(path, rows))))
        yield writers


def _matches_plan(
    path: Path,
    spaces: hdf5.Spaces,
    arrays: Mapping[str, Array],
    attributes: dict[str, Any],
) -> bool:
    """Return True if an interrupted store has these datasets, names and attributes.

    A damaged store returns False.
    """
    count = spaces["embedding"][0][0]
    expected_spaces = {**spaces, "done": ((count,), "uint8")}
    try:
        with hdf5.open_file(path, "") as file:
            # a store without room for checksums is damaged
            hdf5.map_numbers(file, CHECKSUMS_DATASET)
            # a sealed store has further attributes, such as its health
            if not attributes.items() <= hdf5.get_attributes(file).items():
                return False
            for name, space in expected_spaces.items():
                dataset = hdf5.map_numbers(file, name)
                if (dataset.shape, dataset.dtype.name) != space:
                    return False
            for name, array in arrays.items():
                if not np.array_equal(hdf5.read_strings(file, name), array):
                    return False
            return True
    except BrainhiveError:
        return False
