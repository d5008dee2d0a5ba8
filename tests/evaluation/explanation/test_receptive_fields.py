"""Columns of convolutional networks lie at the centres of what they see."""

import pytest
import torch

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.evaluation.explanation.model_profiles import (
    find_columns,
    read_features,
    replace_column,
)


def columns(kind, samples=250):
    model = parts.load("backbones", kind).Config().build(5, samples, 8, 1).eval()
    return *find_columns(model, lambda signal: model(signal, None), 5, samples), model


def test_the_columns_of_nice_lie_at_5_t_and_37_not_stretched_over_the_window():
    _, spans, _ = columns("nice")
    assert spans == [(5 * t, 5 * t + 74) for t in range(36)]
    assert spans[0] == (0, 74)


@pytest.mark.parametrize(("kind", "count", "width"), (("eeg_net", 78, 95), ("deep_net", 7, 151)))
def test_other_convolutions_have_the_fields_that_their_kernels_make(kind, count, width):
    _, spans, _ = columns(kind)
    assert len(spans) == count and spans[0] == (0, width - 1)


@pytest.mark.parametrize("kind", ("atm", "brain_mlp", "segments"))
def test_networks_that_mix_all_samples_have_none(kind):
    with pytest.raises(BrainhiveError, match="has no layer whose columns see a part of the window each"):
        columns(kind)


def test_a_replaced_column_changes_what_follows_as_its_own_samples_do():
    """Where all that a column sees is replaced, and other columns too, the output is that of the others."""
    layer, _, model = columns("ts_conv")
    one, other = torch.randn(2, 5, 250), torch.randn(1, 5, 250)
    with torch.inference_mode():
        rest = read_features(layer, model, other)
        with replace_column(layer, 3, rest):
            changed = model(one)
        assert not torch.allclose(changed, model(one), atol=1e-6)
        with replace_column(layer, 3, read_features(layer, model, one)):
            torch.testing.assert_close(model(one), model(one))
        assert torch.equal(model(one), model(one)) and not torch.equal(changed, model(other))
