"""An onset is not reported before the effect begins, under any filter."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from scipy.signal import lfilter
from scipy.signal.windows import tukey
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from benchmarks.simulated_statistics import Random
from brainhive_cli.data.recordings.samples import filter_samples
from brainhive_cli.data.signals.cutting import Cutting, Steps
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.evaluation.explanation.claims import bound_onsets
from brainhive_cli.evaluation.explanation.findings import (
    ONSET_BEFORE_STIMULUS,
    ONSET_UNKNOWN,
    Finding,
)
from brainhive_cli.evaluation.explanation.profiles import (
    Axis,
    correct_p_values,
    standardise,
)

AXES: Mapping[str, Sequence[Any]] = {
    "band_hz": (
        (None, None),
        (None, 40),
        (1, 40),
        (0.1, 40),
        (0.5, 30),
        (2, 20),
    ),
    "baseline": (False, True),
    "length_ms": (300, 500),
}
COLUMNS = "found | before the effect | said to begin too early | unknown"


def onsets(random: Random, band_hz: Any, baseline: bool, length_ms: int) -> list[float]:
    """Test the reported onset of an effect that begins at 250 ms, in filtered noise."""
    # 320 trials of two categories, with 8 channels at 250 Hz
    fields: Any = {
        "epoch_ms": (-200, 800),
        "keep_ms": (-200, 800),
        "baseline": baseline,
        "whiten": "no",
    }
    cutting = Cutting(Steps.model_validate(fields), 250.0)
    labels = random.permutation(np.arange(320) % 2)
    onsets = 2500 + np.cumsum(random.integers(250, 350, 320))
    noise = random.normal(size=(8, onsets[-1] + 2500))
    slow_noise = lfilter([0.2], [1, -0.98], noise)
    samples = slow_noise + 0.5 * random.normal(size=noise.shape)
    patterns = random.normal(size=(2, 8))
    course = 1.5 * tukey(length_ms // 4, 0.2)
    for start, label in zip(onsets + 62, labels, strict=True):
        samples[:, start : start + len(course)] += patterns[label, :, None] * course
    filtered = [filter_samples(channel, 250.0, band_hz, "zero") for channel in samples]
    names = [str(number) for number in range(8)]
    trials = cutting.cut_trials(filtered, names, onsets, 1.0)

    # decode windows of 48 ms, training on half of the trials and testing on the other
    means = trials[:, :, :240].reshape(320, 8, 20, 12).mean(3)
    hits = np.empty((20, 320), np.int64)
    is_early_trial = np.arange(320) < 160
    for window, is_train in product(range(20), (is_early_trial, ~is_early_trial)):
        classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        classifier.fit(means[is_train, :, window], labels[is_train])
        hits[window, ~is_train] = classifier.predict(means[~is_train, :, window])
    permuted = random.permuted(np.tile(labels, (200, 1)), axis=1)
    accuracy = (hits == labels).mean(1)
    scores = standardise(accuracy, (permuted[:, None] == hits).mean(2))

    # compare the reported onset with the truth
    recording = Trials(
        trials,
        (),
        Sensors(names),
        cutting.times_s,
        250.0,
        "uV",
        {"preparation": fields | {"band_hz": band_hz}},
    )
    windows = np.stack([np.arange(20), np.arange(1, 21)], 1).astype(float)
    axis = Axis.from_windows(-200 + 48 * windows)
    finding = Finding(
        "decoding", "accuracy", axis, [], {}, scores, correct_p_values([scores])[0]
    )
    window = finding.first_above_chance
    if window is None:
        return [0.0, 0.0, 0.0, 0.0]
    bounded = bound_onsets([finding], [recording])[0][0]
    is_early = -200 + 48 * (window + 1) <= 250
    is_unknown = bounded.onset_description in (ONSET_UNKNOWN, ONSET_BEFORE_STIMULUS)
    is_wrong = is_early and not is_unknown and bounded.latest_onset_ms <= 250
    return [1.0, is_early, is_wrong, is_unknown]
