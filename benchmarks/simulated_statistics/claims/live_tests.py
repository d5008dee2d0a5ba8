"""The test of a live hit rate keeps its level however often it is looked at."""

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
    """A test of a hit rate that is looked at after each trial: whether it ever says
    more than chance.

    Answers know nothing, or are right in a share of the trials more than by chance.
    Beside our test stands the one against 1 / pictures. Given is also the share of
    sessions that are said to come in blocks.
    """
    pictures, count = draw_pictures(random, shown, trials)
    shares = np.bincount(pictures, minlength=count) / trials
    walks = np.cumsum(random.normal(size=(trials, count)), axis=0)
    answered = {
        "most frequent": lambda: np.full(trials, shares.argmax()),
        "as frequent": lambda: random.choice(count, trials, p=shares),
        "drifting": lambda: (walks - walks.mean(0)).argmax(1),
    }.get(answers, lambda: random.integers(count, size=trials))()
    if answers.endswith("right"):
        answered = np.where(
            random.random(trials) < float(answers.split()[0]), pictures, answered
        )

    # ours, and the beta mixture of rates above 1 / pictures
    rate, p_values = HitRate(count), []
    for first, second in zip(pictures.tolist(), answered.tolist(), strict=True):
        rate.add(str(first), str(second))
        p_values.append(rate.p_value)
    n, k = np.arange(1, trials + 1), np.cumsum(pictures == answered)
    weight = betaincc(k + PRIOR_A, n - k + PRIOR_B, 1 / count) / betaincc(
        PRIOR_A, PRIOR_B, 1 / count
    )
    ratio = (
        betaln(k + PRIOR_A, n - k + PRIOR_B)
        - betaln(PRIOR_A, PRIOR_B)
        - xlogy(k, 1 / count)
        - xlog1py(n - k, -1 / count)
    )
    is_more = np.log(np.maximum(weight, 1e-300)) + ratio >= -np.log(LEVEL)
    is_ours = np.array(p_values) <= LEVEL
    return [
        is_ours.any(),
        is_more.any(),
        is_ours[:200].any(),
        is_more[:200].any(),
        not rate.is_interleaved,
    ]


def draw_pictures(
    random: Random, shown: str, trials: int
) -> tuple[NDArray[np.int64], int]:
    """Draw which picture each trial shows, and count them: by shares, which may change,
    or in an order.
    """
    if shown == "shares change":
        share = 0.5 + 0.3 * np.cos(np.linspace(0, np.pi, trials))
        return (random.random(trials) > share).astype(np.int64), 2
    shares = np.array([*map(float, shown.split()[0].split("/"))])
    count = len(shares) if len(shares) > 1 else int(shares[0])
    if shown.endswith("in blocks"):
        return np.repeat(random.integers(count, size=-(-trials // 10)), 10)[
            :trials
        ], count
    if shown.endswith("in rounds"):
        return random.permuted(
            np.tile(np.arange(count), (trials // count, 1)), axis=1
        ).ravel(), count
    return random.choice(
        count, trials, p=shares / shares.sum() if len(shares) > 1 else None
    ), count
