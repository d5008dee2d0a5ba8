"""An onset is not said to begin before the effect, whatever the filter."""

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
    """First time above chance of an effect from 250 ms on, in trials cut out of
    zero-phase filtered noise.
    """
    # two categories in 320 trials, 8 channels, 250 Hz
    fields: Any = {
        "epoch_ms": (-200, 800),
        "keep_ms": (-200, 800),
        "baseline": baseline,
        "whiten": "no",
    }
    steps, shown = Steps.model_validate(fields), random.permutation(np.arange(320) % 2)
    begins = 2500 + np.cumsum(random.integers(250, 350, 320))
    samples = random.normal(size=(8, begins[-1] + 2500))
    samples = lfilter([0.2], [1, -0.98], samples) + 0.5 * random.normal(
        size=samples.shape
    )
    patterns, course = random.normal(size=(2, 8)), 1.5 * tukey(length_ms // 4, 0.2)
    for begin, category in zip(begins + 62, shown, strict=True):
        samples[:, begin : begin + len(course)] += patterns[category, :, None] * course
    filtered = [filter_samples(channel, 250.0, band_hz, "zero") for channel in samples]
    cutting, names = Cutting(steps, 250.0), [str(number) for number in range(8)]
    trials = cutting.cut_trials(filtered, names, begins, 1.0)

    # windows of 48 ms, decoded in two halves
    means = trials[:, :, :240].reshape(320, 8, 20, 12).mean(3)
    hits, is_first = np.empty((20, 320), np.int64), np.arange(320) < 160
    for window, half in product(range(20), (is_first, ~is_first)):
        classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        classifier.fit(means[half, :, window], shown[half])
        hits[window, ~half] = classifier.predict(means[~half, :, window])
    permuted = random.permuted(np.tile(shown, (200, 1)), axis=1)
    scores = standardise((hits == shown).mean(1), (permuted[:, None] == hits).mean(2))

    # what is said of it
    signal, source = trials[:, None], {"preparation": {**fields, "band_hz": band_hz}}
    recording = Trials(signal, (), Sensors(names), cutting.times_s, 250.0, "uV", source)
    axis = Axis.from_windows(
        -200 + 48 * np.stack([np.arange(20), np.arange(1, 21)], 1).astype(float)
    )
    finding = Finding(
        "decoding", "accuracy", axis, [], {}, scores, correct_p_values([scores])[0]
    )
    first = finding.first_above_chance
    if first is None:
        return [0.0, 0.0, 0.0, 0.0]
    (bounded,), _ = bound_onsets([finding], [recording])
    is_early = -200 + 48 * (first + 1) <= 250
    is_unknown = bounded.onset_description in (ONSET_UNKNOWN, ONSET_BEFORE_STIMULUS)
    is_wrong = is_early and not is_unknown and bounded.latest_onset_ms <= 250
    return [1.0, is_early, is_wrong, is_unknown]
