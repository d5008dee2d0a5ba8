"""Times of samples, from timestamps that jitter: even steps, except where samples were
lost.

LSL's own smoothing (`dejitter`) counts samples, so that a loss of 3 s shifts all later
times by as much, for tens of seconds, and shows no step. Unsmoothed timestamps show
steps of many samples wherever a program timestamps its samples late. Hence this loop: a
phase-locked one, which is restarted where a loss is certain.
"""

import math

import numpy as np

from brainhive_cli.core.arrays import Float64

LOCK_S = 5.0
"""Time constant of the loop: 100 ppm of drift lag by .5 ms until the period is learned,
and jitter is averaged over some 500 chunks of 10 samples at 1000 Hz.
"""
JITTER_S, FIRST_JITTER_S = 2.0, 0.01
"""Time constant of the running mean of the jitter, and its value at the start: that of
a busy program.
"""
LEAST_LOSS = 0.75
"""Part of a period by which later samples are late when one is lost; with precise
timestamps.
"""
JITTERS = 4.0
"""Mean jitters beyond which a timestamp is either late or follows a loss."""
MOST_CORRECTION = 0.4
"""Part of a period by which a step is corrected at most, so that no step without loss
looks like one.
"""
HOLD_S = 0.25
"""Duration of samples that are all late until they are said to follow a loss: after a
late chunk others are punctual.
"""
RATE_S = 5.0
"""Seconds in which a stream's rate is measured, in two halves: losses of a moment lie
in one of them.
"""
RATE_TOLERANCE = 0.04
"""Share by which it may differ: chunks of 50 ms may be missing at both ends of a
half.
"""
MOST_GAP_S = 0.5
"""Seconds without samples after which the measurement begins again, as after a restart
of the sender.
"""


class SampleTimes:
    """Times and rate of the samples of one stream, oldest first.

    Samples without loss are less than 1.5 periods apart, those around a loss more than
    1.7.

    Args:
        rate_hz: Nominal sampling rate.
    """

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._period_s = self._nominal_s = 1 / rate_hz
        self._hold = math.ceil(HOLD_S * rate_hz)
        self._jitter_s = FIRST_JITTER_S
        self._last_s = self._resumed_s = -math.inf
        self._locked = 0  # samples since the start, or since the last loss
        self._pending: list[float] = []
        self._measured = list[float]()
        self._is_measured = False

    def settle_times(self, timestamps: Float64) -> Float64:
        """Give the times of the oldest samples that have none yet.

        Args:
            timestamps: [n] timestamps of the samples that came, in seconds.

        Returns:
            [m] times, ascending; fewer than came while it is open whether samples were
            lost, for HOLD_S at most. NaN for samples to leave out, whose times others
            had before: the clock went back.
        """
        times = []
        for stamp in timestamps.tolist():
            # the first sample is on time by definition
            if self._last_s == -math.inf:
                self._last_s = stamp - self._period_s
            self._pending.append(stamp)

            # samples that came late are explained by one that is punctual again
            count = len(self._pending)
            limit_s = max(LEAST_LOSS * self._nominal_s, JITTERS * self._jitter_s)
            if abs(stamp - self._last_s - count * self._period_s) > limit_s:
                if count < self._hold:
                    continue

                # a shift of all, large against their own jitter, is a loss
                expected_s = self._last_s + self._period_s * np.arange(1, count + 1)
                late_s = np.array(self._pending) - expected_s
                shift_s = float(np.median(late_s))
                spread_s = float(np.median(np.abs(late_s - shift_s)))
                if np.min(late_s * np.sign(shift_s)) > max(limit_s, JITTERS * spread_s):
                    # times that were given stay, and the next ones show the step
                    if shift_s < 0:
                        self._resumed_s = max(
                            self._resumed_s,
                            self._last_s + (1 + LEAST_LOSS) * self._nominal_s,
                        )
                    self._last_s += shift_s
                    self._locked = 0
            times += [self._follow(each, limit_s) for each in self._pending]
            self._pending.clear()
        return np.array(times)

    def measure_rate(self, timestamps: Float64) -> float | None:
        """Measure the rate at which samples really come, at the start and after each
        long gap.

        Args:
            timestamps: [n] timestamps of the samples that came, in seconds.

        Returns:
            The rate, once it is known and differs from the nominal one.
        """
        # a gap or a clock that goes back, as after a restart of the sender, starts the
        # measurement again
        for stamp in timestamps.tolist():
            is_gap = (
                bool(self._measured)
                and not 0 <= stamp - self._measured[-1] <= MOST_GAP_S
            )
            self._is_measured &= not is_gap
            # of a rate that is known, the last timestamp alone is kept
            if is_gap or self._is_measured:
                self._measured.clear()
            self._measured.append(stamp)
        all_s = np.array(self._measured)
        if self._is_measured or not len(all_s) or all_s[-1] - all_s[0] < RATE_S:
            return None

        # both halves of the time differ to the same side
        self._is_measured = True
        halves = np.split(
            all_s, [int(np.searchsorted(all_s, (all_s[0] + all_s[-1]) / 2))]
        )
        rates = np.array([(len(half) - 1) / (half[-1] - half[0]) for half in halves])
        ratios = rates / self._rate_hz
        is_other = (ratios > 1 + RATE_TOLERANCE).all() or (
            ratios < 1 - RATE_TOLERANCE
        ).all()
        return float(rates.mean()) if is_other else None

    def _follow(self, stamp: float, limit_s: float) -> float:
        """Step by a period, corrected a little towards the timestamp."""
        # jitter as a running mean; a single outlier pulls by the limit at most
        late_s = stamp - self._last_s - self._period_s
        self._jitter_s += (abs(late_s) - self._jitter_s) / (JITTER_S * self._rate_hz)
        pull_s = min(limit_s, max(-limit_s, late_s))

        # the mean of all so far; later a critically damped loop, which learns the
        # period too
        self._locked += 1
        gain = max(1 / (self._locked + 1), 1 / (LOCK_S * self._rate_hz))
        most_s = MOST_CORRECTION * self._nominal_s
        self._last_s += self._period_s + min(most_s, max(-most_s, gain * pull_s))
        if self._locked > LOCK_S * self._rate_hz:
            self._period_s += gain**2 / 4 * pull_s
        return self._last_s if self._last_s >= self._resumed_s else math.nan
