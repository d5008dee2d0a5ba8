"""Representational similarity: golden values, ceilings and error rates."""

import numpy as np
import pytest
from scipy.signal import lfilter

from brainhive_cli.evaluation.explanation.profiles import (
    TIME,
    Axis,
    correct_p_values,
    standardise,
)
from brainhive_cli.evaluation.explanation.similarity import (
    compute_distances,
    estimate_ceiling_from_halves,
    measure_similarity,
    rank_distances,
    rank_models,
)
from brainhive_cli.measurement.units import Items, StimulusGrouping


def measure(places, models, *arguments, **options):
    """Measure shares [S, M, T, N] and null [M, K, T] by metric, and ceilings."""
    places = list(places)
    axis = Axis(TIME, range(len(places)))
    measured, ceilings = measure_similarity(axis, places, models, *arguments, **options)
    metrics = ("rho", "unique_rho")[: len(measured[0].profiles) // len(models)]
    named = [
        [f"similarity · {model}:{metric}" for model in models] for metric in metrics
    ]
    shares = [
        np.array([[part.profiles[name].values for name in names] for part in measured])
        for names in named
    ]
    null = [
        np.array([measured[0].profiles[name].null for name in names]) for names in named
    ]
    return (
        dict(zip(metrics, shares, strict=True)),
        dict(zip(metrics, null, strict=True)),
        ceilings,
    )


@pytest.fixture(scope="module")
def values(golden):
    """Five subjects, 16 pictures and two models, by SciPy and rsatoolbox 0.3.2."""
    return np.load(golden / "prepare/explain.npz")


@pytest.fixture(scope="module")
def measured(values):
    signal = values["signal"].astype(float).mean(2)  # [S, N, C, T]
    models = rank_models({name: values[name] for name in ("early", "late")})
    signals = (list(signal[..., time]) for time in range(signal.shape[-1]))
    return measure(signals, models, Items.from_sizes([signal.shape[1]]), draws=200)


def test_distances_are_those_of_the_reference(values):
    signal = values["signal"].astype(float).mean(2)
    distances = [
        [compute_distances(each[..., time]) for time in range(signal.shape[-1])]
        for each in signal
    ]
    np.testing.assert_allclose(
        distances, values["rdm"], atol=2e-7
    )  # its means are float32
    models = [compute_distances(values[name]) for name in ("early", "late")]
    np.testing.assert_allclose(models, values["model_rdm"], atol=1e-12)


def test_correlations_and_ceilings_are_those_of_the_reference(measured, values):
    for found, expected in (("rho", "rsa_spearman"), ("unique_rho", "rsa_partial")):
        np.testing.assert_allclose(
            measured[0][found].mean(-1), values[expected], atol=1e-12
        )
    for end in ("ceiling_lower", "ceiling_upper"):
        for program in ("", "_rsatoolbox"):
            np.testing.assert_allclose(
                measured[2][end], values[end + program], atol=1e-12
            )


def test_halves_of_repetitions_are_correlated_and_corrected(values):
    """The ceiling is the square root. Negative correlations differ: the formula of the
    reference has a pole.
    """
    trials = values["signal"].astype(float)
    halves = [trials[:, :, first_value::2].mean(2) for first_value in (0, 1)]
    raw = [
        [
            rank_distances(compute_distances(one[..., t]))
            @ rank_distances(compute_distances(other[..., t]))
            for t in range(trials.shape[-1])
        ]
        for one, other in zip(*halves, strict=True)
    ]
    np.testing.assert_allclose(raw, values["rdm_split_half"], atol=1e-12)
    corrected = [
        [
            estimate_ceiling_from_halves((one[..., t], other[..., t]))
            for t in range(trials.shape[-1])
        ]
        for one, other in zip(*halves, strict=True)
    ]
    is_positive = values["rdm_split_half"] > 0
    expected = values["rdm_split_half_spearman_brown"][is_positive]
    np.testing.assert_allclose(
        np.array(corrected)[is_positive], expected**0.5, atol=1e-12
    )


def test_the_true_model_reaches_the_ceiling_of_one_subject():
    """A correlation of two recordings would be too low."""
    random, gaps = np.random.default_rng(0), []
    for _ in range(20):
        truth = random.normal(size=(40, 8)) @ random.normal(size=(8, 60)) / 8**0.5
        trials = 0.3 * truth[:, None] + random.normal(size=(40, 10, 60))
        reached = rank_distances(compute_distances(trials.mean(1))) @ rank_distances(
            compute_distances(truth)
        )
        gaps.append(
            estimate_ceiling_from_halves(
                [trials[:, half_value::2].mean(1) for half_value in (0, 1)]
            )
            - reached
        )
    # .78 of .80; the correlation of two recordings is .60
    assert -0.05 < np.mean(gaps) < 0.02


def test_for_noise_only_the_lower_ceiling_is_near_zero():
    noise = np.random.default_rng(0).normal(size=(5, 40, 8, 6))
    models = rank_models({"any": np.random.default_rng(1).normal(size=(40, 8))})
    noises = (list(noise[..., t]) for t in range(6))
    shares, null, ceilings = measure(noises, models, Items.from_sizes([40]), draws=100)
    upper, lower = (
        np.mean(ceilings["ceiling_upper"]),
        np.mean(ceilings["ceiling_lower"]),
    )
    assert abs(upper - 5**-0.5) < 0.03
    assert abs(lower) < 0.04
    assert np.abs(shares["rho"].mean((0, 1, 3))).max() < np.abs(null["rho"]).max()


def test_slow_drifts_of_clips_are_rarely_called_similarity():
    """Permuted one by one or in blocks, they are significant in all simulations.

    Three standard errors of 40 simulations are .1.
    """
    random, false = np.random.default_rng(0), []
    clips = StimulusGrouping("neighbours", medium="clip").make_items([range(120)])
    for number in range(40):
        noise = random.normal(size=(2, 120, 16))
        noise[:, 1:] *= (1 - 0.9**2) ** 0.5
        signal, features = lfilter([1.0], [1.0, -0.9], noise, 1)
        shares, null, _ = measure(
            [[signal]], rank_models({"any": features}), clips, 60, number
        )
        (corrected,) = correct_p_values(
            [standardise(shares["rho"][0, 0].mean(-1), null["rho"][0])]
        )
        false.append(corrected.min() < 0.05)
    assert np.mean(false) < 0.05 + 0.1


def test_similarity_permutes_the_pictures_of_a_concept_together():
    """Signals and embeddings have clusters by concept, but independent ones.

    Permuted one by one, the pictures are significant in .98.
    """
    random, false = np.random.default_rng(1), []
    pictures = StimulusGrouping(
        "concept", dict(enumerate(map(str, np.arange(60) // 5)))
    ).make_items([range(60)])
    for number in range(40):
        signal, features = np.repeat(
            random.normal(size=(2, 12, 16)), 5, 1
        ) + random.normal(size=(2, 60, 16))
        shares, null, _ = measure(
            [[signal]], rank_models({"any": features}), pictures, 60, number
        )
        (corrected,) = correct_p_values(
            [standardise(shares["rho"][0, 0].mean(-1), null["rho"][0])]
        )
        false.append(corrected.min() < 0.05)
    assert np.mean(false) < 0.05 + 0.1
