"""Weights and draws of repetitions."""

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.recipes.recipe import validate
from brainhive_cli.data.signals.augmentations import (
    Augment,
    average_weighted,
    draw_repetitions,
    mix_repetitions,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def repeated():
    """Make trials of one to four repetitions, with NaN as padding."""
    count = torch.arange(400) % 4 + 1
    signal = torch.randn(400, 4, 3, 5, generator=generator(9))
    signal[torch.arange(4) >= count[:, None]] = torch.nan
    return signal, count


def test_a_mixture_lies_between_the_repetitions_that_are_there(
    repeated,
):
    signal, count = repeated

    mixed, repeated_mixture, other_mixture = (
        mix_repetitions(signal, count, Augment(repetitions=1), generator(seed))
        for seed in (1, 1, 2)
    )

    assert mixed.shape == (400, 3, 5)
    assert torch.equal(mixed, repeated_mixture)
    assert torch.allclose(mixed[count == 1], signal[count == 1, 0])
    assert (
        not torch.isclose(mixed[count > 1], other_mixture[count > 1]).all((1, 2)).any()
    )
    lowest = signal.nan_to_num(torch.inf).amin(1) - 1e-6
    highest = signal.nan_to_num(-torch.inf).amax(1) + 1e-6
    assert ((mixed >= lowest) & (mixed <= highest)).all()


def test_weights_are_random_equal_or_of_a_single_repetition():
    # the mixture is the weights
    signal = torch.eye(3)[None, :, None].expand(20_000, 3, 1, 3)
    shares = Augment(repetitions=1, repetitions_equal=0.3, repetitions_one=0.2)

    weights = mix_repetitions(signal, torch.full((20_000,), 3), shares, generator())[
        :, 0
    ]

    is_one, is_equal = (
        (weights == 1).any(1),
        torch.isclose(weights, torch.tensor(1 / 3)).all(1),
    )
    assert is_one.float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert is_equal.float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert weights[is_one].mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    few_repetition = mix_repetitions(
        signal, torch.full((20_000,), 2), shares, generator()
    )[:, 0]
    assert (few_repetition[:, 2] == 0).all()
    assert (few_repetition == 1).any(0).tolist() == [True, True, False]


def test_weights_count_by_their_share_as_in_the_reference(golden):
    """Golden values: MindEye1's random convex mixture of three repetitions."""
    havir = load_file(golden / "havir" / "losses.safetensors")

    mixed = average_weighted(havir["in.repeats"][..., None], havir["in.repeat_weights"])

    assert torch.allclose(mixed[..., 0], havir["out.repeats_combined"], rtol=1e-4)


def test_shares_of_the_trials_that_cannot_be_are_refused():
    with pytest.raises(RecipeError, match="repetitions_one"):
        validate(Augment, {"repetitions_one": 0.2})


def test_draws_take_existing_repetitions_without_replacement():
    # the value names the repetition
    signal = torch.arange(1.0, 6).expand(400, 5)[..., None, None].clone()
    count = torch.tensor([5, 3, 2, 1]).repeat(100)
    signal[torch.arange(5) >= count[:, None]] = torch.nan

    drawn_trials, remaining_trials = draw_repetitions(
        signal, count, 2, torch.Generator().manual_seed(0)
    )

    assert drawn_trials.shape == (400, 2, 1, 1)
    assert torch.equal(remaining_trials, count.clamp(max=2))
    for number in (5, 3, 2):
        drawn_values = drawn_trials[count == number].flatten(1)
        assert drawn_values.isfinite().all()
        assert (drawn_values[:, 0] != drawn_values[:, 1]).all()
        assert set(drawn_values.flatten().tolist()) == set(
            range(1, number + 1)
        )  # all come up
    assert (drawn_trials[count == 1, 0] == 1).all()
