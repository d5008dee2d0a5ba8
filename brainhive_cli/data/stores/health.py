"""Health of the embeddings in a target store, measured when they are written."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.base import Array, Float32, Int64, Table
from brainhive_cli.data.files import hdf5

MAX_VALUES_IN_MEMORY = 2**24
"""Largest number of values in memory at a time: 64 MiB in float32."""
MAX_PAIRED_VECTORS = 1024
"""Largest number of random vectors all of whose pairs give the median cosine."""
MAX_CHECKED_VECTORS = 256
"""Largest number of random vectors whose near-duplicates are counted. The share is then
known within 6 %.
"""
MIN_VECTORS = 16
"""Smallest number of vectors that say something about an encoder. Fewer vectors may be
alike by chance.
"""
HEALTH_COLUMNS = (
    "store",
    "vectors",
    "norm",
    "spread",
    "dead",
    "NaN",
    "similarity of pairs",
    "near-copies",
    "check",
)
"""Columns of the table of health figures."""
PASSED = "passed"
FAILED = "failed"


@dataclass(frozen=True)
class Health:
    """Health figures of a store. Targets of any shape are flattened to vectors.

    Attributes:
        vectors: Number of vectors with finite values only. All further figures but
            `non_finite` describe these vectors.
        dimensions: Number of values of a vector.
        mean_norm: Mean norm of the vectors.
        spread: Minimum, 5 %, median, 95 % and maximum over dimensions of the standard
            deviation over vectors.
        dead_dimensions: Number of dimensions that are constant.
        non_finite: Number of values that are NaN or infinite.
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
        """List the problems with their likely causes, the most severe first.

        Args:
            usual_cosine: Smallest and largest usual median pair cosine of the encoder.
            usual_repeats: Largest usual share of near-duplicates.
            usual_dead: Largest usual share of dead dimensions.
        """
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

        low, high = usual_cosine
        cosine = f"the median cosine of random pairs is {self.median_pair_cosine:.4f}"
        checks = [
            (
                self.median_pair_cosine > high,
                f"{cosine}, usual is {high:g} at most: collapsed",
                "weights that did not load, or pictures that all reached the encoder "
                "alike",
            ),
            (
                self.median_pair_cosine < low,
                f"{cosine}, usual is {low:g} at least",
                "vectors that were centred or whitened, or are another encoder's",
            ),
            (
                self.dead_dimensions > usual_dead * self.dimensions,
                f"{self.dead_dimensions} of {self.dimensions} dimensions never change",
                "few or very similar pictures, weights that did not load, or vectors "
                "padded with zeros",
            ),
            (
                self.near_duplicates > usual_repeats,
                f"{self.near_duplicates:.0%} of the vectors have a near-duplicate",
                "one picture under many ids, or rows that were never filled",
            ),
        ]
        for is_problem, problem, cause in checks:
            if is_problem:
                problems.append((problem, cause))
        return problems


def make_health_row(
    path: Path, health: Health, has_failed: bool, are_annotations: bool = False
) -> tuple[object, ...]:
    """Make the row of a store under `HEALTH_COLUMNS`, with rounded figures.

    Args:
        path: Path of the store.
        health: Health figures.
        has_failed: True if the store has a problem.
        are_annotations: True for annotations such as labels of 0 and 1. Only their
            number and the number of values that are not finite are shown.
    """
    name = hdf5.shorten_store_path(path)
    check = FAILED if has_failed else PASSED
    n_vectors = health.vectors
    if are_annotations:
        return name, n_vectors, "–", "–", "–", health.non_finite, "–", "–", check
    return (
        name,
        n_vectors,
        float(f"{health.mean_norm:.3g}"),
        float(f"{health.spread[2]:.3g}"),
        health.dead_dimensions,
        health.non_finite,
        round(health.median_pair_cosine, 3),
        round(health.near_duplicates, 3),
        check,
    )


def make_health_table(rows: Iterable[tuple[object, ...]]) -> Table:
    """Make the table of rows from `make_health_row`."""
    return Table("Health of embeddings", HEALTH_COLUMNS, tuple(rows))


def measure_health(embedding: Any, rows: Int64) -> Health:
    """Measure the health of vectors in one pass, block by block.

    Args:
        embedding: Array or HDF5 dataset [N, …]. The further axes are flattened to D.
        rows: Rows to measure.
    """
    width = prod(embedding.shape[1:])
    sample = _draw_unit_vectors(embedding, rows, width)  # [n, D]
    checked = sample[:MAX_CHECKED_VECTORS]

    # sums over all vectors, in float64
    n_vectors = 0
    n_non_finite = 0
    n_zero_vectors = 0
    norm_sum = 0.0
    origin = np.zeros(width)
    value_sums = np.zeros(width)
    square_sums = np.zeros(width)
    n_near = np.zeros(len(checked), np.int64)
    for block in _read_blocks(embedding, rows, width):  # [n, D]
        is_finite = np.isfinite(block)
        n_non_finite += is_finite.size - int(np.count_nonzero(is_finite))
        values = block[is_finite.all(1)].astype(np.float64)
        if n_vectors == 0 and len(values):
            # differences from a vector keep more digits in sums
            origin = values[0].copy()
        norms = np.sqrt(np.einsum("nd,nd->n", values, values))
        cosines = _normalise_vectors(values, norms) @ checked.T
        # Cosine above which two vectors are near-duplicates, such as a picture decoded
        # twice. Different pictures reach 0.999 in small networks.
        n_near += (cosines > 0.99999).sum(0)
        values -= origin
        value_sums += values.sum(0)
        square_sums += np.einsum("nd,nd->d", values, values)
        n_vectors += len(values)
        norm_sum += norms.sum()
        n_zero_vectors += (norms == 0).sum()

    # standard deviation [D] of each dimension, and cosine of each pair
    count = max(n_vectors, 1)
    variances = square_sums / count - (value_sums / count) ** 2
    spread = np.sqrt(np.maximum(variances, 0))
    pair_cosines = (sample @ sample.T)[np.triu_indices(len(sample), 1)]
    # every vector is near itself, except a vector of zeros
    is_zero = ~checked.any(1)
    has_duplicate = (n_near > 1) | (is_zero & (n_zero_vectors > 1))
    # Largest spread of a dead dimension, as a share of the largest spread. Float32
    # rounds as much.
    return Health(
        vectors=n_vectors,
        dimensions=width,
        mean_norm=float(norm_sum / count),
        spread=np.quantile(spread, (0, 0.05, 0.5, 0.95, 1)).tolist(),
        dead_dimensions=int((spread <= 1e-6 * spread.max()).sum()),
        non_finite=n_non_finite,
        median_pair_cosine=float(np.median(pair_cosines)) if len(pair_cosines) else 0.0,
        near_duplicates=float(has_duplicate.mean()) if len(checked) else 0.0,
    )


def _draw_unit_vectors(embedding: Any, rows: Int64, width: int) -> Float32:
    """Draw random finite vectors [n, D] of length 1. Fewer if D is large."""
    max_vectors = max(MIN_VECTORS, MAX_VALUES_IN_MEMORY // width)
    count = min(len(rows), MAX_PAIRED_VECTORS, max_vectors)
    sample_rows = np.random.default_rng(0).choice(rows, count, replace=False)
    # distant rows are read one by one
    values = np.array([embedding[row] for row in sample_rows], np.float32)
    values = values.reshape(count, width)
    values = values[np.isfinite(values).all(1)]
    return _normalise_vectors(values, np.linalg.norm(values, axis=1))


def _read_blocks(embedding: Any, rows: Int64, width: int) -> Iterator[Array]:
    """Read rows in blocks [n, D] that fit into the cache of a CPU."""
    is_requested = np.zeros(len(embedding), bool)
    is_requested[rows] = True
    step = max(1, MAX_VALUES_IN_MEMORY // 16 // width)
    # contiguous slices are read fast, also if some rows are not requested
    for start in range(0, len(embedding), step):
        values = np.asarray(embedding[start : start + step]).reshape(-1, width)
        yield values[is_requested[start : start + step]]


def _normalise_vectors(values: Array, norms: Array) -> Float32:
    """Scale vectors [n, D] of these norms [n] to length 1. Zeros stay."""
    divisors = np.where(norms > 0, norms, 1)
    return (values / divisors[:, None]).astype(np.float32)
