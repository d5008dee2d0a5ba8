"""Health of vectors: figures that agree with NumPy, and problems of bad vectors."""

import numpy as np
import pytest

from brainhive_cli.data.stores import health
from brainhive_cli.data.stores.health import measure_health

USUAL_COSINE = (-1.0, 0.98)


@pytest.fixture
def vectors():
    """Draw 400 vectors of 24 dimensions, each with another spread."""
    noise = np.random.default_rng(0).normal(size=(400, 24))
    return (noise * np.linspace(0.5, 2, 24) + 0.3).astype(np.float32)


def list_problems(vectors, usual_cosine=USUAL_COSINE):
    health = measure_health(vectors, np.arange(len(vectors)))
    problems = health.list_problems(usual_cosine, usual_repeats=0.5, usual_dead=0.1)
    return [problem for problem, _ in problems]


def compute_cosines(vectors):
    units = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray((units @ units.T)[np.triu_indices(len(units), 1)])


def test_the_figures_are_those_of_numpy(vectors, monkeypatch):
    whole_health = measure_health(vectors, np.arange(400))
    # blocks of 7 rows, which do not divide 400
    monkeypatch.setattr(health, "MAX_VALUES_IN_MEMORY", 16 * 24 * 7)

    measured_health = measure_health(vectors, np.arange(400))

    spread = vectors.std(axis=0, dtype=np.float64)
    assert measured_health.mean_norm == pytest.approx(
        np.linalg.norm(vectors, axis=1).mean(), rel=1e-6
    )
    assert measured_health.spread == pytest.approx(
        np.quantile(spread, [0, 0.05, 0.5, 0.95, 1]), rel=1e-9
    )
    assert measured_health.vectors == 400
    assert measured_health.dimensions == 24
    assert (
        measured_health.dead_dimensions
        == measured_health.non_finite
        == measured_health.near_duplicates
        == 0
    )
    assert list_problems(vectors) == []
    median = np.median(compute_cosines(vectors))
    assert whole_health.median_pair_cosine == pytest.approx(median, abs=1e-6)
    # tokens are flattened to vectors
    assert measure_health(vectors.reshape(400, 6, 4), np.arange(400)) == measured_health

    # only pairs of a sample are compared
    monkeypatch.setattr(health, "MAX_PAIRED_VECTORS", 100)
    sampled = measure_health(vectors, np.arange(400)).median_pair_cosine
    assert sampled == pytest.approx(median, abs=0.02)  # four standard errors


def test_a_collapsed_store_is_caught_and_a_good_one_is_not(vectors):
    collapsed = vectors + 12
    assert np.median(compute_cosines(collapsed)) == pytest.approx(0.99, abs=0.003)
    assert list_problems(vectors) == []
    (problem,) = list_problems(collapsed)
    assert " 0.9" in problem
    assert "0.98" in problem
    assert "collapsed" in problem
    # an encoder may have a narrower usual range
    assert list_problems(vectors + 2) == []
    assert "0.7 at most" in list_problems(vectors + 2, (0.1, 0.7))[0]
    centred = vectors - vectors.mean(axis=0)
    assert "0.1 at least" in list_problems(centred, (0.1, 0.7))[0]


def test_dimensions_that_never_change_are_counted(vectors):
    vectors[:, [0, 7, 20]] = [0.0, 1.5, -1e-3]
    # rounding does not count as a change
    vectors[::2, 7] = np.nextafter(np.float32(1.5), np.float32(2))
    assert measure_health(vectors, np.arange(400)).dead_dimensions == 3
    (problem,) = list_problems(vectors)
    assert problem.startswith("3 of 24 dimensions")
