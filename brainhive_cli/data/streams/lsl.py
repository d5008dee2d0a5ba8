"""LSL (lab streaming layer): samples of an amplifier and markers of a stimulus program,
over the network.
"""

import math
import time
from collections import Counter
from typing import Any, Self
from xml.etree import ElementTree

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.console import say, warn
from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingData,
    RecipeError,
    find_rows,
)
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.sections import refuse_idle
from brainhive_cli.data.recordings.lsl_library import (
    explain_lsl_errors,
    import_lsl,
    resolve_streams,
)
from brainhive_cli.data.recordings.tables import read_number
from brainhive_cli.data.signals.spaces import standardise_name
from brainhive_cli.data.streams import (
    Chunk,
    Event,
    StreamConfig,
    StreamFormat,
    StreamRequest,
)
from brainhive_cli.data.streams._sample_times import SampleTimes
from brainhive_cli.models.signal_spec import UNIT_SIZES, name_unit

TYPES = {"eeg": "EEG", "mag": "MEG", "grad": "MEG"}
"""Types of streams, as LSL's conventions have them, by the type of a model's
channels.
"""
MARKERS = "markers"
"""Type of streams of markers, in lower case."""
KINDS = {*"eeg mag grad ref_meg seeg ecog dbs eog ecg emg bio resp gsr stim".split()}
"""Types of channels that keep their names; others are `misc`."""
STIM = {"marker", "markers", "trigger", "trig", "stim"}
"""Types of channels with codes of events, as programs write them."""
RESOLVE_S = 1.5
"""Seconds of one search for streams: known hosts are asked again after .5 s, and 1 s is
LSL's own default.
"""
SAY_S = 5.0
"""Seconds between two lines about a stream that is waited for."""
OPEN_S = 10.0
"""Seconds in which a stream that is there must open."""
BUFFER_S = 360
"""Seconds of samples that the library keeps when they are not read; older ones are
lost.
"""
LOST_CLOCK_S = 5.0
"""Seconds for which a sender that starts again may stamp samples by a clock that LSL
has not compared yet.
"""
MARKER_POLL_S = 0.02
"""Seconds between two looks for markers while no samples come."""
BLOCK = 1024
"""Samples of one call of the library."""
NETWORK = (
    "without a network, write a file with the lines [lab] and KnownPeers = "
    "{127.0.0.1}, and name it in LSLAPICFG for all programs; a firewall must let UDP "
    "16571 to 16604 through"
)


class Config(StreamConfig):
    """Streams of LSL; of several that match none is chosen, and absent ones are waited
    for.
    """

    name: str = Field(
        "", description="name of the signal's stream; empty: any of the type"
    )
    type: str = Field(
        "",
        description="type of the signal's stream; empty: EEG or MEG by the model, "
        "unless it is named",
    )
    source_id: str = Field(
        "", description="identifier of the signal's source; empty: any"
    )
    markers: str = Field(
        "",
        description="name of the stream of markers; empty: the only one of type "
        "Markers",
    )
    marker_channel: str = Field(
        "",
        description="channel of the signal with codes: changes to any but 0 are "
        "events, instead of markers",
    )
    unit: str = Field(
        "",
        description="unit of the samples, where the stream declares none or a wrong "
        "one; empty: as declared",
    )
    channels: NameList = Field(
        [], description="names of the channels in order, where the stream declares none"
    )
    marker_delay_s: float | None = Field(
        None,
        ge=-10,
        le=10,
        description="seconds from a marker to its picture on the screen, which are "
        "added; default: preparation.delay_ms of the model's signals",
    )
    wait_s: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="seconds for which a missing stream is waited for",
    )

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        # with a marker channel, a stream of markers would have no effect
        if self.marker_channel:
            refuse_idle(
                self, "markers", "with a marker_channel", "leave one of them out"
            )
        return self

    def build(self, request: StreamRequest) -> "LslStream":
        """Find the streams, wait for those that are missing, and open them.

        Raises:
            MissingExtra: if mne-lsl is absent.
            MissingData: naming the streams that are there, if one is missing after
                `wait_s`.
            RecipeError: if several match, or one does not fit the knobs.
            BrainhiveError: if a stream does not open.
        """
        return LslStream(self, request)


class LslStream:
    """Open streams of a signal and its markers.

    Timestamps are on LSL's clock of this computer, and the library's smoothing of them
    is not used (`SampleTimes`): lost samples show as a step in times of at least 1.5
    periods, and only these.

    Args:
        config: Its keys.
        request: Channels, unit and rate of the model.
    """

    def __init__(self, config: Config, request: StreamRequest) -> None:
        lsl = import_lsl()
        signal_info, marker_info = _wait_for_streams(
            config, TYPES.get(request.kind, request.kind)
        )

        # a stream is described only once it is open
        self._signal = _open_inlet(lsl, signal_info)
        with explain_lsl_errors(
            f"stream {signal_info.name!r} does not describe itself"
        ):
            described = ElementTree.fromstring(self._signal.get_sinfo(OPEN_S).as_xml)
        self.format, self._scale = _read_format(described, config, request)
        # the channel of codes is known by name, and its values are never scaled
        self._code_row: int | None = None
        if config.marker_channel:
            where = f"stream {self.format.name!r}"
            names = self.format.channels
            (self._code_row,) = find_rows([config.marker_channel], names, where)
            if self._code_row is None:
                raise RecipeError(
                    f"{where} has no channel {config.marker_channel!r}",
                    f"source.marker_channel= one of: {', '.join(names)}",
                )
            self._scale[self._code_row] = 1.0
        self._inlets = [self._signal]
        self._markers = None
        if marker_info is not None:
            self._markers = _open_inlet(lsl, marker_info)
            self._inlets.append(self._markers)

        # times of samples and events
        self._clock = lsl.local_clock
        delay_s = config.marker_delay_s
        self._delay_s = request.delay_s if delay_s is None else delay_s
        self._times = SampleTimes(self.format.rate_hz)
        # [n, C] samples whose times are not settled
        self._untimed = np.empty((0, len(self._scale)))
        self._code = 0
        self._code_time_s = math.inf
        self._other_clock = 0  # samples in sequence
        self._is_read = self._is_closed = False

    def now_s(self) -> float:
        """Read LSL's clock."""
        return float(self._clock())

    def read(self, wait_s: float) -> Chunk | None:
        """Return samples and events that have arrived, oldest first.

        Args:
            wait_s: How long to wait for the first of them; then the chunk is empty.

        Returns:
            A chunk; None once the stream is closed: a sender that is gone is waited
            for, by liblsl.

        Raises:
            BrainhiveError: if timestamps are of another clock, or the sender has
                another rate than it declares.
        """
        if self._is_closed:
            return None
        with explain_lsl_errors(f"stream {self.format.name!r} is lost"):
            # what came before is of no interest, and would be decoded late
            for inlet in self._inlets if not self._is_read else ():
                inlet.flush()
            self._is_read = True

            # markers may come while the signal stalls
            end_s = time.monotonic() + wait_s
            events = list[Event]()
            while True:
                # all markers that have come, as liblsl delivers one a call
                left_s = max(0.0, end_s - time.monotonic())
                while self._markers is not None:
                    try:
                        values, stamp = self._markers.pull_sample(timeout=0.0)
                    except UnicodeDecodeError:
                        warn("a marker that is not UTF-8 is left out")
                        continue
                    if stamp is None:
                        break
                    name = (
                        values[0]
                        if isinstance(values[0], str)
                        else f"{float(values[0]):.15g}"
                    )
                    events.append(Event(stamp + self._delay_s, name))
                # samples: no waiting where an event is ready, else until the next look
                # for markers
                samples, times_s = self._read_samples(
                    0.0 if events else min(left_s, MARKER_POLL_S)
                )
                if self._code_row is not None and len(times_s):
                    events += self._read_codes(samples[:, self._code_row], times_s)
                if len(times_s) or events or left_s == 0:
                    events.sort(key=lambda event: event.time_s)
                    return Chunk(samples, times_s, tuple(events))

    def close(self) -> None:
        """Close both streams."""
        # may be called twice, see `Stream`
        if not self._is_closed:
            self._is_closed = True
            with explain_lsl_errors(f"stream {self.format.name!r} does not close"):
                for inlet in self._inlets:
                    inlet.close_stream()

    def _read_samples(self, wait_s: float) -> tuple[Float64, Float64]:
        """Read all samples whose times are settled: [n, C] and [n]."""
        # waiting for more than one sample would wait for all of them
        blocks = [self._untimed[:0]]
        stamps = [np.empty(0)]
        block, block_stamps = self._signal.pull_chunk(timeout=wait_s, max_samples=1)
        while len(block_stamps):
            # copies: the library uses its buffer again
            blocks.append(block.astype(np.float64))
            stamps.append(block_stamps.copy())
            block, block_stamps = self._signal.pull_chunk(
                timeout=0.0, max_samples=BLOCK
            )
        new = np.concatenate(blocks)
        new_stamps = np.concatenate(stamps)
        if not len(new):
            return new, new_stamps

        # a sender that has started again may have another clock for a moment
        age_s = self._clock() - new_stamps
        is_ours = (age_s > -1) & (age_s < BUFFER_S + LOST_CLOCK_S)
        self._other_clock = (
            0 if is_ours.all() else self._other_clock + int((~is_ours).sum())
        )
        if self._other_clock > LOST_CLOCK_S * self.format.rate_hz:
            difference_s = abs(age_s[~is_ours][-1])
            raise BrainhiveError(
                f"timestamps of stream {self.format.name!r} are {difference_s:.0f} "
                "s from LSL's clock",
                "its program must stamp samples by LSL's clock (local_clock), or "
                "leave that to LSL",
            )
        new = new[is_ours]
        new_stamps = new_stamps[is_ours]

        # what really comes
        measured_hz = self._times.measure_rate(new_stamps)
        if measured_hz is not None:
            raise BrainhiveError(
                f"stream {self.format.name!r} declares {self.format.rate_hz:g} Hz, and "
                f"sends {measured_hz:.4g} samples a second",
                "its program must declare the rate that the amplifier has, and "
                "lose no samples all the time",
            )

        # samples wait for their times; those of a clock that went back have none
        times_s = self._times.settle_times(new_stamps)
        samples = np.concatenate([self._untimed, new])
        self._untimed = samples[len(times_s) :]
        samples = samples[: len(times_s)]
        is_timed = ~np.isnan(times_s)
        return samples[is_timed] * self._scale, times_s[is_timed]

    def _read_codes(self, values: Float64, times_s: Float64) -> list[Event]:
        """Find changes to a code but 0; a code after lost samples, or at the start, has
        no known time.
        """
        # codes of successive samples; after a gap the change has no time
        codes = np.nan_to_num(values).round().astype(np.int64)
        before = np.concatenate([[self._code], codes[:-1]])
        # the first of all is -inf
        steps_s = np.diff(times_s, prepend=self._code_time_s)
        is_next = (steps_s > 0) & (steps_s < 1.5 / self.format.rate_hz)
        self._code = int(codes[-1])
        self._code_time_s = float(times_s[-1])
        is_event = is_next & (codes != before) & (codes != 0)
        times_s = times_s[is_event] + self._delay_s
        names = map(str, codes[is_event])
        return [*map(Event, times_s.tolist(), names)]


def _wait_for_streams(config: Config, stream_type: str) -> tuple[Any, Any]:
    """Find the stream of the signal and that of the markers, if codes are not the
    events.
    """
    # the criteria, in words too; a stream that is named may be of any type
    is_named = bool(config.name or config.source_id)
    stream_type = config.type or ("" if is_named else stream_type)
    criteria = {"name": config.name, "source_id": config.source_id, "type": stream_type}
    described = ", ".join(
        f"{key} {value!r}" for key, value in criteria.items() if value
    )
    marked = f"name {config.markers!r}" if config.markers else "type 'Markers'"

    start_s = time.monotonic()
    said_s = start_s - SAY_S
    while True:
        with explain_lsl_errors("streams of LSL cannot be searched"):
            streams = resolve_streams(RESOLVE_S)

        # all that match: one of several is never chosen
        signals = [
            info
            for info in streams
            if info.name == (config.name or info.name)
            and info.source_id == (config.source_id or info.source_id)
            and info.stype.casefold() == (stream_type or info.stype).casefold()
        ]
        markers = [
            info
            for info in ([] if config.marker_channel else streams)
            if (config.markers or MARKERS)
            == (info.name if config.markers else info.stype.casefold())
        ]
        for matches, text, keys in (
            (signals, described, "source.name=, source.source_id= or source.type="),
            (markers, marked, "source.markers=NAME"),
        ):
            if len(matches) > 1:
                raise RecipeError(
                    f"{len(matches)} streams have {text}: "
                    f"{', '.join(map(_describe, matches))}",
                    f"choose one by {keys}, or stop the programs of all but one",
                )

        # a signal has numbers at a fixed rate, markers have one channel
        samples = [
            info.name for info in streams if info.dtype != "string" and info.sfreq >= 1
        ]
        for info in signals:
            if info.dtype == "string" or not info.sfreq >= 1:
                names = ", ".join(samples) or "none is of an amplifier"
                raise RecipeError(
                    f"stream {_describe(info)} has no samples at a rate of 1 Hz or "
                    f"more",
                    f"source.name= one of: {names}",
                )
        for info in markers:
            if info.n_channels > 1:
                raise RecipeError(
                    f"stream {info.name!r} of markers has {info.n_channels} channels",
                    "send one text or number for each (mne-lsl's player: "
                    "annotations_encoding='string')",
                )

        # each must be there before any is opened
        missing = [] if signals else [f"stream with {described}"]
        if not markers and not config.marker_channel:
            missing.append(f"stream of markers with {marked}")
        if not missing:
            return signals[0], next(iter(markers), None)

        # say what is waited for, and at last what is there
        waited_s = time.monotonic() - start_s
        present = ", ".join(map(_describe, streams)) or "none"
        problem = f"no {' and no '.join(missing)}"
        if waited_s >= config.wait_s:
            keys = (
                "source.name=, source.type=, source.source_id=, source.markers= or "
                "source.marker_channel="
            )
            raise MissingData(
                f"{problem} after {waited_s:.0f} s",
                f"there are: {present}; choose by {keys}; {NETWORK}",
            )
        if time.monotonic() - said_s >= SAY_S:
            said_s = time.monotonic()
            say(
                f"waiting ({waited_s:.0f} of {config.wait_s:.0f} s): {problem}; there "
                f"are: {present}"
            )


def _describe(info: Any) -> str:
    """Describe a stream in one line."""
    count = f"{info.n_channels} channel{'s' if info.n_channels > 1 else ''}"
    rate = f"{info.sfreq:g} Hz" if info.sfreq else "no rate"
    values = "text" if info.dtype == "string" else "numbers"
    origin = f"type {info.stype or 'none'}, source_id {info.source_id!r}"
    return f"{info.name!r} ({origin}, {count} of {values}, {rate})"


def _open_inlet(lsl: Any, info: Any) -> Any:
    """Open a stream, and compare its sender's clock with this one's."""
    # opening waits for the sender, which may have gone since it was resolved
    with explain_lsl_errors(f"stream {info.name!r} does not open"):
        inlet = lsl.StreamInlet(
            info, max_buffered=BUFFER_S, processing_flags=["clocksync"]
        )
        inlet.open_stream(OPEN_S)
        inlet.time_correction(OPEN_S)
    return inlet


def _read_format(
    described: ElementTree.Element, config: Config, request: StreamRequest
) -> tuple[StreamFormat, Float64]:
    """Read a stream's description (LSL's XML): its format, and [C] factors to the units
    of the format.
    """
    # rows of the description count only where they are as many as channels
    name = described.findtext("name", "")
    count = int(described.findtext("channel_count", "0"))
    rows = described.findall("desc/channels/channel")
    rows = rows if len(rows) == count else [ElementTree.Element("channel")] * count

    # names, by which the model finds its channels
    names = config.channels or [row.findtext("label", "").strip() for row in rows]
    problem = ""
    if len(names) != count or not all(names):
        declared = "" if config.channels else " declared"
        problem = f"{count} channels, and {sum(map(bool, names))} names{declared}"
    elif twice := [each for each, times in Counter(names).items() if times > 1]:
        problem = f"two channels {twice[0]!r}"
    if problem:
        raise RecipeError(
            f"stream {name!r} has {problem}", "source.channels=A,B,… in order"
        )

    # types, those of the model where none is declared
    kind_of = {kind: kind for kind in KINDS} | dict.fromkeys(STIM, "stim")
    kind_of |= dict.fromkeys(("", TYPES.get(request.kind, "").casefold()), request.kind)
    types = (row.findtext("type", "").strip().casefold() for row in rows)
    kinds = [kind_of.get(kind, "misc") for kind in types]
    # names of EEG in the standard spelling, unless two channels would get one name
    standard = [
        standardise_name(each) if kind == "eeg" else each
        for each, kind in zip(names, kinds, strict=True)
    ]
    repeated = Counter(standard)
    names = [
        each if repeated[new] > 1 else new
        for each, new in zip(names, standard, strict=True)
    ]

    # units as declared, or as the recipe has them
    units = [
        _read_unit(row.findtext("unit", ""), kind)
        for row, kind in zip(rows, kinds, strict=True)
    ]
    scale = np.ones(count)
    if config.unit:
        # a recipe's unit must be of the quantity that the model takes
        unit = name_unit(config.unit)
        size, quantity = UNIT_SIZES.get(unit, (1.0, unit))
        wanted_size, wanted_quantity = UNIT_SIZES.get(request.unit, (1.0, request.unit))
        if quantity != wanted_quantity:
            known = ", ".join(
                name for name, (_, of) in UNIT_SIZES.items() if of == wanted_quantity
            )
            raise RecipeError(
                f"source.unit is {config.unit!r}, and the model takes {request.unit!r}",
                f"one of: {known or request.unit}",
            )
        # factors of the model's channels alone; others keep their units
        for index, kind in enumerate(kinds):
            if kind == request.kind:
                units[index] = request.unit
                scale[index] = size / wanted_size

    # positions as mne-lsl sends them: NaN or zeros where there is none
    located = [[row.findtext(f"loc/R0{axis}", "") for axis in "xyz"] for row in rows]
    # [C, 3]
    positions = np.array([[read_number(text) for text in row] for row in located])
    positions[~np.any(positions, 1) | ~np.isfinite(positions).all(1)] = np.nan
    rate_hz = read_number(described.findtext("nominal_srate", ""))
    sensors = None if np.isnan(positions).all() else positions
    channels = tuple(names), tuple(kinds), tuple(units)
    return StreamFormat(name, *channels, rate_hz, sensors), scale


def _read_unit(declared: str, kind: str) -> str:
    """Read a unit; mne-lsl's player writes the power of ten of mne's unit instead."""
    # mne-lsl writes "-6" for microvolts: the power of ten by mne's SI base unit
    unit = name_unit(declared)
    base = {"mag": "T", "grad": "T/m", "stim": "", "misc": ""}.get(kind, "V")
    power = read_number(unit)
    near = (
        name
        for name, (size, of) in UNIT_SIZES.items()
        if of == base and math.log10(size) == power
    )
    return next(near, unit if math.isnan(power) else "")


TINY = Config(wait_s=1.0)
