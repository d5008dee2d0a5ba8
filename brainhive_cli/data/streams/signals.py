"""Replay of a signal store, trial by trial, as if each had just been recorded."""

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import Array, MissingData
from brainhive_cli.data.signals import CutWindow, Trials
from brainhive_cli.data.streams import Clock, StreamConfig, StreamRequest


class Config(StreamConfig):
    """Signal store of the person, replayed in the order of the recording."""

    has_windows = True

    interval_s: float = Field(
        1.2, gt=0, le=3600, description="seconds between the starts of two trials"
    )
    speed: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="speed of the replay; 2: twice as fast as it was recorded",
    )

    def build(self, request: StreamRequest) -> "ReplayedTrials":
        """Open the store.

        Raises:
            MissingData: if the person has no signal store.
        """
        recording = request.open_recording()
        if recording is None:
            raise MissingData(
                "the person has no signal store to replay",
                "prepare the signals of the person, or use --source mock",
            )
        return ReplayedTrials(recording, self.interval_s, Clock(self.speed))


TINY = Config()


class ReplayedTrials:
    """Trials of a recording at equal intervals, in their order in time.

    Trials whose time is unknown come in random order within their run.

    Args:
        recording: The trials.
        interval_s: Time between the starts of two trials.
        clock: Clock that decides which trials are due.

    Attributes:
        template: The first trial.
    """

    def __init__(self, recording: Trials, interval_s: float, clock: Clock) -> None:
        self.recording = recording
        self.clock = clock
        self._interval_s = interval_s
        self._next = 0
        # order [n] of the trials. The last key is sorted first
        n_trials = len(recording.signal)
        # Seed of the order of trials whose time is unknown.
        keys: list[Array] = [np.random.default_rng(0).permutation(n_trials)]
        for times in (recording.times_in_run, recording.runs, recording.sessions):
            if times is not None:
                keys.append(times)
        self._order = np.lexsort(keys)
        # all trials have the channels, times and preparation of the first
        self.template = recording.hold_out(np.arange(n_trials) == 0, "test")

    def now_s(self) -> float:
        """Return the time of the replay, whose first trial begins at 0."""
        return self.clock.now_s()

    def read_windows(self, wait_s: float) -> list[CutWindow] | None:
        """Wait up to `wait_s`, and return due trials, or None after the last."""
        if self._next >= len(self._order):
            return None
        # a window is due when its last sample would have been recorded
        length_s = float(self.recording.times_s[-1])
        windows: list[CutWindow] = []
        # Largest number of windows in a call, which limits the memory of a fast replay.
        while self._next < len(self._order) and len(windows) < 64:
            time_s = self._next * self._interval_s
            stop_s = time_s + length_s
            # wait for the first window only
            if not self.clock.wait_until(stop_s, 0.0 if windows else wait_s):
                break
            row = self._order[self._next]
            signal = np.asarray(self.recording.signal[row])
            name = self.recording.image_ids[row]
            windows.append(
                CutWindow(name, time_s, self._next, signal.astype(np.float32), stop_s)
            )
            self._next += 1
        return windows

    def close(self) -> None:
        """Do nothing, as the store stays mapped."""
