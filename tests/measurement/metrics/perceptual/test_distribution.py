"""FID and KID against their formulae, and their intervals."""

import numpy as np
import pytest
import scipy.linalg
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.measurement.metrics.perceptual import (
    fid,
    kid,
    measure_distances,
    require_distances,
)


@pytest.fixture
def features():
    draw = torch.Generator().manual_seed(0)
    stimuli, reconstructions = torch.randn(2, 60, 5, generator=draw)
    return stimuli, 0.5 * reconstructions + 1


def test_fid_is_the_distance_of_two_gaussians(features):
    stimuli, reconstructions = (x.double().numpy() for x in features)
    covariances = [np.cov(x.T) for x in (stimuli, reconstructions)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    shift = np.square(stimuli.mean(0) - reconstructions.mean(0)).sum()

    assert fid(*features) == pytest.approx(
        shift + np.trace(sum(covariances) - 2 * root), rel=1e-4
    )
    assert fid(features[0], features[0]) == pytest.approx(0, abs=1e-4)


def test_kid_is_the_unbiased_distance_of_cubic_kernels(features):
    stimuli, reconstructions = (x.double().numpy() for x in features)
    n = len(stimuli)

    def kernel(first_features, b):
        return (first_features @ b.T / first_features.shape[1] + 1) ** 3

    mean_within = sum(
        (k.sum() - k.trace()) / (n * (n - 1))
        for k in (kernel(stimuli, stimuli), kernel(reconstructions, reconstructions))
    )
    assert kid(*features) == pytest.approx(
        mean_within - 2 * kernel(stimuli, reconstructions).mean(), rel=1e-4
    )


def test_the_interval_covers_the_value_and_narrows_with_pictures():
    def width(count):
        draw = torch.Generator().manual_seed(1)
        stimuli, reconstructions = torch.randn(2, count, 4, generator=draw)
        metric = measure_distances(
            stimuli, reconstructions + 1, protocol="p", split="validation", seeds=(0,)
        )[0]
        assert metric.name == "fid"
        assert metric.n == count
        assert metric.low < metric.value < metric.high
        return metric.high - metric.low

    assert width(2000) < width(100) / 2


def test_a_handful_of_pictures_is_refused():
    with pytest.raises(BrainhiveError, match=r"\b20\b.*\b19\b"):
        require_distances(19)
