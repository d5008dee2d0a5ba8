"""Replay of a recorded file at its rate: any file that `prepare --from recording` reads."""

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.console import warn
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import locate
from brainhive_cli.core.inputs import Input, require
from brainhive_cli.data.electrodes import Cap
from brainhive_cli.data.exchange.session_folder import read_simulated
from brainhive_cli.data.recording_files import UNITS, open_raw
from brainhive_cli.data.recording_headers import read_header
from brainhive_cli.data.streams import Chunk, Clock, Event, StreamConfig, StreamFormat, Wanted

CHUNK_S = 0.02
"""Samples arrive in chunks of this length, as those of amplifiers do."""
BLOCK_S = 10.0
"""Part of a file that is read at once."""


class Config(StreamConfig):
    """A recording in fif, edf, bdf, set or vhdr."""

    file: str = Field("", description="the recording")
    speed: float = Field(1.0, gt=0, le=1e6, description="seconds of the recording that are replayed a second")
    column: str = Field(
        "",
        description="column of the events.tsv next to it that describes events; default: stim_file, or where "
        "there is none the annotations",
    )
    onset_unit: Literal["s", "ms"] = Field("s", description="unit of the onsets in that events.tsv")
    stim_channel: str = Field(
        "", description="channel whose codes are the events; default: any, if there are no annotations"
    )
    rename: dict[str, str] = Field({}, description="name of a channel in the file: its name for the model")
    montage: str = Field("", description="cap, as mne calls it; default: the file's positions")

    @model_validator(mode="after")
    def _has_a_table_of_that_unit(self) -> Self:
        if self.onset_unit != "s" and (self.stim_channel or not self.column):
            raise ValueError(f"onset_unit {self.onset_unit} needs a column of the events.tsv")
        return self

    def inputs(self) -> list[Input]:
        """List the file.

        Raises:
            RecipeError: if none is named.
        """
        if not self.file:
            raise RecipeError("no recording is named to be replayed", "source.file=sub-01_ses-01.fif")
        path = locate(self.file)
        missing = MissingData(f"no recording {path}", "source.file=FILE that mne opens")
        return [Input(str(path), error=None if path.is_file() else missing)]

    def build(self, wanted: Wanted) -> "ReplayedRecording":
        """Open the recording.

        Raises:
            RecipeError: if no file is named.
            MissingData: if there is none, or it cannot be read.
            BrainhiveError: if it has no events.
        """
        require(self.inputs())
        return ReplayedRecording(self, locate(self.file), wanted.span_s, Clock(self.speed))


TINY = Config(file="sub-01_ses-01.fif")


class ReplayedRecording:
    """A recording that arrives as if it were recorded now.

    Args:
        config: Its keys.
        path: Its file.
        span_s: Start and stop of a window after an event, which no BAD span may overlap.
        clock: Decides what has arrived.
    """

    def __init__(self, config: Config, path: Path, span_s: tuple[float, float], clock: Clock) -> None:
        self.path, self.clock, self._next = path, clock, 0
        cap = Cap(config.rename, config.montage)
        try:
            header = read_header(path, config.column, config.stim_channel, config.onset_unit, cap)
        except BrainhiveError as error:  # whose keys are those of prepare, which has the same
            error.message, error.hint = (
                text.replace("preparation.", "source.") for text in (error.message, error.hint)
            )
            raise
        for doubt in header.doubts:
            warn(f"{path.name}: {doubt}")
        self._raw = open_raw(path, config.onset_unit == "s", cap)
        self._samples, self._rate_hz = header.samples, header.rate_hz

        # events outside of BAD spans, each once
        reasons: Counter[str] = Counter()
        events = []
        first, last = (round(time_s * header.rate_hz) for time_s in span_s)
        for onset, name in sorted({*header.events}):
            if reason := header.find_bad_span(onset, (first, last)):
                reasons[reason] += 1
            else:
                events.append((onset, name))
        self._events = events

        # units in which prepared signals are stored
        scaled = [UNITS.get(kind, (1.0, "SI")) for kind in header.types]
        self._scales = np.array([scale for scale, _ in scaled])
        self.format = StreamFormat(
            path.name,
            header.names,
            header.types,
            tuple(unit for _, unit in scaled),
            header.rate_hz,
            header.positions,
            simulated=read_simulated(path),
            dropped=reasons,
        )

    def now_s(self) -> float:
        """Read the clock of the recording, whose first sample is at 0."""
        return self.clock.now_s()

    def read(self, wait_s: float) -> Chunk | None:
        """Return the samples that are due, and the events among them; waits for a chunk of them."""
        if self._next >= self._samples:
            return None
        stop = min(self._next + max(1, round(CHUNK_S * self._rate_hz)), self._samples)
        empty = Chunk(np.empty((0, len(self._scales))), np.empty(0))
        if not self.clock.wait_until((stop - 1) / self._rate_hz, wait_s):
            return empty

        # all that is due by now, at most to the end of the block in memory
        start, block_start = self._next, self._block[0]
        due = int(self.now_s() * self._rate_hz) + 1
        stop = min(max(stop, due), self._samples, block_start + len(self._block[1]))
        samples = self._block[1][start - block_start : stop - block_start]
        self._next = stop
        if stop == block_start + len(self._block[1]):
            del self._block  # the next part is read when it is needed
        events = tuple(Event(at / self._rate_hz, name) for at, name in self._events if start <= at < stop)
        return Chunk(samples, np.arange(start, stop) / self._rate_hz, events)

    @cached_property
    def _block(self) -> tuple[int, Float64]:
        """First sample, and samples [n, C] of the part of the file that is replayed now."""
        stop = min(self._next + max(1, round(BLOCK_S * self._rate_hz)), self._samples)
        block = self._raw.get_data(start=self._next, stop=stop).T * self._scales  # [n, C]
        return self._next, np.ascontiguousarray(block)

    def close(self) -> None:
        """Close the file."""
        self._raw.close()
