"""Health of vectors: figures that agree with NumPy's own, and stores that fail for a
known reason.
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from brainhive_cli.data.stores import health
from brainhive_cli.data.stores.health import measure_health

GENERAL = (-1.0, 0.98)
Vectors = NDArray[np.float32]


@pytest.fixture
def vectors() -> Vectors:
    """400 sound vectors of 24 dimensions, with a spread of their own each."""
    random = np.random.default_rng(0)
    return (random.normal(size=(400, 24)) * np.linspace(0.5, 2, 24) + 0.3).astype(
        np.float32
    )


def problems(
    vectors: NDArray[Any], usual: tuple[float, float] = GENERAL, repeats: float = 0.5
) -> list[str]:
    return [
        what
        for what, _ in measure_health(vectors, np.arange(len(vectors))).list_problems(
            usual, repeats, 0.1
        )
    ]


def cosines(vectors: NDArray[Any]) -> NDArray[np.float64]:
    units = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray((units @ units.T)[np.triu_indices(len(units), 1)])


def test_the_figures_are_those_of_numpy(
    vectors: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure_health(vectors, np.arange(400))
    # blocks of 7 rows, which do not divide 400
    monkeypatch.setattr(health, "MAX_VALUES_IN_MEMORY", 16 * 24 * 7)

    found = measure_health(vectors, np.arange(400))

    spread = vectors.std(axis=0, dtype=np.float64)
    assert found.mean_norm == pytest.approx(
        np.linalg.norm(vectors, axis=1).mean(), rel=1e-6
    )
    assert found.spread == pytest.approx(
        np.quantile(spread, [0, 0.05, 0.5, 0.95, 1]), rel=1e-9
    )
    assert (
        found.vectors,
        found.dimensions,
        found.dead_dimensions,
        found.non_finite,
    ) == (400, 24, 0, 0)
    assert found.near_duplicates == 0 and problems(vectors) == []
    median = np.median(cosines(vectors))
    assert whole.median_pair_cosine == pytest.approx(median, abs=1e-6)
    # patch tokens are measured as vectors are
    assert measure_health(vectors.reshape(400, 6, 4), np.arange(400)) == found

    # of many vectors, only the pairs of a sample
    monkeypatch.setattr(health, "MAX_PAIRED_VECTORS", 100)
    sampled = measure_health(vectors, np.arange(400)).median_pair_cosine
    assert sampled == pytest.approx(median, abs=0.02)  # four standard errors


def test_a_collapsed_store_is_caught_and_a_good_one_is_not(vectors: Vectors) -> None:
    collapsed = vectors + 12
    assert np.median(cosines(collapsed)) == pytest.approx(0.99, abs=0.003)
    assert problems(vectors) == []
    (problem,) = problems(collapsed)
    assert problem.startswith(
        "the median cosine of random pairs is 0.9"
    ) and problem.endswith("collapsed")
    # an encoder may be known for a narrower range
    assert (
        problems(vectors + 2) == []
        and "usual is 0.7 at most" in problems(vectors + 2, (0.1, 0.7))[0]
    )
    assert (
        "usual is 0.1 at least"
        in problems(vectors - vectors.mean(axis=0), (0.1, 0.7))[0]
    )


def test_dimensions_that_never_change_are_counted(vectors: Vectors) -> None:
    vectors[:, [0, 7, 20]] = [0.0, 1.5, -1e-3]
    # rounding is no change
    vectors[::2, 7] = np.nextafter(np.float32(1.5), np.float32(2))
    assert measure_health(vectors, np.arange(400)).dead_dimensions == 3
    assert problems(vectors) == ["3 of 24 dimensions never change"]


def test_values_that_are_not_finite_are_all_counted_and_spoil_no_other_figure(
    vectors: Vectors,
) -> None:
    sound = measure_health(vectors, np.arange(10, 400))
    vectors[:10, :2] = [np.nan, np.inf]
    found = measure_health(vectors, np.arange(400))
    assert found.non_finite == 20 and found.vectors == 390
    assert [found.mean_norm, *found.spread] == pytest.approx(
        [sound.mean_norm, *sound.spread]
    )
    assert problems(vectors) == ["20 values are not finite"]


def test_near_duplicates_are_found_wherever_they_lie(vectors: Vectors) -> None:
    for copied in (0.3, 0.8):
        count, repeated = round(400 * copied / 2), vectors.copy()
        repeated[400 - count :] = vectors[:count] * 1.0001
        found = measure_health(repeated, np.arange(400))
        assert found.near_duplicates == pytest.approx(copied, abs=0.06)
        assert bool(problems(repeated)) == (copied > 0.5)
