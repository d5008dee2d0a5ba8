"""The target store: what one encoder gives for the stimuli of a split, how it was made,
and its health.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache, partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from brainhive_cli.core import documents
from brainhive_cli.core.arrays import Array, Bool, Float32, Int64, UInt64
from brainhive_cli.core.claims import Claim
from brainhive_cli.core.errors import (
    BrainhiveError,
    Hint,
    Line,
    MissingData,
    raise_if_interrupted,
)
from brainhive_cli.core.files import below, expand_pattern, publish
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.tables import Table
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.files.ids import Names, match_ids
from brainhive_cli.models.encoders import IMPORTED, describe_bad_own_name

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 4
PIXELS = "pixels"
"""The dataset of what the stimuli's pixels are known by, in stores whose making decoded
them.
"""
PIXEL_WORDS = 25
"""64-bit words that a stimulus is known by: a digest of its pixels, and 24 of a
perceptual hash.
"""
TWIN_DISTANCE = 0.0003
"""Distance of unit embeddings below which two are one: one picture in two batches, of
which float16 keeps some numbers with another last digit.
"""
DIRECTIONS = 16
"""Random directions in which embeddings are compared."""
SUMS = f"{hdf5.CHECKSUMS}/embedding"
ROWS_READ = 1024
"""Rows that are looked through at a time."""
NUMBERS_READ = 2**24
"""Numbers of embeddings that are compared at a time."""
VIEW = re.compile(r"(?P<encoder>.+)-view-(?P<index>\d{1,6})(?P<digest>-[0-9a-f]{8})?")
"""The name of an encoder of one frame or caption; with `-all` instead of the view, that
of all of them.
"""
VALUES_IN_MEMORY = 2**24
"""Values in memory at a time, 64 MiB in float32, however wide the vectors."""
PAIRED_VECTORS = 1024
"""Vectors, drawn with a seed, all of whose pairs give the median cosine."""
CHECKED_VECTORS = 256
"""Of these, vectors whose near-duplicates are counted among all: the share is known
within 6 %.
"""
DUPLICATE_COSINE = 0.99999
"""A cosine above this: a near-duplicate, as of one picture decoded twice; small
networks reach 0.999.
"""
DEAD_SPREAD_SHARE = 1e-6
"""A dimension that spreads less than this share of the widest is dead: float32 rounds
as much.
"""
MIN_VECTORS = 16
"""Fewer vectors than this may well be alike, and say nothing about an encoder."""
COLUMNS = tuple("store vectors norm spread dead NaN cosine near check".split())
"""Of the table of figures."""
PASSED, FAILED = "passed", "failed"


@dataclass(frozen=True)
class Health:
    """The health figures of a store; targets of any shape count as flat vectors.

    Attributes:
        vectors: How many have finite values only; the other figures are of these.
        dimensions: Values in a vector.
        spread: Standard deviation over vectors, of the dimension that spreads least,
            then of those at 5 %, 50 % and 95 %, then of the one that spreads most.
        dead_dimensions: How many dimensions are the same in all vectors.
        non_finite: How many values are NaN or infinite.
        median_pair_cosine: Median cosine of random pairs of vectors.
        near_duplicates: Share of vectors that have a near-duplicate in the store.
    """

    vectors: int
    dimensions: int
    mean_norm: float
    spread: list[float]
    dead_dimensions: int
    non_finite: int
    median_pair_cosine: float
    near_duplicates: float

    def problems(
        self, usual_cosine: tuple[float, float], usual_repeats: float, usual_dead: float
    ) -> list[tuple[str, str]]:
        """List the problems, each with its likely cause, the most severe first.

        Args:
            usual_cosine: The least and most that the encoder's median pair cosine is
                known to be.
            usual_repeats: The most that its share of near-duplicates is known to be.
            usual_dead: The most that its share of dead dimensions is known to be.
        """
        # values that are not finite count, however few vectors there are
        low, high = usual_cosine
        cosine = f"the median cosine of random pairs is {self.median_pair_cosine:.4f}"
        problems = []
        if self.non_finite:
            problems.append(
                (
                    f"{self.non_finite} values are not finite",
                    "half precision that overflowed; their pictures count as absent",
                )
            )
        if self.vectors < MIN_VECTORS:
            return problems

        # vectors that are too alike, too different, constant, or repeated
        if self.median_pair_cosine > high:
            problems.append(
                (
                    f"{cosine}, usual is {high:g} at most: collapsed",
                    "weights that did not load, or pictures that all reached the "
                    "encoder alike",
                )
            )
        if self.median_pair_cosine < low:
            problems.append(
                (
                    f"{cosine}, usual is {low:g} at least",
                    "vectors that were centred or whitened, or are another encoder's",
                )
            )
        if self.dead_dimensions > usual_dead * self.dimensions:
            problems.append(
                (
                    f"{self.dead_dimensions} of {self.dimensions} dimensions never "
                    "change",
                    "weights that did not load, or vectors padded with zeros",
                )
            )
        if self.near_duplicates > usual_repeats:
            problems.append(
                (
                    f"{self.near_duplicates:.0%} of the vectors have a near-duplicate",
                    "one picture under many ids, or rows that were never filled",
                )
            )
        return problems


@dataclass(frozen=True)
class TargetStore:
    """A finished store, mapped into memory.

    Attributes:
        embedding: [N, *shape]: vectors [N, D], tokens [N, S, D], latents [N, C, h, w]
            …; [N, K, *shape] where there are alternatives; rows are verified when they
            are first read.
        image_ids: The stimulus id of each row.
        concepts: The concept of each row.
        done: [N] whether the stimulus could be decoded.
        pixels: [N, 25] digest of each stimulus's pixels, and its perceptual hash; None
            where none were decoded, as for imported vectors and captions.
        attributes: Encoder, config, weights, preprocessing, data set, split, digest of
            the stimulus ids (`pictures`), versions and health.
        shape: Shape of one target.
        alternatives: Number of targets of a stimulus, K (five captions, six frames);
            None where there is no such axis.
        is_own: Whether it holds a user's own vectors, under a name of their own.
        making: The command line that makes it.
    """

    path: Path
    embedding: hdf5.LazyRows
    image_ids: Names
    concepts: Names
    done: Bool
    pixels: UInt64 | None
    attributes: dict[str, Any]
    shape: tuple[int, ...]
    alternatives: int | None
    is_own: bool
    making: Line

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a finished store.

        Raises:
            MissingData: if it is absent or not finished.
            BrainhiveError: if the file is corrupt or of another format.
        """
        with hdf5.open_file(path, making(path)) as file:
            # attributes of the right format
            attributes = hdf5.get_attributes(file)
            if attributes.get("format") != FORMAT or "embedding" not in file:
                raise BrainhiveError(
                    f"{path} is not a target store of format {FORMAT}",
                    f"{making(path)} --again",
                )

            # rows stay on disk; names and marks are read
            embedding = hdf5.open_rows(file, "embedding", making(path))
            done = hdf5.read_flags(file, "done")
            pixels = (
                np.array(hdf5.map_numbers(file, PIXELS, "u"))
                if PIXELS in file
                else None
            )
            # a store that lacks these attributes is known by its folders and its name
            attributes = {
                "encoder": path.stem,
                "split": path.parent.name,
                "dataset": path.parent.parent.name,
                "config": {},
                "weights": {},
                "skipped": int((~done).sum()),
                **attributes,
            }

            # a picture whose embedding is not finite counts as one that has none
            health = attributes.get("health")
            if isinstance(health, Mapping) and health.get("non_finite"):
                done = done & find_finite(embedding)

            # shape of one target, which follows the axis of alternatives where there is
            # one
            alternatives = attributes.get("alternatives")
            is_own = attributes["config"].get("kind") == IMPORTED
            return cls(
                path,
                embedding,
                Names(hdf5.read_strings(file, "image_id")),
                Names(hdf5.read_strings(file, "concept")),
                done,
                pixels,
                attributes,
                embedding.shape[1 if alternatives is None else 2 :],
                alternatives,
                is_own,
                making(path, is_own),
            )

    def view(self, encoder: str, index: int | None) -> Self:
        """Give the store of one view, which `encoder` encodes alone, of one with
        targets [F, …] of all.

        Raises:
            BrainhiveError: if there are fewer.
        """
        if index is None:
            return self

        # views lie along the first axis of a target, [F, …]
        if not index < (count := self.shape[0]):
            raise BrainhiveError(
                f"{self.path} has {count} views, none is {index}",
                "views are counted from 0",
            )
        # attributes as if the encoder of that view alone had made the store
        config = {**self.attributes["config"], "views": index}
        return replace(
            self,
            embedding=self.embedding.column(index),
            attributes={**self.attributes, "encoder": encoder, "config": config},
            shape=self.shape[1:],
        )

    def verify(self) -> None:
        """Verify the checksums of all rows; reads the whole store.

        Raises:
            BrainhiveError: if one does not match.
        """
        # the seal covers the names
        with hdf5.open_file(self.path, self.making) as file:
            hdf5.verify_rows(file, self.making)

    @property
    def content(self) -> str:
        """Digest of all embeddings, by the checksums of their rows."""
        sums = np.asarray(self.embedding.checksums, np.uint64)
        return hashlib.sha256(sums.tobytes()).hexdigest()[:16]

    @cached_property
    def health(self) -> Health:
        """The health figures in the store.

        Raises:
            BrainhiveError: if they are not those that this version writes.
        """
        return documents.check(
            self.attributes.get("health"),
            f"{self.path}: attribute: health",
            Health,
            f"{self.making} --again",
        )

    def measured(self) -> Health:
        """Measure the health again, also of embeddings that are not finite."""
        with hdf5.open_file(self.path, self.making) as file:
            return measure_health(
                self.embedding, np.flatnonzero(hdf5.read_flags(file, "done"))
            )

    def refuse_other_pictures(self, image_ids: Sequence[str], line: Hint) -> None:
        """Refuse a store whose stimuli are not those that its data set and split have
        now.

        Args:
            image_ids: The ids that they have now, in order.
            line: The command line that makes the store.

        Raises:
            BrainhiveError: with that line.
        """
        if self.image_ids == image_ids:
            return
        # say what changed: the pictures, or only their order
        stored, current = set(self.image_ids), set(image_ids)
        split = "{dataset}/{split}".format_map(self.attributes)
        added, absent = len(current - stored), len(stored - current)
        changes = "the order differs"
        if added or absent:
            changes = f"{added} added, {absent} removed"
        raise BrainhiveError(
            f"{self.path} does not match the pictures that {split} has now: {changes}",
            f"{line} --again",
        )

    def read_flat(self, rows: Int64) -> "Tensor":
        """Read embeddings of pictures, flattened [n, F]; the first of alternatives."""
        import torch

        values = (
            self.embedding if self.alternatives is None else self.embedding.column(0)
        )
        read = np.asarray(values[rows], np.float32)
        return torch.from_numpy(read.reshape(len(rows), -1))

    def rows(self, image_ids: Sequence[str]) -> Int64:
        """Find the rows of image ids; -1 for a picture that was skipped as bad when
        embedding.
        """
        rows = match_ids(image_ids, self.image_ids, str(self.path))
        return np.where(self.done[rows], rows, -1)


@dataclass(frozen=True)
class Blank:
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
    more: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
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
        spaces |= {name: ((count, *row), "float32") for name, row in self.more.items()}
        spaces |= {PIXELS: ((count, PIXEL_WORDS), "uint64")} if self.has_pixels else {}
        arrays = {"image_id": ids.packed, "concept": Names.of(self.concepts).packed}

        # resume what was interrupted
        if part.is_file() and _is_same(part, spaces, arrays, attributes):
            hdf5.unseal(part)
        else:
            hdf5.create(
                part, spaces, {**arrays, "done": np.zeros(count, np.uint8)}, attributes
            )


def find_finite(embedding: Any) -> Bool:
    """Find the rows [N] of embeddings [N, …] whose values are all finite, some at a
    time.
    """
    starts = range(0, len(embedding), ROWS_READ)
    blocks = (np.isfinite(embedding[start : start + ROWS_READ]) for start in starts)
    is_finite = [block.reshape(len(block), -1).all(1) for block in blocks]
    # a store without rows has no blocks
    return np.concatenate([np.ones(0, bool), *is_finite])


def find_twins(stores: Iterable[TargetStore], is_candidate: Bool) -> Bool:
    """Find the candidates [M] whose embeddings another one has, too, in every store.

    Embeddings count as equal up to the rounding of one picture in two batches. They are
    compared in a few random directions, which keep distances.
    """
    from scipy.spatial import KDTree

    rows = np.flatnonzero(is_candidate)
    is_twin = np.zeros(len(is_candidate), bool)
    if len(rows) < 2:
        return is_twin
    projections = []
    for store in stores:
        width = prod(store.embedding.shape[1:])
        directions = np.random.default_rng(0).standard_normal((width, DIRECTIONS))
        parts = []
        for block in np.array_split(rows, 1 + len(rows) * width // NUMBERS_READ):
            flat = store.embedding[block].reshape(len(block), -1).astype(np.float64)
            lengths = np.linalg.norm(flat, axis=1, keepdims=True)
            parts.append(flat / np.maximum(lengths, 1e-30) @ directions)
        projections.append(np.concatenate(parts) / DIRECTIONS**0.5)
    points = np.hstack(projections)
    distances, _ = KDTree(points).query(points, k=2)  # the first is the point itself
    is_twin[rows] = distances[:, 1] < TWIN_DISTANCE
    return is_twin


def find_pending(path: Path) -> Int64:
    """Find the rows of an unfinished store that are not written yet."""
    with hdf5.open_unlocked(hdf5.part_of(path)) as file:
        # a row without a checksum was not written, whatever its mark says
        return np.flatnonzero((file["done"][()] != 1) | (file[SUMS][()] == 0))


class TargetWriter:
    """A store being written; rows may come in any order and from several processes.

    Attributes:
        pending: Rows that were not written when writing began; default: those that are
            not written now.
    """

    def __init__(self, path: Path, pending: Int64 | None = None) -> None:
        self.path = path
        self.pending = find_pending(path) if pending is None else pending
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
    launch.once(lambda: [writer.finish() for writer in writers])


@contextmanager
def filling(
    blanks: Sequence[Blank],
    launch: Launch,
    again: bool = False,
    keep: bool = True,
    reopen: bool = False,
) -> Iterator[list[TargetWriter]]:
    """Create stores, or resume interrupted ones, and lock them until the block ends.

    Args:
        blanks: The stores; none of another command is written to.
        launch: This process among those that fill them.
        again: Start from the first row, also where an interrupted store could be
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
        create = partial(_create, blanks, stack, again, keep, reopen)
        yield [
            stack.enter_context(closing(TargetWriter(path, pending)))
            for path, pending in launch.once(create).items()
        ]


def _create(
    blanks: Sequence[Blank], stack: ExitStack, again: bool, keep: bool, reopen: bool
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
        if again:
            part.unlink(missing_ok=True)
        if not keep:
            stack.callback(part.unlink, missing_ok=True)
        blank.create()
    return {blank.path: find_pending(blank.path) for blank in blanks}


def _is_same(
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
            stored = {name: hdf5.map_numbers(file, name) for name in (*spaces, SUMS)}
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


def path_of(embeddings: Path, dataset: str, split: str, encoder: str) -> Path:
    """Say where the store of (data set, split, encoder) lies."""
    source = "the data set, split or encoder of a store,"
    return below(embeddings, dataset, split, f"{encoder}.h5", source=source)


def find(
    embeddings: Path, dataset: str, split: str, encoder: str
) -> tuple[Path, int | None]:
    """Find the store of an encoder: its own, or for one view that of all, and the index
    of the view in it.

    Returns:
        The path, that of its own store where neither is there; and the index of the
        view.
    """
    path = path_of(embeddings, dataset, split, encoder)
    # without its own store, one view is read from the store of all views
    if not path.is_file() and (view := VIEW.fullmatch(encoder)):
        combined = path_of(
            embeddings, dataset, split, f"{view['encoder']}-all{view['digest'] or ''}"
        )
        if combined.is_file():
            return combined, int(view["index"])
    return path, None


def making(path: Path, is_own: bool = False) -> Line:
    """Say which command line makes the store at `path`; that of own vectors (`is_own`)
    imports them.
    """
    # the path is DATASET/SPLIT/ENCODER.h5
    dataset, split = ("dataset", path.parents[1].name), f"splits={path.parent.name}"
    if is_own:
        return Line("import-embeddings", "FILE", dataset, ("as", path.stem), split)
    return Line("embed", dataset, ("encoders", [path.stem]), split)


def holds_own_vectors(path: Path) -> bool:
    """Whether a store holds a user's own vectors under their own name; False where it
    cannot be opened.
    """
    with suppress(BrainhiveError):
        return TargetStore.open(path).is_own
    return False


def find_own(embeddings: Path, name: str) -> Path | None:
    """Find a store of own vectors of a name, of any data set and split."""
    # shipped encoders' names are never those of own vectors
    paths = embeddings.glob(f"*/*/{name}.h5") if not describe_bad_own_name(name) else ()
    return next(filter(holds_own_vectors, paths), None)


def first_with_pixels(
    stores: Mapping[str, TargetStore],
) -> tuple[TargetStore, UInt64 | None]:
    """Give one of the stores of the same stimuli, and what pixels are known by [N, 25]
    where one says it.
    """
    pixels = (store.pixels for store in stores.values() if store.pixels is not None)
    return next(iter(stores.values())), next(pixels, None)


def are_foreign(stores: Iterable[TargetStore]) -> bool:
    """Whether some targets are of unknown pictures: vectors that were imported without
    the pictures that they are named after, or made of other pictures.
    """
    return any(
        ("imported" in store.attributes and store.pixels is None)
        or store.attributes["config"].get("pictures")
        for store in stores
    )


def open_all(
    embeddings: Path, dataset: str, split: str, encoders: Sequence[str]
) -> dict[str, TargetStore]:
    """Open one store an encoder.

    Raises:
        MissingData: naming every store that is missing, with the line that makes them.
    """
    # all missing stores in one error: own vectors are imported, others embedded
    paths = {name: find(embeddings, dataset, split, name) for name in encoders}
    absent = [name for name, (path, _) in paths.items() if not path.is_file()]
    if absent:
        problem = (
            f"no {split} embeddings of {', '.join(absent)} for {dataset} under "
            f"{embeddings}"
        )
        imported = [name for name in absent if not describe_bad_own_name(name)]
        lines = [
            Line("import-embeddings", "FILE", ("as", name), ("dataset", dataset))
            for name in imported
        ]
        if unknown := [name for name in absent if name not in imported]:
            lines.insert(0, Line("embed", ("encoders", unknown), ("dataset", dataset)))
        raise MissingData(problem, " && ".join(map(str, lines)))

    # each file is opened once, even if several encoders are views of it
    stores = {
        path: _open_once(path, hdf5.state_of(path)) for path, _ in {*paths.values()}
    }
    return {name: stores[path].view(name, view) for name, (path, view) in paths.items()}


@lru_cache(maxsize=256)
def _open_once(path: Path, state: tuple[int, ...]) -> TargetStore:
    """Open a store once for all who read it, as long as its file is the same."""
    # `state` is part of the cache's key, so that a changed file is opened again
    return TargetStore.open(path)


def expand_patterns(names: Iterable[str]) -> list[Path]:
    """List the files and folders that names and patterns of a command line stand for,
    each once.

    Raises:
        MissingData: for a name that stands for none.
    """
    # a dict keeps the order, and each path once
    expanded = {}
    for name in names:
        if not (paths := expand_pattern(os.path.expanduser(name))):
            raise MissingData(f"no file, folder or pattern {name}", "check the name")
        expanded.update(dict.fromkeys(paths))
    return list(expanded)


def list_stores(names: Iterable[str] | None, paths: Paths) -> list[Path]:
    """List the stores that names stand for, also those in a folder; all below
    paths.embeddings when None.

    Raises:
        MissingData: if there is none.
    """
    folders = (
        [paths.under_home("embeddings")] if names is None else expand_patterns(names)
    )
    # hidden files are no stores: macOS adds a ._NAME.h5 on foreign disks
    groups = (
        [folder] if folder.is_file() else sorted(folder.rglob("[!.]*.h5"))
        for folder in folders
    )
    stores = [store for group in groups for store in group]
    if not stores:
        where = ", ".join(map(str, folders))
        raise MissingData(
            f"no embedding store in {where}", f"{Line('embed')}, or import-embeddings"
        )
    return list(dict.fromkeys(stores))


def health_row(
    path: Path, health: Health, has_failed: bool, are_annotations: bool = False
) -> tuple[object, ...]:
    """Write a store's figures under `COLUMNS`, rounded; the spread is the median
    dimension's.

    Of annotations, as labels of 0 and 1, only the count and what is not finite say
    something.
    """
    mean_norm, spread = (
        float(f"{value:.3g}") for value in (health.mean_norm, health.spread[2])
    )
    cosine, near = (
        round(value, 3) for value in (health.median_pair_cosine, health.near_duplicates)
    )
    figures = mean_norm, spread, health.dead_dimensions, health.non_finite, cosine, near
    if are_annotations:
        figures = *"–––", health.non_finite, *"––"
    return (
        hdf5.short_name(path),
        health.vectors,
        *figures,
        FAILED if has_failed else PASSED,
    )


def health_table(rows: Iterable[tuple[object, ...]]) -> Table:
    """Make the table of rows that `health_row` wrote."""
    return Table("Health of embeddings", COLUMNS, tuple(rows))


def measure_health(embedding: Any, rows: Int64) -> Health:
    """Describe vectors in one pass, reading slices, so that memory stays bounded.

    Args:
        embedding: [N, …], an array or HDF5 dataset; trailing axes are flattened.
        rows: The rows to measure.
    """
    # a random sample [n, D], all pairs of which are compared
    width = prod(embedding.shape[1:])
    sample = _sample(embedding, rows, width)
    checked = sample[:CHECKED_VECTORS]

    # sums over all vectors, in float64
    vectors, non_finite, zeros, norms = 0, 0, 0, 0.0
    origin, total, squares = np.zeros(width), np.zeros(width), np.zeros(width)
    near = np.zeros(len(checked), np.int64)
    for values in _blocks(embedding, rows, width):  # [n, D]
        finite = np.isfinite(values)
        non_finite += finite.size - int(np.count_nonzero(finite))
        values = values[finite.all(1)].astype(np.float64)
        if not vectors and len(values):
            origin = values[0].copy()  # sums of what is left of it lose no digits
        lengths = np.sqrt(np.einsum("nd,nd->n", values, values))
        # duplicates of the checked vectors among the vectors of this block
        near += ((_units(values, lengths) @ checked.T) > DUPLICATE_COSINE).sum(0)
        values -= origin
        total += values.sum(0)
        squares += np.einsum("nd,nd->d", values, values)
        vectors += len(values)
        norms += lengths.sum()
        zeros += (lengths == 0).sum()

    # spread of each dimension, [D], and the cosine of each pair
    count = max(vectors, 1)
    spread = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0))
    pairs = (sample @ sample.T)[np.triu_indices(len(sample), 1)]  # of different vectors
    # each is near itself, but for zeros
    is_near = (near > 1) | (~checked.any(1) & (zeros > 1))
    return Health(
        vectors,
        dimensions=width,
        mean_norm=float(norms / count),
        spread=np.quantile(spread, (0, 0.05, 0.5, 0.95, 1)).tolist(),
        dead_dimensions=int((spread <= DEAD_SPREAD_SHARE * spread.max()).sum()),
        non_finite=non_finite,
        median_pair_cosine=float(np.median(pairs)) if len(pairs) else 0.0,
        near_duplicates=float(is_near.mean()) if len(checked) else 0.0,
    )


def _sample(embedding: Any, rows: Int64, width: int) -> Float32:
    """Draw finite vectors at random, as units [n, D]."""
    # fewer of wide vectors, so that the sample fits into memory
    count = min(len(rows), PAIRED_VECTORS, max(MIN_VECTORS, VALUES_IN_MEMORY // width))
    drawn = np.random.default_rng(0).choice(rows, count, replace=False)
    # row by row: these rows lie far apart, and no others are read
    values = np.array([embedding[row] for row in drawn], np.float32)
    values = values.reshape(count, width)
    values = values[np.isfinite(values).all(1)]
    return _units(values, np.linalg.norm(values, axis=1))


def _blocks(embedding: Any, rows: Int64, width: int) -> Iterator[Array]:
    """Read rows in blocks [n, D], each with few enough values for a CPU's cache."""
    is_read = np.zeros(len(embedding), bool)
    is_read[rows] = True
    step = max(1, VALUES_IN_MEMORY // 16 // width)
    # contiguous slices, of which the requested rows are selected
    for start in range(0, len(embedding), step):
        values = np.asarray(embedding[start : start + step]).reshape(-1, width)
        yield values[is_read[start : start + step]]


def _units(values: Array, lengths: Array) -> Float32:
    return (values / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)
