"""Halves of repetitions and noise ceilings, in simulations and against a reference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import pearsonr

from brainhive_cli.measurement import (
    average_halves,
    average_parts,
    average_random_halves,
    correlate,
    correlate_without_each,
    correlation_shares,
    measure,
    noise_ceiling,
    predict_reliability,
    retrieve_halves,
    spearman_brown,
    unit_vectors,
)


@pytest.mark.parametrize(("n_pictures", "effect"), [(10, 0.4), (10, 0.8), (60, 0.8)])
def test_intervals_of_halves_hold_for_few_pictures(n_pictures, effect):
    """The true value is the mean of 300 simulations. Two standard errors of a coverage
    of 0.95 are 0.025. Wilson's interval of independent hits covered .87 and .91.
    """
    random = np.random.default_rng(0)
    shape = (300, 2, n_pictures, 20)
    patterns = effect * random.normal(size=(300, 1, n_pictures, 20))
    halves = torch.from_numpy(patterns + random.normal(size=shape))
    metrics = []
    for first_half, second in halves:
        shares = retrieve_halves(first_half, second)["top1"]
        metrics.append(
            measure("top1", [shares], protocol="", split="test", limits=(0.0, 1.0))
        )

    truth = np.mean([metric.value for metric in metrics])

    assert np.mean([metric.low <= truth <= metric.high for metric in metrics]) >= 0.95


@pytest.mark.parametrize("k", [1, 5])
def test_shares_of_hits_are_those_of_the_jackknife(k):
    first_half, second = np.random.default_rng(0).normal(size=(2, 20, 4))
    second += 0.7 * first_half
    queries, gallery = (
        half_values / np.linalg.norm(half_values, axis=1, keepdims=True)
        for half_values in (first_half - first_half.mean(0), second - second.mean(0))
    )
    similarities = queries @ gallery.T

    def count_hits(rows):
        table = similarities[np.ix_(rows, rows)]
        return ((table > table.diagonal()[:, None]).sum(1) < k).sum()

    everyone = np.arange(20)
    hits = count_hits(everyone)
    shares = [hits - count_hits(np.delete(everyone, row)) for row in everyone]

    found = retrieve_halves(torch.from_numpy(first_half), torch.from_numpy(second))

    expected = np.array(shares) - np.mean(shares) + hits / 20
    assert found[f"top{k}"] == pytest.approx(expected)
    assert 0 < hits < 20
    assert len(set(shares)) > 1


def test_correlations_without_each_item_are_pearsons():
    first_values, second = np.random.default_rng(0).normal(size=(2, 7, 3))

    correlations = correlate_without_each(
        unit_vectors(first_values), unit_vectors(second)
    )

    expected = [[pearsonr(first_values[:, f], second[:, f])[0] for f in range(3)]]
    for row in range(7):
        other_rows = np.delete(np.arange(7), row)
        expected.append(
            [
                pearsonr(first_values[other_rows, f], second[other_rows, f])[0]
                for f in range(3)
            ]
        )
    np.testing.assert_allclose(correlations, expected, atol=1e-12)
    pair = unit_vectors(first_values[:2])
    assert np.abs(correlate_without_each(pair, pair)).max() == pytest.approx(1)


@pytest.mark.parametrize("is_mixed", [False, True])
@pytest.mark.parametrize(("repetitions", "n_pictures"), [(2, 10), (3, 10), (2, 40)])
def test_reliability_is_within_its_interval(is_mixed, repetitions, n_pictures):
    """Channels carry equal signals, or signals from none to much, over 200 studies.

    The prediction from the mean correlation covered .76 to .89, and for channels that
    differ 0 to .45. Two standard errors of .95 are .03.
    """
    random = np.random.default_rng(0)
    gains = np.linspace(0, 2, 40) if is_mixed else np.ones(40)
    truth = np.mean(gains**2 / (gains**2 + 1 / repetitions))
    is_covered = []
    for _ in range(200):
        patterns = gains * random.normal(size=(n_pictures, 1, 40))
        noise = random.normal(size=(n_pictures, repetitions, 40))
        first_half, second, _ = (patterns + noise)[:, :3].transpose(1, 0, 2)[[0, 1, 0]]
        correlations = correlate_without_each(
            unit_vectors(first_half), unit_vectors(second)
        )
        shares = predict_reliability(correlations, repetitions)
        metric = measure(
            "reliability",
            [shares],
            protocol="",
            split="test",
            limits=(-1.0, 1.0),
            is_share=False,
        )
        is_covered.append(metric.low <= truth <= metric.high)

    assert np.mean(is_covered) >= 0.92


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.booleans())
def test_halves_share_no_repetition_and_no_part_and_are_equal(seed, has_parts):
    """Each repetition is a row of an identity matrix, so the averages are weights."""
    random = np.random.default_rng(seed)
    n_stimuli = 8
    n_repetitions = int(random.integers(2, 8))
    available = random.integers(2, n_repetitions + 1, n_stimuli)
    parts = np.tile(np.arange(n_repetitions), (n_stimuli, 1))
    # the first two repetitions are in different parts, and parts count from 0
    if has_parts:
        parts = np.minimum(parts, 1 + random.integers(0, 3, (n_stimuli, 1)))
    numbers = torch.from_numpy(parts) if has_parts else None

    halves = average_halves(
        torch.eye(n_repetitions).expand(n_stimuli, -1, -1),
        torch.from_numpy(available),
        torch.Generator().manual_seed(seed),
        numbers,
    )

    first_weights, second_weights, sizes = halves
    for row in range(n_stimuli):
        first_rows = first_weights[row].numpy().nonzero()[0]
        second_rows = second_weights[row].numpy().nonzero()[0]
        assert max(first_rows.max(), second_rows.max()) < available[row]
        assert not set(parts[row][first_rows]) & set(parts[row][second_rows])
        assert len(first_rows) == len(second_rows) == sizes[row] > 0
        for weights, rows in (
            (first_weights[row], first_rows),
            (second_weights[row], second_rows),
        ):
            np.testing.assert_allclose(weights[rows], 1 / len(rows), rtol=1e-6)
        if not has_parts:
            assert sizes[row] == available[row] // 2


def test_every_repetition_comes_into_either_half_as_often():
    trials, counts = torch.eye(5), torch.full((2000,), 5)

    first_half, second, _ = average_halves(
        trials, counts, torch.Generator().manual_seed(0)
    )

    for half_mean in (first_half, second):  # five standard errors
        assert (half_mean.mean(0) - 0.2).abs().max() < 5 * (0.06 / 2000) ** 0.5
    other_half, _, _ = average_halves(trials, counts, torch.Generator().manual_seed(1))
    same_half, _, _ = average_halves(trials, counts, torch.Generator().manual_seed(0))
    assert (first_half != other_half).any()
    assert torch.equal(first_half, same_half)


def test_halves_are_drawn_ten_times_and_parts_are_averaged():
    repetitions = np.arange(24.0).reshape(4, 3, 2)

    halves = average_random_halves(repetitions, torch.Generator().manual_seed(0))

    assert [half_means.shape for half_means in halves] == [(10, 6)] * 2
    mean_of_halves = (halves[0] + halves[1]) / 2  # all four repetitions are used
    np.testing.assert_allclose(
        mean_of_halves, np.tile(repetitions.mean(0).ravel(), (10, 1))
    )
    assert len(np.unique(halves[0], axis=0)) > 1
    parts = average_parts(repetitions, np.array([1, 0, 1, 1]))
    expected = [repetitions[1], repetitions[[0, 2, 3]].mean(0)]
    np.testing.assert_allclose(parts, expected)


def test_products_of_unit_vectors_are_correlations():
    random = np.random.default_rng(0)
    first_values, second = random.normal(size=(2, 9, 3))
    first_values[:, 2] = 0.1 + 0.2

    products = (unit_vectors(first_values) * unit_vectors(second)).sum(0)
    by_rows = (unit_vectors(first_values.T, 1) * unit_vectors(second.T, 1)).sum(1)

    expected = [pearsonr(first_values[:, n], second[:, n])[0] for n in range(2)] + [0]
    np.testing.assert_allclose(products, expected, atol=1e-12)
    np.testing.assert_allclose(by_rows, expected, atol=1e-12)
    pairs = zip(first_values, second, strict=True)
    np.testing.assert_allclose(correlate(pairs)[:2], expected[:2], atol=1e-12)
    zeros = correlate([(np.zeros(2), row[:2]) for row in second])
    assert zeros.tolist() == [0, 0]


def test_spearman_brown_doubles_the_repetitions():
    """Two halves share half of their variance, as in Spearman 1910."""
    assert spearman_brown(np.array(0.5)) == pytest.approx(2 / 3)
    # 0.25 of variance 1.25, then 0.75
    assert spearman_brown(np.array(0.2), times=3) == pytest.approx(3 / 7)


def test_the_noise_ceiling_is_that_of_the_reference(golden):
    """The reference has 24 pictures, 5 channels and 8 samples (THINGS-MEG formula)."""
    with np.load(golden / "prepare/explain.npz") as file:
        trials, expected = (
            file["enc_signal_test"].astype(float),
            file["nc_percent_things"],
        )
    ceiling = noise_ceiling(lambda: trials, np.full(len(trials), trials.shape[1]))
    np.testing.assert_allclose(ceiling, expected, atol=1e-10)


@pytest.mark.parametrize(("drift", "counts"), ((0.5, 8), (0.5, None)))
def test_the_noise_ceiling_holds_with_drift_and_unequal_counts(drift, counts):
    """The mean of 200 channels has a standard error of 0.3. A variance over 200 stimuli
    has a bias of about 0.5.
    """
    random = np.random.default_rng(0)
    n_shown = random.integers(2, 9, 200) if counts is None else np.full(200, counts)
    signal, offsets = (
        0.7 * random.normal(size=(200, 1, 200)),
        drift * random.normal(size=(8, 200)),
    )
    trials = signal + random.normal(size=(200, 8, 200)) + offsets
    stimuli = [
        stimulus[:count] for stimulus, count in zip(trials, n_shown, strict=True)
    ]

    ceiling = noise_ceiling(lambda: stimuli, n_shown)

    assert ceiling.mean() == pytest.approx(
        100 * 0.49 / (0.49 + (1 / n_shown).mean()), abs=1.5
    )


@pytest.mark.parametrize("noise", (0.3, 3.0))
def test_intervals_from_correlation_shares_cover_the_truth(
    noise,
):
    """Two standard errors of a coverage of 0.95 in 200 simulations are 0.03."""
    random, is_covered, widths = np.random.default_rng(0), [], []
    truth = 1 / (1 + noise**2)
    for _ in range(200):
        pattern = random.normal(size=(60, 20))
        first_vectors, second_vectors = (
            unit_vectors(pattern + noise * random.normal(size=(60, 20)))
            for _ in range(2)
        )
        shares = correlation_shares(first_vectors, second_vectors)
        assert shares.mean(0) == pytest.approx((first_vectors * second_vectors).sum(0))
        metric = measure(
            "r",
            [shares.mean(1)],
            limits=(-1, 1),
            is_share=False,
            protocol="",
            split="test",
        )
        is_covered.append(metric.low <= truth <= metric.high)
        widths.append(metric.high - metric.low)
    assert np.mean(is_covered) > 0.88
    assert np.mean(widths) < (0.03 if noise < 1 else 0.25)


@pytest.mark.parametrize("scale", [1e-13, 1.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, 1_000.0, 1e5])
def test_correlations_do_not_depend_on_unit_or_offset(scale, offset):
    random = np.random.default_rng(0)
    shared = random.normal(size=(60, 4))
    pairs = []
    for values in shared:
        noisy = values + random.normal(size=(2, 4)) + offset
        pairs.append((noisy * scale).astype("f4"))
    first_values, second = np.array(pairs).swapaxes(0, 1)
    correlations = correlate(pairs)
    by_column = zip(first_values.T.astype(float), second.T.astype(float), strict=True)
    expected = [pearsonr(*columns)[0] for columns in by_column]
    np.testing.assert_allclose(correlations, expected, atol=1e-6)
    if offset < 1e5:  # float32 keeps two digits of such a signal
        products = (unit_vectors(first_values) * unit_vectors(second)).sum(0)
        np.testing.assert_allclose(products, expected, atol=1e-3)


def test_equal_values_are_no_vector_whatever_their_size():
    for value in (1e-13, 0.1, 1e5 + 0.3):
        assert not unit_vectors(np.full((200, 3), value, "f4")).any()
