"""N-way classification: the reference's trials, their exact expectation and its
chance.
"""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.measurement.metrics.video import (
    expected_hits,
    n_way,
    n_way_chance,
)


@pytest.fixture(scope="module")
def reference(golden):
    return load_file(golden / "neurons/metrics.safetensors")


def test_the_expected_share_is_near_the_trials_of_the_reference(
    reference,
):
    scores, right_label = (
        reference["input.probabilities"][None],
        reference["input.labels_last_is_best"][None],
    )
    best = scores[0, right_label[0]].max()
    for number, drawn_share, spread in reference["expected.n_way"].tolist():
        n_ways = int(number)
        picks = reference[f"input.picks_{n_ways}way"]

        expected_share = expected_hits(scores, right_label, n_ways).item()

        exact = reference[f"expected.exact_{n_ways}way"].item()
        assert expected_share == pytest.approx(exact, abs=1e-6)
        # 0 where all trials, or none, are hits
        error = max(spread, (expected_share * (1 - expected_share) / len(picks)) ** 0.5)
        assert abs(expected_share - drawn_share) <= 4 * error + 1e-6
        # and with the reference's own draws its very value
        hits = (best > scores[0, picks].amax(1)).double()
        assert hits.mean().item() == pytest.approx(drawn_share)


@pytest.mark.parametrize(("n_ways", "labels"), [(2, 1), (50, 3)])
def test_random_scores_are_at_chance_which_three_labels_raise(n_ways, labels):
    random = torch.Generator().manual_seed(n_ways)
    stimulus_scores, reconstruction_scores = (
        torch.rand(4000, 60, generator=random) for _ in range(2)
    )

    mean_hits = (
        n_way(
            stimulus_scores,
            reconstruction_scores,
            torch.arange(4000),
            n_ways=n_ways,
            n_labels=labels,
        )
        .mean()
        .item()
    )

    # four standard errors, at most
    assert mean_hits == pytest.approx(n_way_chance(n_ways, labels), abs=0.03)
    assert n_way_chance(n_ways, 3) == pytest.approx(3 / (n_ways + 2))
    assert n_way_chance(n_ways, 1) == pytest.approx(1 / n_ways)


def test_a_reconstruction_with_the_class_of_its_stimulus_wins():
    stimulus_scores = torch.rand(5, 60, generator=torch.Generator().manual_seed(0))
    scored = partial(
        n_way, stimulus_scores, rows=torch.arange(5), n_ways=50, n_labels=1
    )

    assert scored(generated=stimulus_scores).tolist() == [1.0] * 5
    assert scored(generated=torch.ones(5, 60)).tolist() == [0.0] * 5  # ties are misses
