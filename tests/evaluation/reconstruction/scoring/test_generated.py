"""Tests of scores, pooled over items, seeds and subjects."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from brainhive_cli.evaluation.reconstruction.scoring import (
    GeneratedSet,
    Scorer,
    measure_sets,
    rank_items,
)
from brainhive_cli.measurement.metrics import MetricPart
from brainhive_cli.measurement.statistics import estimate_interval
from brainhive_cli.measurement.units import StimulusGrouping

IDS = ("a", "b", "c", "d", "e", "f")


def scored(
    subject,
    seed,
    repeats=1,
    folder=Path(),
    **values,
):
    """Make a subject's reconstructions, with a value for each item.

    All repeats of an item have its value.
    """
    name = f"sub-{subject:02d}_seed-{seed}/sub-{subject:02d}"
    ids = IDS[: len(next(iter(values.values())))]
    files = {image_id: [folder / f"{image_id}.png"] * repeats for image_id in ids}
    repeated = {metric: np.repeat(value, repeats) for metric, value in values.items()}
    return GeneratedSet("brain", name, (seed,), files, subject, values=repeated)


def test_an_item_counts_once_averaged_over_repeats_and_seeds():
    first_scored = scored(1, 5, 4, ssim=[0.1, 0.2, 0.9, 0.5, 0.4, 0.3])
    second = scored(1, 6, 2, ssim=[0.3, 0.4, 0.5, 0.7, 0.2, 0.5])

    metric = measure_sets(
        [first_scored, second], "mindeye2", "test", StimulusGrouping()
    )["ssim"]

    items = np.array([0.2, 0.3, 0.7, 0.6, 0.3, 0.4])
    assert (metric.value, metric.n, metric.seeds) == (
        pytest.approx(items.mean()),
        6,
        (5, 6),
    )
    expected = estimate_interval([items], limits=(-1, 1))
    assert (metric.low, metric.high) == pytest.approx((expected.low, expected.high))
    error = items.std(ddof=1) / np.sqrt(6)
    assert (metric.low, metric.high) == pytest.approx(
        ends(items.mean(), 2.5706, error), rel=1e-4
    )


def ends(value, quantile, error):
    """Compute a t interval on the logit scale, between -1 and 1."""
    return np.tanh(
        np.arctanh(value) + np.array([-1, 1]) * quantile * error / (1 - value**2)
    )


def test_the_interval_over_subjects_counts_each_subject_equally():
    """Two subjects are too few for an interval over subjects."""
    two = [scored(n, 5, ssim=[value] * 6) for n, value in enumerate((0.49, 0.51))]
    five = [scored(n, 5, ssim=[0.48 + 0.01 * n] * 6) for n in range(5)]

    of_two, of_five = (
        measure_sets(some, "mindeye2", "test", StimulusGrouping())["ssim"]
        for some in (two, five)
    )

    assert (of_two.value, of_two.n) == (pytest.approx(0.5), 12)
    assert of_two.people == pytest.approx(ends(0.5, 12.706, 0.01), rel=1e-4)
    assert (of_two.low, of_two.high, of_two.these_subjects) == (None, None, None)
    assert of_two.interval == (
        "none: no item differs from others; for these 6 pictures and these 2 subjects"
    )
    error = 0.01 * np.sqrt(2.5 / 5)
    assert (
        (of_five.low, of_five.high)
        == of_five.people
        == pytest.approx(ends(0.5, 2.7764, error), rel=1e-4)
    )


def test_items_are_sorted_from_the_best_by_every_metric():
    """`lpips` and `effnet` are better if smaller, `pixcorr` and `ssim` if larger."""
    first_scored = scored(1, 5, 2, pixcorr=[0.9, 0.1, 0.5], lpips=[0.1, 0.3, 0.9])
    second = scored(2, 5, 2, pixcorr=[0.3, 0.7], lpips=[0.4, 0.2])

    items = rank_items([first_scored, second])

    # ranks 1 + 1, 2 + 2, 5 + 3, 3 + 5 and 4 + 4 of 2; ties in their order
    expected = [
        (first_scored, "a"),
        (second, "b"),
        (first_scored, "b"),
        (first_scored, "c"),
        (second, "a"),
    ]
    assert items == expected
    for name, best in (("ssim", "c"), ("effnet", "a"), ("swav", "a"), ("clip", "c")):
        scored_set = scored(1, 5, **{name: [0.1, 0.2, 0.3]})
        assert rank_items([scored_set])[0] == (scored_set, best), name


def identify(tensor, created_tensor, rows):
    """Compute the share of other stimuli that are further away than the true one."""
    distance = torch.cdist(created_tensor, tensor)
    own = distance.gather(1, rows[:, None])
    return (distance > own).sum(1).double() / (len(tensor) - 1)


def subtract(tensor, created_tensor, rows):
    return (created_tensor - tensor[rows])[:, 0].double()


@pytest.mark.parametrize("batch_size", [2, 5, 99])
def test_items_are_identified_among_the_chosen_stimuli_alone(batch_size):
    """The stimuli are 0, 1, … 9. The even stimuli are the candidates."""
    stimuli = [lambda value=value: float(value) for value in range(10)]
    parts = {
        "way": MetricPart(features, identify, is_identification=True),
        "difference": MetricPart(features, subtract),
    }
    scorer = Scorer(parts, "as they are", batch_size, torch.device("cpu"), stimuli)
    object.__setattr__(scorer, "_resize", list)
    made = [lambda value=value: value for value in (8.2, 0.1, 4.9, 2.4, 6.0)]
    array = np.array([8, 0, 4, 4, 0])
    numbers = np.arange(0, 10, 2)

    among = scorer.score(made, array, numbers, Mock())
    all_of_them = scorer.score(made, array, np.arange(10), Mock())
    alone = scorer.score(made[:1], array[:1], np.array([8]), Mock())

    # 4.9 is nearer to 4 than to all other even numbers, and to all others but 5
    assert among["way"].tolist() == [1, 1, 1, 0.75, 0]
    by_hand = pytest.approx([1, 1, 8 / 9, 6 / 9, 0])
    assert all_of_them["way"].tolist() == by_hand
    for values in (among, all_of_them):
        assert values["difference"] == pytest.approx([0.2, 0.1, 0.9, -1.6, 6], abs=1e-6)
    assert list(alone) == ["difference"]


def features(media):
    return torch.tensor(media)[:, None]
