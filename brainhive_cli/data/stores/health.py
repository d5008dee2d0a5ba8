"""Health of the embeddings in a target store, measured while they are written."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainhive_cli.core.arrays import Array, Float32, Int64
from brainhive_cli.core.tables import Table
from brainhive_cli.data.files import hdf5

if TYPE_CHECKING:
    pass


MAX_VALUES_IN_MEMORY = 2**24
"""Values in memory at a time, 64 MiB in float32, however wide the vectors."""

MAX_PAIRED_VECTORS = 1024
"""Vectors, drawn with a seed, all of whose pairs give the median cosine."""

MAX_CHECKED_VECTORS = 256
"""Of these, vectors whose near-duplicates are counted among all: the share is known
within 6 %.
"""

MIN_DUPLICATE_COSINE = 0.99999
"""A cosine above this: a near-duplicate, as of one picture decoded twice; small
networks reach 0.999.
"""

MAX_DEAD_SPREAD_SHARE = 1e-6
"""A dimension that spreads less than this share of the widest is dead: float32 rounds
as much.
"""

MIN_VECTORS = 16
"""Fewer vectors than this may well be alike, and say nothing about an encoder."""

HEALTH_COLUMNS = tuple("store vectors norm spread dead NaN cosine near check".split())
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

    def list_problems(
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


def make_health_row(
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


def make_health_table(rows: Iterable[tuple[object, ...]]) -> Table:
    """Make the table of rows that `health_row` wrote."""
    return Table("Health of embeddings", HEALTH_COLUMNS, tuple(rows))


def measure_health(embedding: Any, rows: Int64) -> Health:
    """Describe vectors in one pass, reading slices, so that memory stays bounded.

    Args:
        embedding: [N, …], an array or HDF5 dataset; trailing axes are flattened.
        rows: The rows to measure.
    """
    # a random sample [n, D], all pairs of which are compared
    width = prod(embedding.shape[1:])
    sample = _draw_unit_vectors(embedding, rows, width)
    checked = sample[:MAX_CHECKED_VECTORS]

    # sums over all vectors, in float64
    vectors, non_finite, zeros, norms = 0, 0, 0, 0.0
    origin, total, squares = np.zeros(width), np.zeros(width), np.zeros(width)
    near = np.zeros(len(checked), np.int64)
    for values in _read_blocks(embedding, rows, width):  # [n, D]
        finite = np.isfinite(values)
        non_finite += finite.size - int(np.count_nonzero(finite))
        values = values[finite.all(1)].astype(np.float64)
        if not vectors and len(values):
            origin = values[0].copy()  # sums of what is left of it lose no digits
        lengths = np.sqrt(np.einsum("nd,nd->n", values, values))
        # duplicates of the checked vectors among the vectors of this block
        near += (
            (_normalise_vectors(values, lengths) @ checked.T) > MIN_DUPLICATE_COSINE
        ).sum(0)
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
        dead_dimensions=int((spread <= MAX_DEAD_SPREAD_SHARE * spread.max()).sum()),
        non_finite=non_finite,
        median_pair_cosine=float(np.median(pairs)) if len(pairs) else 0.0,
        near_duplicates=float(is_near.mean()) if len(checked) else 0.0,
    )


def _draw_unit_vectors(embedding: Any, rows: Int64, width: int) -> Float32:
    """Draw finite vectors at random, as units [n, D]."""
    # fewer of wide vectors, so that the sample fits into memory
    count = min(
        len(rows), MAX_PAIRED_VECTORS, max(MIN_VECTORS, MAX_VALUES_IN_MEMORY // width)
    )
    drawn = np.random.default_rng(0).choice(rows, count, replace=False)
    # row by row: these rows lie far apart, and no others are read
    values = np.array([embedding[row] for row in drawn], np.float32)
    values = values.reshape(count, width)
    values = values[np.isfinite(values).all(1)]
    return _normalise_vectors(values, np.linalg.norm(values, axis=1))


def _read_blocks(embedding: Any, rows: Int64, width: int) -> Iterator[Array]:
    """Read rows in blocks [n, D], each with few enough values for a CPU's cache."""
    is_read = np.zeros(len(embedding), bool)
    is_read[rows] = True
    step = max(1, MAX_VALUES_IN_MEMORY // 16 // width)
    # contiguous slices, of which the requested rows are selected
    for start in range(0, len(embedding), step):
        values = np.asarray(embedding[start : start + step]).reshape(-1, width)
        yield values[is_read[start : start + step]]


def _normalise_vectors(values: Array, lengths: Array) -> Float32:
    return (values / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)
