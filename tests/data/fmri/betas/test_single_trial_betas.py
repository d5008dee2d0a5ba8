"""Single-trial betas: the noise ceiling of voxels."""

import numpy as np
import pytest

from brainhive_cli.data.fmri import betas
from brainhive_cli.data.fmri.betas import measure_ncsnr
from tests.worlds.array_trials import make_trials


@pytest.mark.parametrize("n_pictures", [3, 100])
def test_the_noise_ceiling_is_counted_stimulus_by_stimulus(n_pictures, monkeypatch):
    random = np.random.default_rng(0)
    counts = np.array([3, 1, 2, 3, 2, 1, 3])
    signal = random.normal(size=(7, 1, 4, 1)) + random.normal(size=(7, 3, 4, 1)) / 2
    signal[..., 3, :] = random.normal(size=(7, 3, 1))  # noise alone
    monkeypatch.setattr(betas, "MAX_BLOCK_BYTES", 8 * 12 * n_pictures)

    trials = make_trials(1, signal, range(7), rate_hz=None, counts=counts)

    ceilings, repeated = measure_ncsnr(trials)

    signals = [signal[row, :count, :, 0] for row, count in enumerate(counts)]
    # the variance over repetitions is the noise of a repeated picture
    noise = np.mean([values.var(0, ddof=1) for values in signals if len(values) > 1], 0)
    explained = np.maximum(np.concatenate(signals).var(0) - noise, 0)
    assert repeated == 5
    np.testing.assert_allclose(ceilings, np.sqrt(explained / noise))


def test_without_repetitions_the_noise_ceiling_is_0():
    signal = np.random.default_rng(0).normal(size=(7, 1, 4, 1))
    ceilings, repeated = measure_ncsnr(make_trials(1, signal, range(7), rate_hz=None))
    assert repeated == 0
    assert ceilings.tolist() == [0, 0, 0, 0]
