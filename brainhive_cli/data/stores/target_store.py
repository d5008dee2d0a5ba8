"""Target store: the output of one encoder for the stimuli of a split."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from brainhive_cli.core import documents
from brainhive_cli.core.arrays import Bool, Int64, UInt64
from brainhive_cli.core.errors import (
    BrainhiveError,
    Hint,
    Line,
    MissingData,
)
from brainhive_cli.core.files import expand_pattern, resolve_below
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.files.ids import Names, match_ids
from brainhive_cli.data.stores.health import Health, measure_health
from brainhive_cli.models.encoders import IMPORTED, describe_bad_own_name

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 4
PIXELS_DATASET = "pixels"
"""The dataset of what the stimuli's pixels are known by, in stores whose making decoded
them.
"""
PIXEL_HASH_WORDS = 25
"""64-bit words that a stimulus is known by: a digest of its pixels, and 24 of a
perceptual hash.
"""
MAX_EQUAL_DISTANCE = 0.0003
"""Distance of unit embeddings below which two are one: one picture in two batches, of
which float16 keeps some numbers with another last digit.
"""
N_DIRECTIONS = 16
"""Random directions in which embeddings are compared."""
ROWS_PER_BLOCK = 1024
"""Rows that are looked through at a time."""
VALUES_PER_BLOCK = 2**24
"""Numbers of embeddings that are compared at a time."""
VIEW_NAME = re.compile(
    r"(?P<encoder>.+)-view-(?P<index>\d{1,6})(?P<digest>-[0-9a-f]{8})?"
)
"""The name of an encoder of one frame or caption; with `-all` instead of the view, that
of all of them.
"""


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
    has_own_vectors: bool
    command_line: Line

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a finished store.

        Raises:
            MissingData: if it is absent or not finished.
            BrainhiveError: if the file is corrupt or of another format.
        """
        with hdf5.open_file(path, build_command_line(path)) as file:
            # attributes of the right format
            attributes = hdf5.get_attributes(file)
            if attributes.get("format") != FORMAT or "embedding" not in file:
                raise BrainhiveError(
                    f"{path} is not a target store of format {FORMAT}",
                    f"{build_command_line(path)} --again",
                )

            # rows stay on disk; names and marks are read
            embedding = hdf5.open_rows(file, "embedding", build_command_line(path))
            done = hdf5.read_flags(file, "done")
            pixels = (
                np.array(hdf5.map_numbers(file, PIXELS_DATASET, "u"))
                if PIXELS_DATASET in file
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
                done = done & find_finite_rows(embedding)

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
                build_command_line(path, is_own),
            )

    def select_view(self, encoder: str, index: int | None) -> Self:
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
        with hdf5.open_file(self.path, self.command_line) as file:
            hdf5.verify_rows(file, self.command_line)

    @property
    def digest(self) -> str:
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
            f"{self.command_line} --again",
        )

    def remeasure_health(self) -> Health:
        """Measure the health again, also of embeddings that are not finite."""
        with hdf5.open_file(self.path, self.command_line) as file:
            return measure_health(
                self.embedding, np.flatnonzero(hdf5.read_flags(file, "done"))
            )

    def require_pictures(self, image_ids: Sequence[str], line: Hint) -> None:
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

    def find_rows(self, image_ids: Sequence[str]) -> Int64:
        """Find the rows of image ids; -1 for a picture that was skipped as bad when
        embedding.
        """
        rows = match_ids(image_ids, self.image_ids, str(self.path))
        return np.where(self.done[rows], rows, -1)


def find_finite_rows(embedding: Any) -> Bool:
    """Find the rows [N] of embeddings [N, …] whose values are all finite, some at a
    time.
    """
    starts = range(0, len(embedding), ROWS_PER_BLOCK)
    blocks = (
        np.isfinite(embedding[start : start + ROWS_PER_BLOCK]) for start in starts
    )
    is_finite = [block.reshape(len(block), -1).all(1) for block in blocks]
    # a store without rows has no blocks
    return np.concatenate([np.ones(0, bool), *is_finite])


def find_equal_embeddings(stores: Iterable[TargetStore], is_candidate: Bool) -> Bool:
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
        directions = np.random.default_rng(0).standard_normal((width, N_DIRECTIONS))
        parts = []
        for block in np.array_split(rows, 1 + len(rows) * width // VALUES_PER_BLOCK):
            flat = store.embedding[block].reshape(len(block), -1).astype(np.float64)
            lengths = np.linalg.norm(flat, axis=1, keepdims=True)
            parts.append(flat / np.maximum(lengths, 1e-30) @ directions)
        projections.append(np.concatenate(parts) / N_DIRECTIONS**0.5)
    points = np.hstack(projections)
    distances, _ = KDTree(points).query(points, k=2)  # the first is the point itself
    is_twin[rows] = distances[:, 1] < MAX_EQUAL_DISTANCE
    return is_twin


def build_store_path(embeddings: Path, dataset: str, split: str, encoder: str) -> Path:
    """Say where the store of (data set, split, encoder) lies."""
    source = "the data set, split or encoder of a store,"
    return resolve_below(embeddings, dataset, split, f"{encoder}.h5", source=source)


def find_store(
    embeddings: Path, dataset: str, split: str, encoder: str
) -> tuple[Path, int | None]:
    """Find the store of an encoder: its own, or for one view that of all, and the index
    of the view in it.

    Returns:
        The path, that of its own store where neither is there; and the index of the
        view.
    """
    path = build_store_path(embeddings, dataset, split, encoder)
    # without its own store, one view is read from the store of all views
    if not path.is_file() and (view := VIEW_NAME.fullmatch(encoder)):
        combined = build_store_path(
            embeddings, dataset, split, f"{view['encoder']}-all{view['digest'] or ''}"
        )
        if combined.is_file():
            return combined, int(view["index"])
    return path, None


def build_command_line(path: Path, is_own: bool = False) -> Line:
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
        return TargetStore.open(path).has_own_vectors
    return False


def find_own_vectors(embeddings: Path, name: str) -> Path | None:
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


def has_unknown_pictures(stores: Iterable[TargetStore]) -> bool:
    """Whether some targets are of unknown pictures: vectors that were imported without
    the pictures that they are named after, or made of other pictures.
    """
    return any(
        ("imported" in store.attributes and store.pixels is None)
        or store.attributes["config"].get("pictures")
        for store in stores
    )


def open_stores(
    embeddings: Path, dataset: str, split: str, encoders: Sequence[str]
) -> dict[str, TargetStore]:
    """Open one store an encoder.

    Raises:
        MissingData: naming every store that is missing, with the line that makes them.
    """
    # all missing stores in one error: own vectors are imported, others embedded
    paths = {name: find_store(embeddings, dataset, split, name) for name in encoders}
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
    return {
        name: stores[path].select_view(name, view)
        for name, (path, view) in paths.items()
    }


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
