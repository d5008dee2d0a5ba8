"""NICE's own limits."""

import pytest

from brainhive_cli.backbones.nice import TINY, pooled_samples
from brainhive_cli.errors import BrainhiveError


@pytest.mark.parametrize(("samples", "features"), [(250, 1440), (200, 1040), (75, 40)])
def test_the_flattened_size_is_computed(samples, features):
    """1440 and 1040 are the reference's at 250 and 200 samples."""
    assert TINY.build(4, samples, 8).proj_eeg[0].in_features == features


def test_a_window_shorter_than_the_filters_is_refused():
    with pytest.raises(BrainhiveError, match="74 samples, its filters need 75"):
        pooled_samples(74)
