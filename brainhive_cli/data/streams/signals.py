"""Single trials of a signal store, one after the other, as if each had just been
recorded and prepared.
"""

import numpy as np
from pydantic import Field

from brainhive_cli.core.errors import MissingData
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.signals.windows import CutWindow
from brainhive_cli.data.streams import Clock, StreamConfig, StreamRequest

SEED = 0
"""Seed of the order of trials."""


class Config(StreamConfig):
    """Signal store of the person in the run's data set, whose trials come in random
    order.
    """

    has_windows = True

    interval_s: float = Field(
        1.2, gt=0, le=3600, description="seconds from trial to trial"
    )
    speed: float = Field(
        1.0, gt=0, le=1e6, description="seconds of the replay in a second"
    )

    def build(self, request: StreamRequest) -> "ReplayedTrials":
        """Open the store.

        Raises:
            MissingData: if the person has none.
        """
        recording = request.open_recording()
        if recording is None:
            raise MissingData(
                "the person has no signal store to replay",
                "prepare it, or --source mock",
            )
        return ReplayedTrials(recording, self.interval_s, Clock(self.speed))


TINY = Config()


class ReplayedTrials:
    """Trials of a recording at equal intervals.

    Args:
        recording: The trials.
        interval_s: From trial to trial.
        clock: Decides which are due.

    Attributes:
        template: The first trial.
    """

    def __init__(self, recording: Trials, interval_s: float, clock: Clock) -> None:
        self.recording = recording
        self.clock = clock
        self._interval_s = interval_s
        self._next = 0
        # trials that exist, as item and repetition, in random order
        rows = np.argwhere(recording.is_there)  # [trials, 2]
        self._trials = rows[np.random.default_rng(SEED).permutation(len(rows))]
        # the first trial shows channels, times and preparation of all
        is_first = np.zeros_like(recording.is_there)
        is_first[0, 0] = True
        self.template = recording.hold_out(is_first, "test")

    def now_s(self) -> float:
        """Read the clock of the replay, whose first trial begins at 0."""
        return self.clock.now_s()

    def read_windows(self, wait_s: float) -> list[CutWindow] | None:
        """Return the trials whose last sample is due."""
        if self._next >= len(self._trials):
            return None
        # a window is due when its last sample would have been recorded
        length_s = float(self.recording.times_s[-1])
        windows: list[CutWindow] = []
        while self._next < len(self._trials):
            time_s = self._next * self._interval_s
            # after the first window nothing is waited for, so that it is not delayed
            if not self.clock.wait_until(time_s + length_s, 0.0 if windows else wait_s):
                break
            # one trial [C, T] of the mapped store
            item, repetition = self._trials[self._next].tolist()
            signal = np.asarray(self.recording.signal[item : item + 1])[
                0, repetition
            ].astype(np.float32)
            name = self.recording.image_ids[item]
            windows.append(
                CutWindow(name, time_s, self._next, signal, time_s + length_s)
            )
            self._next += 1
            if len(windows) == 64:  # so that a fast replay does not fill the memory
                break
        return windows

    def close(self) -> None:
        """Do nothing: the store is mapped."""
