"""Times of samples, estimated from LSL time stamps with jitter."""

import math

import numpy as np

from brainhive_cli.core.base import Float64

MIN_LOSS_PERIODS = 0.75
"""Smallest delay that counts as a loss, in periods, with precise time stamps."""
MIN_LOSS_JITTERS = 4.0
"""Smallest delay that counts as a loss or a late stamp, in mean jitters."""
HOLD_S = 0.25
"""Duration of late samples after which they count as a loss. After a delay, samples are
soon punctual again.
"""


class SampleTimes:
    """Times and rate of the samples of a stream, oldest first.

    Samples without a loss are less than 1.5 periods apart, samples around a loss more
    than 1.7. LSL's own smoothing (`dejitter`) hides a loss and shifts all later times.

    Args:
        rate_hz: Nominal sampling rate.
    """

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._period_s = self._nominal_s = 1 / rate_hz
        self._hold = math.ceil(HOLD_S * rate_hz)
        # Assumed jitter at the start, typical of a busy program.
        first_jitter_s = 0.01
        self._jitter_s = first_jitter_s
        self._last_s = self._resumed_s = -math.inf
        self._locked = 0  # samples since the start, or since the last loss
        self._pending: list[float] = []
        self._measured = list[float]()
        self._is_measured = False

    def settle_times(self, timestamps: Float64) -> Float64:
        """Return the times that are certain now.

        Args:
            timestamps: Time stamps [n] of new samples, in seconds.

        Returns:
            Ascending times [m] of these and earlier samples. A time is NaN if the clock
            went back, and such a sample must be left out. The times of late samples
            are returned after up to `HOLD_S`, because samples may have been lost.
        """
        times = []
        for timestamp in timestamps.tolist():
            # the first sample is punctual by definition
            if self._last_s == -math.inf:
                self._last_s = timestamp - self._period_s
            self._pending.append(timestamp)

            # late samples wait until a sample is punctual again, or for HOLD_S
            limit_s = max(
                MIN_LOSS_PERIODS * self._nominal_s, MIN_LOSS_JITTERS * self._jitter_s
            )
            count = len(self._pending)
            is_late = abs(timestamp - self._last_s - count * self._period_s) > limit_s
            if is_late and count < self._hold:
                continue
            if is_late:
                self._skip_loss(limit_s)
            for pending_timestamp in self._pending:
                times.append(self._follow(pending_timestamp, limit_s))
            self._pending.clear()
        return np.array(times)

    def _skip_loss(self, limit_s: float) -> None:
        """Shift expected times if all pending samples differ by more than their jitter.

        Args:
            limit_s: Smallest shift.
        """
        numbers = np.arange(1, len(self._pending) + 1)
        expected_s = self._last_s + self._period_s * numbers
        late_s = np.array(self._pending) - expected_s
        shift_s = float(np.median(late_s))
        spread_s = float(np.median(np.abs(late_s - shift_s)))
        min_shift_s = max(limit_s, MIN_LOSS_JITTERS * spread_s)
        if np.min(late_s * np.sign(shift_s)) <= min_shift_s:
            return
        # times before a visible step from the last time will be NaN
        if shift_s < 0:
            resumed_s = self._last_s + (1 + MIN_LOSS_PERIODS) * self._nominal_s
            self._resumed_s = max(self._resumed_s, resumed_s)
        self._last_s += shift_s
        self._locked = 0

    def measure_rate(self, timestamps: Float64) -> float | None:
        """Measure the rate of the samples at the start and after each long gap.

        Args:
            timestamps: Time stamps [n] of new samples, in seconds.

        Returns:
            The rate, or None if it is not known yet or agrees with the nominal rate.
        """
        # Longest gap in a measurement of the rate, which begins again after
        # a longer gap.
        max_gap_s = 0.5
        # a gap, or a clock that goes back, restarts the measurement
        for timestamp in timestamps.tolist():
            is_gap = False
            if self._measured:
                is_gap = not 0 <= timestamp - self._measured[-1] <= max_gap_s
            if is_gap:
                self._is_measured = False
            # once the rate is known, only the last time stamp is stored
            if is_gap or self._is_measured:
                self._measured.clear()
            self._measured.append(timestamp)
        times_s = np.array(self._measured)
        # Duration in which the rate is measured in two halves. A momentary loss lies in
        # one of them.
        rate_window_s = 5.0
        if (
            self._is_measured
            or not len(times_s)
            or times_s[-1] - times_s[0] < rate_window_s
        ):
            return None

        # a wrong rate shows in both halves
        self._is_measured = True
        middle_s = (times_s[0] + times_s[-1]) / 2
        rates = []
        for half_s in np.split(times_s, [np.searchsorted(times_s, middle_s)]):
            rates.append((len(half_s) - 1) / (half_s[-1] - half_s[0]))
        ratios = np.array(rates) / self._rate_hz
        # Largest relative error of a rate. Chunks of 50 ms may be missing at both ends
        # of a half.
        rate_tolerance = 0.04
        is_higher = (ratios > 1 + rate_tolerance).all()
        is_lower = (ratios < 1 - rate_tolerance).all()
        return float(np.mean(rates)) if is_higher or is_lower else None

    def _follow(self, timestamp: float, limit_s: float) -> float:
        """Return the next time, corrected by its time stamp. NaN after a step back."""
        # an outlier pulls by the limit at most
        late_s = timestamp - self._last_s - self._period_s
        # Time constant of the running mean of the jitter.
        jitter_s = 2.0
        self._jitter_s += (abs(late_s) - self._jitter_s) / (jitter_s * self._rate_hz)
        pull_s = min(limit_s, max(-limit_s, late_s))

        # average at first, later a critically damped loop, which learns the period
        self._locked += 1
        # Time constant of the phase-locked loop. A drift of 100 ppm lags by .5 ms until
        # the period is learned. Jitter is averaged over about 500 chunks of 10 samples
        # at 1000 Hz.
        lock_s = 5.0
        gain = max(1 / (self._locked + 1), 1 / (lock_s * self._rate_hz))
        # Largest correction of a step, in periods, so that it does not look
        # like a loss.
        max_step_s = 0.4 * self._nominal_s
        correction_s = min(max_step_s, max(-max_step_s, gain * pull_s))
        self._last_s += self._period_s + correction_s
        if self._locked > lock_s * self._rate_hz:
            self._period_s += gain**2 / 4 * pull_s
        return self._last_s if self._last_s >= self._resumed_s else math.nan
