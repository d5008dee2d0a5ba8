"""Replay of a recorded file at its rate: any file that `prepare --from recording`
reads.
"""

from collections import Counter
from pathlib import Path

import numpy as np
from pydantic import Field

from brainhive_cli.core.command import Input
from brainhive_cli.core.console import warn
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import locate
from brainhive_cli.data.files.bids_labels import read_simulated
from brainhive_cli.data.recordings.headers import RecordingKeys, read_header
from brainhive_cli.data.recordings.opening import CHANNEL_UNITS, open_raw
from brainhive_cli.data.recordings.stim_channels import FindPictures
from brainhive_cli.data.streams import (
    Blocks,
    Clock,
    Event,
    Replay,
    StreamConfig,
    StreamFormat,
    StreamRequest,
)

BLOCK_S = 10.0
"""Part of a file that is read at once."""


class Config(StreamConfig, RecordingKeys):
    """A recording in fif, edf, bdf, set or vhdr."""

    is_file = True

    file: str = Field("", description="the recording")
    delay_ms: float | None = Field(
        None,
        ge=-600_000,
        le=600_000,
        description="ms from an event to its picture on the screen; default: "
        "preparation.delay_ms of the model's signals",
    )
    speed: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="seconds of the recording that are replayed a second",
    )

    def find_file(self) -> Path:
        """Find the recording.

        Raises:
            RecipeError: if none is named.
            MissingData: if it is not there.
        """
        if not self.file:
            raise RecipeError(
                "no recording is named to be replayed", "source.file=sub-01_ses-01.fif"
            )
        path = locate(self.file)
        if not path.is_file():
            raise MissingData(f"no recording {path}", "source.file=FILE that mne opens")
        return path

    def inputs(self) -> list[Input]:
        """List the file; raises RecipeError if none is named."""
        try:
            return [Input(str(self.find_file()))]
        except MissingData as error:
            return [Input(str(locate(self.file)), error=error)]

    def build(self, request: StreamRequest) -> Replay:
        """Open the recording.

        Raises:
            RecipeError: if no file is named.
            MissingData: if there is none, or it cannot be read.
            BrainhiveError: if it has no events.
        """
        path = self.find_file()
        delay_ms = self.delay_ms
        delay_s = request.delay_s
        delay_s = delay_s if delay_ms is None else delay_ms / 1000
        return replay(
            self,
            path,
            request.span_s,
            Clock(self.speed),
            delay_s,
            request.find_pictures,
        )


TINY = Config(file="sub-01_ses-01.fif")


def replay(
    config: Config,
    path: Path,
    span_s: tuple[float, float],
    clock: Clock,
    delay_s: float = 0.0,
    find_pictures: FindPictures = lambda events: (),
) -> Replay:
    """Let a recording arrive as if it were recorded now.

    Args:
        config: Its keys.
        path: Its file.
        span_s: Start and stop of a window after an event, which no BAD span may
            overlap.
        clock: Decides what has arrived.
        delay_s: Seconds from an event to its picture, which are added.
        find_pictures: As of `read_header`.
    """
    # header first, as doubts and errors cost no reading of samples
    try:
        header = read_header(path, config, delay_s, find_pictures)
    except BrainhiveError as error:
        # whose keys are those of prepare, which has the same
        error.message, error.hint = (
            text.replace("preparation.files", "source.file").replace(
                "preparation.", "source."
            )
            for text in (error.message, error.hint)
        )
        raise
    for doubt in header.warnings:
        warn(f"{path.name}: {doubt}")
    raw = open_raw(path, config.onset_unit == "s", config.rename, config.montage)
    rate_hz = header.rate_hz

    # events outside of BAD spans, each once
    reasons: Counter[str] = Counter()
    events = []
    first, last = (round(time_s * rate_hz) for time_s in span_s)
    for onset, name in sorted({*header.events}):
        if reason := header.find_bad_span(onset, (first, last)):
            reasons[reason] += 1
        else:
            events.append((onset, name))

    # units in which prepared signals are stored
    scaled = [CHANNEL_UNITS.get(kind, (1.0, "SI")) for kind in header.ch_types]
    scales = np.array([scale for scale, _ in scaled])
    stream_format = StreamFormat(
        path.name,
        header.ch_names,
        header.ch_types,
        tuple(unit for _, unit in scaled),
        rate_hz,
        header.positions,
        simulated=read_simulated(path),
        dropped=reasons,
    )

    # read in blocks, as a recording may be larger than memory
    def read_blocks() -> Blocks:
        step = max(1, round(BLOCK_S * rate_hz))
        for start in range(0, header.n_times, step):
            stop = min(start + step, header.n_times)
            block = raw.get_data(start=start, stop=stop).T * scales  # [n, C]
            yield (
                block,
                [
                    Event(float(replayed.compute_times(at)), name)
                    for at, name in events
                    if start <= at < stop
                ],
            )

    starts = [after for _, after in header.breaks]
    replayed = Replay(stream_format, clock, read_blocks(), starts)
    return replayed
