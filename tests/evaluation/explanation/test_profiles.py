"""Profiles with permuted labels, and error rates of their p values."""

import numpy as np
import pytest
from scipy.signal import lfilter

from brainhive_cli.data.signals import Sensors, Trials
from brainhive_cli.evaluation.explanation.job import match_pictures
from brainhive_cli.evaluation.explanation.profiles import (
    Axis,
    Labels,
    Profile,
    compute_p_values,
    correct_p_values,
    standardise,
)
from brainhive_cli.measurement.units import Items, StimulusGrouping


def labels_of(right, draws, seed=0):
    """Return labels of items that can all be exchanged."""
    return Labels.draw(right, Items.from_sizes([len(right)]), draws, seed)


def test_the_control_has_the_values_of_permuted_labels():
    matrix, labels = np.arange(12.0).reshape(3, 4), labels_of(np.array([2, 0, 3]), 50)
    profile = Profile.from_matrices("margin", Axis("sensor", ["Oz"]), [matrix], labels)
    assert profile.values.tolist() == [[2, 4, 11]]
    expected = [
        [
            matrix[range(3), permuted_indice].mean()
            for permuted_indice in labels.permuted_indices
        ]
    ]
    assert pytest.approx(np.array(expected)) == profile.null.T
    assert {
        tuple(sorted(permuted_indice)) for permuted_indice in labels.permuted_indices
    } == {(0, 2, 3)}


def correct(measured, null):
    """Compute corrected p values of a single test."""
    return correct_p_values([standardise(measured, null)])[0]


def test_false_positives_over_many_positions_are_rare():
    """In 400 simulations of noise, the standard error of a rate of .05 is .011."""
    random = np.random.default_rng(0)
    false = [
        correct(x[0], x[1:]).min() < 0.05 for x in random.normal(size=(400, 101, 20))
    ]
    scores = [standardise(x[0], x[1:]) for x in random.normal(size=(400, 101, 20))]
    alone = [(compute_p_values(score, score[1:]) < 0.05).mean() for score in scores]
    assert np.mean(false) < 0.05 + 3 * 0.011
    assert abs(np.mean(alone) - 0.04) < 0.011
    assert correct(np.array([9.0, 0]), random.normal(size=(100, 2)))[
        0
    ] == pytest.approx(1 / 101)


def test_false_positives_over_many_analyses_are_rare():
    """Corrected separately, one of twelve analyses is significant in .4.

    Three standard errors of 400 simulations are .033.
    """
    random, false = np.random.default_rng(0), []
    for draws in random.normal(size=(400, 101, 12, 10)) + random.normal(
        size=(400, 101, 1, 10)
    ):
        draws[:, :6] = np.exp(2 * draws[:, :6])  # the skew of rare hits
        tests = [
            standardise(single_draw[0], single_draw[1:])
            for single_draw in draws.swapaxes(0, 1)
        ]
        false.append(
            min(corrected.min() for corrected in correct_p_values(tests)) < 0.05
        )
    assert 0.01 < np.mean(false) < 0.05 + 0.033

    # a skewed control does not hide another analysis
    draws[0, 8, 3] += 6
    tests = [
        standardise(single_draw[0], single_draw[1:])
        for single_draw in draws.swapaxes(0, 1)
    ]
    assert correct_p_values(tests)[8][3] < 0.05


def test_all_subjects_share_the_permutations_of_pictures():
    """Subject 2 saw the pictures in another order, and one more picture."""
    signal, space = np.arange(5.0).reshape(5, 1, 1, 1), Sensors(["Oz"])
    trials = Trials.from_repetitions(
        signal,
        list("hfbge"),
        space,
        np.zeros(1),
        100.0,
        "uV",
        stimulus=np.array([7, 5, 1, 6, 4]),
    )
    pictures, units = np.array([1, 4, 6, 7]), Items.from_sizes([4])
    matched = match_pictures(trials, pictures)
    assert matched.stimulus.tolist() == [
        1,
        4,
        6,
        7,
    ]
    assert matched.averages.ravel().tolist() == [2, 4, 3, 0]
    assert matched.image_ids == ["b", "e", "g", "h"]

    first, again = (
        Labels.draw(pictures, each, 20, 3) for each in (units, Items.from_sizes([4, 4]))
    )
    assert (first.wrong_indices != first.seen_indices).all()
    assert (first.permuted_indices == again.permuted_indices).all()
    by_item = Labels.draw(np.arange(4), units, 20, 3)  # the indices of these pictures
    assert (
        first.seen_indices[by_item.permuted_indices] == first.permuted_indices
    ).all()
    assert (first.seen_indices[by_item.wrong_indices] == first.wrong_indices).all()


def is_significant(signals, targets, labels):
    """Return True if margins of signals [S, P, N, D] are significant anywhere.

    The targets are [N, D].
    """
    profiles = []
    for signal in signals:
        cosine = signal @ targets.T / len(targets)
        margins = cosine - cosine.mean(-1, keepdims=True)
        profiles.append(
            Profile.from_matrices(
                "margin", Axis("ms", range(len(signal))), margins, labels
            )
        )
    mean = np.mean([signal.values.mean(1) for signal in profiles], 0)
    null = np.mean([signal.null for signal in profiles], 0)
    return correct(mean, null).min() < 0.05


@pytest.mark.nightly
def test_wrong_labels_of_all_subjects_are_rarely_significant():
    """With permutations by subject, they are significant in .25.

    Three standard errors of 100 simulations are .065.
    """
    random, false = np.random.default_rng(0), []
    for number in range(100):
        targets, wrong_permutation = (
            random.normal(size=(50, 16)),
            random.permutation(50),
        )
        # of what they saw, and not of their labels
        signals = targets + random.normal(size=(10, 5, 50, 16))
        labels = Labels.draw(wrong_permutation, Items.from_sizes([50]), 60, number)
        false.append(is_significant(signals, targets, labels))
    assert np.mean(false) < 0.05 + 0.065


def film(random, *shape):
    """Draw features [..., N, D] of clips whose neighbours correlate .9."""
    noise = random.normal(size=shape)
    noise[..., 1:, :] *= (1 - 0.9**2) ** 0.5
    return lfilter([1.0], [1.0, -0.9], noise, -2)


def test_similar_neighbouring_clips_are_rarely_significant():
    """Permuted one by one, they are significant in .58.

    Three standard errors of 100 simulations are .065.
    """
    random, clips, false = np.random.default_rng(0), np.arange(400), []
    units = StimulusGrouping("neighbours", medium="clip").make_items([clips.tolist()])
    for number in range(100):
        labels = Labels.draw(clips, units, 60, number)
        false.append(
            is_significant(film(random, 1, 3, 400, 16), film(random, 400, 16), labels)
        )
    assert np.mean(false) < 0.05 + 0.065
