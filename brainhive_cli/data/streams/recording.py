"""Replay of a file that `prepare --from recording` reads, at its sampling rate."""

from collections import Counter
from pathlib import Path

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import BrainhiveError, MissingData, RecipeError, warn
from brainhive_cli.core.files import Input, locate
from brainhive_cli.data.files import read_simulated
from brainhive_cli.data.recordings import (
    CHANNEL_UNITS,
    FindPictures,
    RecordingKeys,
    open_raw,
    read_header,
)
from brainhive_cli.data.streams import (
    Clock,
    Event,
    Replay,
    SampleBlocks,
    StreamConfig,
    StreamFormat,
    StreamRequest,
)


class Config(StreamConfig, RecordingKeys):
    """Recording in fif, edf, bdf, set or vhdr."""

    is_file = True

    file: str = Field("", description="path of the recording")
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
        description="speed of the replay; 2: twice as fast as it was recorded",
    )

    def find_file(self) -> Path:
        """Find the recording.

        Raises:
            RecipeError: if no file is named.
            MissingData: if the file is missing.
        """
        if not self.file:
            raise RecipeError(
                "no recording is named for the replay", "source.file=sub-01_ses-01.fif"
            )
        path = locate(self.file)
        if not path.is_file():
            raise MissingData(
                f"there is no recording {path}",
                "name a file that mne opens: source.file=FILE",
            )
        return path

    def inputs(self) -> list[Input]:
        """List the recording.

        Raises:
            RecipeError: if no file is named.
        """
        try:
            return [Input(str(self.find_file()))]
        except MissingData as error:
            return [Input(str(locate(self.file)), error=error)]

    def build(self, request: StreamRequest) -> Replay:
        """Open the recording.

        Raises:
            RecipeError: if no file is named.
            MissingData: if the file is missing or cannot be read.
            BrainhiveError: if it has no events.
        """
        path = self.find_file()
        delay_s = request.delay_s
        if self.delay_ms is not None:
            delay_s = self.delay_ms / 1000
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
    """Replay a recording.

    Args:
        config: Keys of the recording.
        path: File of the recording.
        span_s: Start and stop of a window after an event. Events are left out if a BAD
            span overlaps their window.
        clock: Clock that decides which samples have arrived.
        delay_s: Seconds from an event to its picture, which are added.
        find_pictures: Returns the names of events that stand for pictures.
    """
    # errors of the header are raised before samples are read
    try:
        header = read_header(path, config, delay_s, find_pictures)
    except BrainhiveError as error:
        # the keys of `prepare` have another prefix here
        error.message = _rename_keys(error.message)
        error.hint = _rename_keys(error.hint)
        raise
    for warning in header.warnings:
        warn(f"{path.name}: {warning}")
    raw = open_raw(path, config.onset_unit == "s", config.rename, config.montage)
    rate_hz = header.rate_hz

    # leave out events in BAD spans and duplicates
    dropped: Counter[str] = Counter()
    events = []
    span = (round(span_s[0] * rate_hz), round(span_s[1] * rate_hz))
    for onset, name in sorted(set(header.events)):
        reason = header.find_bad_span(onset, span)
        if reason:
            dropped[reason] += 1
        else:
            events.append((onset, name))

    # scale the samples to the units of signal stores
    units = []
    scales = np.ones(len(header.ch_types))
    for row, channel_type in enumerate(header.ch_types):
        scales[row], unit = CHANNEL_UNITS.get(channel_type, (1.0, "SI"))
        units.append(unit)
    stream_format = StreamFormat(
        path.name,
        header.ch_names,
        header.ch_types,
        tuple(units),
        rate_hz,
        header.positions,
        simulated=read_simulated(path),
        dropped=dropped,
    )

    # Duration of the samples that are read at once.
    block_s = 10.0

    # `replayed` exists when blocks are read
    def read_blocks() -> SampleBlocks:
        block_size = max(1, round(block_s * rate_hz))
        for start in range(0, header.n_times, block_size):
            stop = min(start + block_size, header.n_times)
            samples = raw.get_data(start=start, stop=stop).T * scales  # [n, C]
            block_events = []
            for onset, name in events:
                if start <= onset < stop:
                    time_s = float(replayed.compute_times(onset))
                    block_events.append(Event(time_s, name))
            yield samples, block_events

    starts = [number for _, number in header.breaks]
    replayed = Replay(stream_format, clock, read_blocks(), starts)
    return replayed


def _rename_keys(text: str) -> str:
    """Replace keys of `prepare` in a message by keys of a stream."""
    text = text.replace("preparation.", "source.")
    return text.replace("source.files", "source.file")
