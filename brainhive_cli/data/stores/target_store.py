"""Target store: HDF5 file with the output of an encoder for the stimuli of a split."""

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

from brainhive_cli.core.base import (
    Bool,
    BrainhiveError,
    Hint,
    Int64,
    Line,
    MissingData,
    UInt64,
)
from brainhive_cli.core.files import documents, expand_pattern, resolve_below
from brainhive_cli.core.recipes import Paths
from brainhive_cli.data.files import Names, hdf5, match_ids
from brainhive_cli.data.stores.health import Health, measure_health
from brainhive_cli.models.encoders import IMPORTED, describe_bad_own_name

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 4
"""Version of the format, as stored in the attributes."""
PIXELS_DATASET = "pixels"
"""Dataset with the digest and the perceptual hash of each stimulus, if the stimuli were
decoded.
"""
PIXEL_HASH_WORDS = 25
"""64-bit words per stimulus: a digest of its pixels, and 24 of a perceptual hash."""
MAX_EQUAL_DISTANCE = 0.0003
"""Distance of unit embeddings below which they count as equal. Float16 rounds the
embedding of a picture differently in two batches.
"""
VALUES_PER_BLOCK = 2**24
"""Values of embeddings that are projected at a time."""


@dataclass(frozen=True)
class TargetStore:
    """A finished target store, mapped into memory.

    Attributes:
        path: Path of the file.
        embedding: Embeddings [N, *shape] or [N, K, *shape], such as vectors [N, D],
            tokens [N, S, D] or latents [N, C, h, w]. A row is verified when it is first
            read.
        image_ids: Stimulus ids [N].
        concepts: Concepts [N].
        done: True [N] if the stimulus could be decoded and its embedding is finite.
        pixels: Digests of the pixels and perceptual hashes [N, 25]. None if no pixels
            were decoded, as for imported vectors and captions.
        attributes: Encoder, config, weights, preprocessing, data set, split, digest of
            the stimulus ids (`pictures`), versions and health.
        shape: Shape of a target.
        alternatives: Number K of alternative targets of a stimulus, such as five
            captions. None without that axis.
        has_own_vectors: True if the vectors were imported under the user's own name.
        command_line: Command line that makes the store.
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
        """Open a finished store. The embeddings stay on disk.

        Raises:
            MissingData: if the file is missing or not finished.
            BrainhiveError: if the file is damaged or has another format.
        """
        command_line = build_command_line(path)
        with hdf5.open_file(path, command_line) as file:
            stored_attributes = hdf5.get_attributes(file)
            has_format = stored_attributes.get("format") == FORMAT
            if not has_format or "embedding" not in file:
                raise BrainhiveError(
                    f"{path} is not a target store of format {FORMAT}",
                    f"{command_line} --again",
                )
            embedding = hdf5.open_rows(file, "embedding", command_line)
            done = hdf5.read_flags(file, "done")
            image_ids = Names(hdf5.read_strings(file, "image_id"))
            if len(image_ids) != embedding.shape[0]:
                raise ValueError(
                    f"{embedding.shape[0]} embeddings for {len(image_ids)} pictures"
                )
            pixels = None
            if PIXELS_DATASET in file:
                pixels = np.array(hdf5.map_numbers(file, PIXELS_DATASET, "u"))

            # defaults from the path, for stores that other programs made
            attributes: dict[str, Any] = {
                "encoder": path.stem,
                "split": path.parent.name,
                "dataset": path.parent.parent.name,
                "config": {},
                "weights": {},
                "skipped": int((~done).sum()),
            }
            attributes.update(stored_attributes)

            # a stimulus without a finite embedding counts as not embedded
            health = attributes.get("health")
            if isinstance(health, Mapping) and health.get("non_finite"):
                done = done & find_finite_rows(embedding)

            alternatives = attributes.get("alternatives")
            n_outer_axes = 1 if alternatives is None else 2
            has_own_vectors = attributes["config"].get("kind") == IMPORTED
            return cls(
                path=path,
                embedding=embedding,
                image_ids=image_ids,
                concepts=Names(hdf5.read_strings(file, "concept")),
                done=done,
                pixels=pixels,
                attributes=attributes,
                shape=embedding.shape[n_outer_axes:],
                alternatives=alternatives,
                has_own_vectors=has_own_vectors,
                command_line=build_command_line(path, has_own_vectors),
            )

    def __repr__(self) -> str:
        """Return the path and the size, without the embeddings."""
        size = f"{len(self.image_ids):,} pictures, embedding {list(self.shape)}"
        return f"<TargetStore {self.path}: {size}>"

    def select_view(self, encoder: str, index: int | None) -> Self:
        """Select a view of a store whose targets [F, …] have F views.

        Args:
            encoder: Encoder of that view alone.
            index: Index of the view, or None for the whole store.

        Returns:
            The store, as if `encoder` had made it.

        Raises:
            BrainhiveError: if there is no view with this index.
        """
        if index is None:
            return self
        n_views = self.shape[0]
        if index >= n_views:
            raise BrainhiveError(
                f"{self.path} has {n_views} views, and no view {index}",
                f"use a view from 0 to {n_views - 1}",
            )
        config = {**self.attributes["config"], "views": index}
        return replace(
            self,
            embedding=self.embedding.select_column(index),
            attributes={**self.attributes, "encoder": encoder, "config": config},
            shape=self.shape[1:],
        )

    def verify(self) -> None:
        """Verify the checksums of all rows. This reads the whole store.

        Raises:
            BrainhiveError: if a checksum does not match.
        """
        with hdf5.open_file(self.path, self.command_line) as file:
            hdf5.verify_rows(file, self.command_line)

    @property
    def digest(self) -> str:
        """Digest of the checksums of all rows, 16 hexadecimal digits."""
        checksums = np.asarray(self.embedding.checksums, np.uint64)
        return hashlib.sha256(checksums.tobytes()).hexdigest()[:16]

    @cached_property
    def health(self) -> Health:
        """Health figures, as stored.

        Raises:
            BrainhiveError: if they are missing or have another format.
        """
        return documents.check(
            self.attributes.get("health"),
            f"{self.path}: attribute: health",
            Health,
            f"{self.command_line} --again",
        )

    def remeasure_health(self) -> Health:
        """Measure the health of all embeddings again, finite or not."""
        with hdf5.open_file(self.path, self.command_line) as file:
            is_decoded = hdf5.read_flags(file, "done")
            return measure_health(self.embedding, np.flatnonzero(is_decoded))

    def require_pictures(self, image_ids: Sequence[str], line: Hint) -> None:
        """Raise an error unless the store has exactly these stimuli in this order.

        Args:
            image_ids: Stimulus ids of the data set and split.
            line: Command line that makes the store.

        Raises:
            BrainhiveError: if stimuli were added, removed or reordered.
        """
        if self.image_ids == image_ids:
            return
        stored_ids = set(self.image_ids)
        current_ids = set(image_ids)
        n_added = len(current_ids - stored_ids)
        n_removed = len(stored_ids - current_ids)
        changes = "the order differs"
        if n_added or n_removed:
            changes = f"{n_added} added, {n_removed} removed"
        split = f"{self.attributes['dataset']}/{self.attributes['split']}"
        raise BrainhiveError(
            f"{self.path} does not match the pictures that {split} has now: {changes}",
            f"{line} --again",
        )

    def read_flat(self, rows: Int64) -> "Tensor":
        """Read rows of the embeddings or first alternatives, flattened [n, F]."""
        import torch

        embedding = self.embedding
        if self.alternatives is not None:
            embedding = embedding.select_column(0)
        values = np.asarray(embedding[rows], np.float32)
        return torch.from_numpy(values.reshape(len(rows), -1))

    def find_rows(self, image_ids: Sequence[str]) -> Int64:
        """Find the rows [n] of stimuli. -1 for a stimulus without an embedding."""
        rows = match_ids(image_ids, self.image_ids, str(self.path))
        return np.where(self.done[rows], rows, -1)


def build_store_path(embeddings: Path, dataset: str, split: str, encoder: str) -> Path:
    """Build the path of a store, `embeddings/DATASET/SPLIT/ENCODER.h5`."""
    source = "the data set, split or encoder of a store,"
    return resolve_below(embeddings, dataset, split, f"{encoder}.h5", source=source)


def find_store(
    embeddings: Path, dataset: str, split: str, encoder: str
) -> tuple[Path, int | None]:
    """Find the store of an encoder. A view may be in the store of all views.

    Returns:
        Path of the encoder's own store, and None. If only the store of all views is
        there, its path and the index of the view.
    """
    path = build_store_path(embeddings, dataset, split, encoder)
    # Name of an encoder of a single view (frame or caption), such as `vae-view-2`. The
    # encoder of all views has `-all` in place of `-view-2`.
    view = re.fullmatch(
        r"(?P<encoder>.+)-view-(?P<index>\d{1,6})(?P<digest>-[0-9a-f]{8})?", encoder
    )
    if view is not None and not path.is_file():
        all_views = f"{view['encoder']}-all{view['digest'] or ''}"
        combined = build_store_path(embeddings, dataset, split, all_views)
        if combined.is_file():
            return combined, int(view["index"])
    return path, None


def find_own_vectors(embeddings: Path, name: str) -> Path | None:
    """Find a store of own vectors by name, in any data set and split."""
    # own vectors never have the name of a shipped encoder
    if describe_bad_own_name(name):
        return None
    for path in embeddings.glob(f"*/*/{name}.h5"):
        if holds_own_vectors(path):
            return path
    return None


def list_stores(names: Iterable[str] | None, paths: Paths) -> list[Path]:
    """List the stores of files, folders and patterns, including subfolders.

    Args:
        names: Files, folders and patterns, or None for all stores of `paths`.
        paths: Folders of the project.

    Raises:
        MissingData: if there is no store.
    """
    if names is None:
        folders = [paths.under_home("embeddings")]
    else:
        folders = expand_patterns(names)
    stores: list[Path] = []
    for folder in folders:
        if folder.is_file():
            stores.append(folder)
        else:
            # macOS adds hidden files ._NAME.h5 on foreign disks
            stores.extend(sorted(folder.rglob("[!.]*.h5")))
    if not stores:
        searched = ", ".join(map(str, folders))
        raise MissingData(
            f"no embedding store in {searched}",
            f"{Line('embed')}, or import-embeddings",
        )
    return list(dict.fromkeys(stores))


def expand_patterns(names: Iterable[str]) -> list[Path]:
    """List the files and folders of names and patterns of a command line, each once.

    Raises:
        MissingData: if a name or pattern has no file.
    """
    # a dict keeps the order
    expanded: dict[Path, None] = {}
    for name in names:
        paths = expand_pattern(os.path.expanduser(name))
        if not paths:
            raise MissingData(f"no file, folder or pattern {name}", "check the name")
        expanded.update(dict.fromkeys(paths))
    return list(expanded)


def open_stores(
    embeddings: Path, dataset: str, split: str, encoders: Sequence[str]
) -> dict[str, TargetStore]:
    """Open the store of each encoder.

    Raises:
        MissingData: if stores are missing. The error names all of them.
    """
    locations = {
        name: find_store(embeddings, dataset, split, name) for name in encoders
    }
    absent = [name for name, (path, _) in locations.items() if not path.is_file()]
    if absent:
        raise MissingData(
            f"no {split} embeddings of {', '.join(absent)} for {dataset} in "
            f"{embeddings}",
            _build_missing_commands(absent, dataset),
        )

    # several encoders may be views of a store
    opened = {}
    for path, _ in locations.values():
        if path not in opened:
            opened[path] = _open_once(path, hdf5.get_file_state(path))
    return {
        name: opened[path].select_view(name, view)
        for name, (path, view) in locations.items()
    }


def _build_missing_commands(encoders: Sequence[str], dataset: str) -> str:
    """Build the command lines that make missing stores."""
    shipped = []
    lines = []
    for name in encoders:
        # own vectors never have the name of a shipped encoder
        if describe_bad_own_name(name):
            shipped.append(name)
        else:
            line = Line("import-embeddings", "FILE", ("as", name), ("dataset", dataset))
            lines.append(line)
    if shipped:
        lines.insert(0, Line("embed", ("encoders", shipped), ("dataset", dataset)))
    return " && ".join(map(str, lines))


@lru_cache(maxsize=256)
def _open_once(path: Path, state: tuple[int, ...]) -> TargetStore:
    """Open a store, or return it from the cache if its file has not changed.

    Args:
        path: Path of the store.
        state: State of the file, see `hdf5.get_file_state`.
    """
    return TargetStore.open(path)


def build_command_line(path: Path, has_own_vectors: bool = False) -> Line:
    """Build the command line that makes a store.

    Args:
        path: Path of the store, `DATASET/SPLIT/ENCODER.h5`.
        has_own_vectors: True if the store is made by an import.
    """
    dataset = ("dataset", path.parents[1].name)
    split = f"splits={path.parent.name}"
    if has_own_vectors:
        return Line("import-embeddings", "FILE", dataset, ("as", path.stem), split)
    return Line("embed", dataset, ("encoders", [path.stem]), split)


def holds_own_vectors(path: Path) -> bool:
    """Return True if a store has own vectors. False if it cannot be opened."""
    with suppress(BrainhiveError):
        return TargetStore.open(path).has_own_vectors
    return False


def has_unknown_pictures(stores: Iterable[TargetStore]) -> bool:
    """Return True if a store may be of other pictures than its stimulus ids say.

    Its vectors were imported without the pictures, or made of other pictures.
    """
    for store in stores:
        is_imported = "imported" in store.attributes
        if is_imported and store.pixels is None:
            return True
        if store.attributes["config"].get("pictures"):
            return True
    return False


def get_stimuli_and_pixels(
    stores: Mapping[str, TargetStore],
) -> tuple[TargetStore, UInt64 | None]:
    """Return the first of several stores of the same stimuli, and the pixel hashes.

    Returns:
        The store, and the first `pixels` [N, 25] that a store has, or None.
    """
    first_store = next(iter(stores.values()))
    for store in stores.values():
        if store.pixels is not None:
            return first_store, store.pixels
    return first_store, None


def find_finite_rows(embedding: Any) -> Bool:
    """Find the rows [N] of embeddings [N, …] whose values are all finite."""
    is_finite = np.ones(len(embedding), bool)
    # Rows that are checked for finite values at a time.
    rows_per_block = 1024
    for start in range(0, len(embedding), rows_per_block):
        block = np.isfinite(embedding[start : start + rows_per_block])
        is_finite[start : start + len(block)] = block.reshape(len(block), -1).all(1)
    return is_finite


def find_equal_embeddings(stores: Iterable[TargetStore], is_candidate: Bool) -> Bool:
    """Find candidates with the same embeddings as another candidate, in every store.

    Embeddings are equal up to `MAX_EQUAL_DISTANCE`, after projection onto a few random
    directions, which keeps distances.

    Args:
        stores: Stores of the same stimuli.
        is_candidate: True [M] for the candidates.
    """
    from scipy.spatial import KDTree

    rows = np.flatnonzero(is_candidate)
    has_equal = np.zeros(len(is_candidate), bool)
    if len(rows) < 2:
        return has_equal

    projections = []
    # Number of random directions in which embeddings are compared.
    n_directions = 16
    for store in stores:
        width = prod(store.embedding.shape[1:])
        directions = np.random.default_rng(0).standard_normal((width, n_directions))
        n_blocks = 1 + len(rows) * width // VALUES_PER_BLOCK
        blocks = []
        for block_rows in np.array_split(rows, n_blocks):
            values = store.embedding[block_rows].reshape(len(block_rows), -1)
            values = values.astype(np.float64)
            lengths = np.linalg.norm(values, axis=1, keepdims=True)
            blocks.append(values / np.maximum(lengths, 1e-30) @ directions)
        projections.append(np.concatenate(blocks) / n_directions**0.5)
    points = np.hstack(projections)

    # the nearest point is the point itself
    distances, _ = KDTree(points).query(points, k=2)
    has_equal[rows] = distances[:, 1] < MAX_EQUAL_DISTANCE
    return has_equal
