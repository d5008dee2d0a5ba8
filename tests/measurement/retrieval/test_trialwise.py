"""Predictions of single trials, and those that need other trials."""

import pytest
import torch
from torch.nn.functional import batch_norm

from brainhive_cli.measurement.retrieval import (
    MAX_TRIALS_ENCODED_ALONE,
    depends_on_other_trials,
)

WEIGHTS = torch.randn(60, 16, generator=torch.Generator().manual_seed(0))
SIGNALS = torch.randn(
    3 * MAX_TRIALS_ENCODED_ALONE, 6, 10, generator=torch.Generator().manual_seed(1)
)


def encode(signals):
    return signals.flatten(1) @ WEIGHTS


@pytest.mark.parametrize(
    "change",
    [
        lambda tokens: tokens - 0.05 * tokens.mean(0),
        lambda tokens: batch_norm(tokens, None, None, training=True),
        # NaN of a single trial
        lambda tokens: tokens / (tokens - tokens[:1]).square().sum(),
    ],
    ids=["a twentieth of the mean", "batch norm", "no token"],
)
def test_a_token_that_changes_with_the_other_trials_is_noticed(
    change,
):
    assert depends_on_other_trials(lambda signals: change(encode(signals)), SIGNALS)


def test_rounding_and_a_single_trial_are_no_dependence():
    def round_to_tf32(signals):
        """Round by 10 bits, in another way in each batch."""
        tokens = encode(signals)
        noise = (
            torch.rand(
                tokens.shape, generator=torch.Generator().manual_seed(len(signals))
            )
            - 0.5
        )
        return tokens * (1 + noise / 2**10)

    assert not depends_on_other_trials(encode, SIGNALS)
    assert not depends_on_other_trials(round_to_tf32, SIGNALS)
    assert not depends_on_other_trials(
        lambda signals: encode(signals) - encode(signals).mean(0) + 1, SIGNALS[:1]
    )
