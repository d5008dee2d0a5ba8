"""The test of a live hit rate keeps its level over all trials together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincc, betaln, xlog1py, xlogy

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.judging import LEVEL
from brainhive_cli.measurement.confidence_sequence import PRIOR_A, PRIOR_B, HitRate

AXES: Mapping[str, Sequence[Any]] = {
    "shown": [
        "2",
        "4",
        "10",
        "100",
        "80/20",
        "60/20/20",
        "95/5",
        "shares change",
        "10 in rounds",
        "4 in blocks",
    ],
    "answers": [
        "most frequent",
        "as frequent",
        "random",
        "drifting",
        "0.05 right",
        "0.2 right",
    ],
}
COLUMNS = (
    "ever p <= .05 | by 1 / pictures | in 200 trials | by 1 / pictures | in blocks"
)


def live_tests(
    random: Random, shown: str, answers: str, trials: int = 2000
) -> list[float]:
    """Test whether a hit rate ever exceeds chance after any trial.

    Answers are unrelated to the pictures, or right in a share of the trials. For
    comparison, another test takes 1 / pictures as chance. The share of sessions that
    are reported to come in blocks is counted, too.
    """
    pictures, count = draw_pictures(random, shown, trials)
    shares = np.bincount(pictures, minlength=count) / trials
    walks = np.cumsum(random.normal(size=(trials, count)), axis=0)
    if answers == "most frequent":
        guesses = np.full(trials, shares.argmax())
    elif answers == "as frequent":
        guesses = random.choice(count, trials, p=shares)
    elif answers == "drifting":
        guesses = (walks - walks.mean(0)).argmax(1)
    else:
        guesses = random.integers(count, size=trials)
    if answers.endswith("right"):
        is_informed = random.random(trials) < float(answers.split()[0])
        guesses = np.where(is_informed, pictures, guesses)

    # our test
    rate = HitRate(count)
    p_values = []
    for picture, guess in zip(pictures.tolist(), guesses.tolist(), strict=True):
        rate.add(str(picture), str(guess))
        p_values.append(rate.p_value)
    is_significant = np.array(p_values) <= LEVEL

    # the beta mixture of rates above 1 / pictures
    n = np.arange(1, trials + 1)
    k = np.cumsum(pictures == guesses)
    posterior = betaincc(k + PRIOR_A, n - k + PRIOR_B, 1 / count)
    weight = posterior / betaincc(PRIOR_A, PRIOR_B, 1 / count)
    ratio = (
        betaln(k + PRIOR_A, n - k + PRIOR_B)
        - betaln(PRIOR_A, PRIOR_B)
        - xlogy(k, 1 / count)
        - xlog1py(n - k, -1 / count)
    )
    exceeds_share = np.log(np.maximum(weight, 1e-300)) + ratio >= -np.log(LEVEL)
    return [
        is_significant.any(),
        exceeds_share.any(),
        is_significant[:200].any(),
        exceeds_share[:200].any(),
        not rate.is_interleaved,
    ]


def draw_pictures(
    random: Random, shown: str, trials: int
) -> tuple[NDArray[np.int64], int]:
    """Draw the picture of each trial. Returns them [trials] and their number."""
    if shown == "shares change":
        share = 0.5 + 0.3 * np.cos(np.linspace(0, np.pi, trials))
        return (random.random(trials) > share).astype(np.int64), 2

    # "10" stands for ten equally frequent pictures, "80/20" for percentages
    if "/" in shown:
        shares = np.array([float(share) for share in shown.split("/")])
        probabilities = shares / shares.sum()
        count = len(shares)
    else:
        probabilities = None
        count = int(shown.split()[0])
    if shown.endswith("in blocks"):
        blocks = random.integers(count, size=-(-trials // 10))
        return np.repeat(blocks, 10)[:trials], count
    if shown.endswith("in rounds"):
        rounds = np.tile(np.arange(count), (trials // count, 1))
        return random.permuted(rounds, axis=1).ravel(), count
    return random.choice(count, trials, p=probabilities), count
