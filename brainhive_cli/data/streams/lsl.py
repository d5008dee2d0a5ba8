"""Streams of samples and markers over the network by LSL (lab streaming layer)."""

import math
import time
from collections import Counter
from typing import Any, Self
from xml.etree import ElementTree

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core.base import (
    BrainhiveError,
    Float64,
    MissingData,
    RecipeError,
    find_rows,
    say,
    warn,
)
from brainhive_cli.core.recipes import NameList, refuse_idle
from brainhive_cli.data.recordings import (
    explain_lsl_errors,
    import_lsl,
    read_number,
    resolve_streams,
)
from brainhive_cli.data.signals import standardise_name
from brainhive_cli.data.streams import (
    Chunk,
    Event,
    StreamConfig,
    StreamFormat,
    StreamRequest,
)
from brainhive_cli.data.streams._sample_times import SampleTimes
from brainhive_cli.models import UNIT_SIZES, normalise_unit

STREAM_TYPES = {"eeg": "EEG", "mag": "MEG", "grad": "MEG"}
"""Types of LSL streams, keyed by the type of the model's channels."""
OPEN_S = 10.0
"""Longest time in which a stream opens."""
BUFFER_S = 360
"""Duration of the samples that LSL stores until they are read."""
MAX_CHANNELS = 10_000


class Config(StreamConfig):
    """LSL streams, which are waited for and must match uniquely."""

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
        description="channel of the signal with codes, whose changes to another code "
        "than 0 are events instead of markers",
    )
    unit: str = Field(
        "",
        description="unit of the samples, if the stream declares no unit or a wrong "
        "unit; empty: as declared",
    )
    channels: NameList = Field(
        [], description="names of the channels in order, if the stream declares none"
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
        description="longest time to wait for a missing stream, in seconds",
    )

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        if self.marker_channel:
            refuse_idle(
                self, "markers", "with a marker_channel", "leave one of them out"
            )
        return self

    def build(self, request: StreamRequest) -> "LslStream":
        """Wait for the streams, and open them.

        Raises:
            MissingExtra: if mne-lsl is absent.
            MissingData: if a stream is missing after `wait_s`.
            RecipeError: if several streams match, or a stream does not fit the keys.
            BrainhiveError: if a stream does not open.
        """
        return LslStream(self, request)


class LslStream:
    """Open streams of a signal and its markers.

    Time stamps are on LSL's clock of this computer. Lost samples, and nothing else,
    show as steps in time of at least 1.5 periods (`SampleTimes`).

    Args:
        config: Keys of the streams.
        request: Channels, unit and rate of the model.
    """

    def __init__(self, config: Config, request: StreamRequest) -> None:
        lsl = import_lsl()
        stream_type = STREAM_TYPES.get(request.kind, request.kind)
        signal_info, marker_info = _wait_for_streams(config, stream_type)

        # LSL sends the description of open streams only
        self._signal = _open_inlet(lsl, signal_info)
        with explain_lsl_errors(
            f"stream {signal_info.name!r} does not describe itself"
        ):
            info = ElementTree.fromstring(self._signal.get_sinfo(OPEN_S).as_xml)
        self.format, self._scale = _read_format(info, config, request)
        # codes are not scaled
        self._code_row: int | None = None
        if config.marker_channel:
            stream = f"stream {self.format.name!r}"
            names = self.format.channels
            self._code_row = find_rows([config.marker_channel], names, stream)[0]
            if self._code_row is None:
                raise RecipeError(
                    f"{stream} has no channel {config.marker_channel!r}",
                    f"choose source.marker_channel from {', '.join(names)}",
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
        # samples [n, C] whose times are not settled
        self._untimed = np.empty((0, len(self._scale)))
        self._code = 0
        self._code_time_s = math.inf
        self._n_other_clock = 0  # successive samples with stamps of another clock
        self._is_read = self._is_closed = False

    def now_s(self) -> float:
        """Return the time of LSL's clock."""
        return float(self._clock())

    def read(self, wait_s: float) -> Chunk | None:
        """Return the samples and events that have arrived, oldest first.

        Args:
            wait_s: Longest time to wait for the first sample or event. Without any, the
                chunk is empty.

        Returns:
            A chunk, or None once the stream is closed. If the sender is gone, liblsl
            waits for it.

        Raises:
            BrainhiveError: if time stamps are of another clock, or the rate is not the
                declared rate.
        """
        if self._is_closed:
            return None
        with explain_lsl_errors(f"stream {self.format.name!r} is lost"):
            # old samples would be decoded late
            if not self._is_read:
                for inlet in self._inlets:
                    inlet.flush()
            self._is_read = True

            # markers may arrive while the signal stalls
            end_s = time.monotonic() + wait_s
            # Time between two checks for markers while no samples arrive.
            marker_poll_s = 0.02
            while True:
                remaining_s = max(0.0, end_s - time.monotonic())
                events = self._read_markers()
                # wait no longer than until the next check for markers
                samples, times_s = self._read_samples(
                    0.0 if events else min(remaining_s, marker_poll_s)
                )
                if self._code_row is not None and len(times_s):
                    events += self._read_codes(samples[:, self._code_row], times_s)
                if len(times_s) or events or remaining_s == 0:
                    events.sort(key=lambda event: event.time_s)
                    return Chunk(samples, times_s, tuple(events))

    def close(self) -> None:
        """Close both streams. A second call has no effect."""
        if not self._is_closed:
            self._is_closed = True
            with explain_lsl_errors(f"stream {self.format.name!r} does not close"):
                for inlet in self._inlets:
                    inlet.close_stream()

    def _read_markers(self) -> list[Event]:
        """Read all markers that have arrived, of which a call of LSL returns one."""
        events = list[Event]()
        while self._markers is not None:
            try:
                values, timestamp = self._markers.pull_sample(timeout=0.0)
            except UnicodeDecodeError:
                warn("a marker that is not UTF-8 is left out")
                continue
            if timestamp is None:
                break
            name = values[0]
            if not isinstance(name, str):
                name = f"{float(name):.15g}"
            events.append(Event(timestamp + self._delay_s, name))
        return events

    def _read_samples(self, wait_s: float) -> tuple[Float64, Float64]:
        """Read all samples [n, C] with settled times, and these times [n]."""
        # wait for one sample only, as LSL waits until a longer chunk is complete
        blocks = [self._untimed[:0]]
        stamp_blocks = [np.empty(0)]
        block, block_stamps = self._signal.pull_chunk(timeout=wait_s, max_samples=1)
        # Largest number of samples that a call of the library returns.
        max_samples = 1024
        while len(block_stamps):
            # copies, because the library reuses its buffer
            blocks.append(block.astype(np.float64))
            stamp_blocks.append(block_stamps.copy())
            block, block_stamps = self._signal.pull_chunk(
                timeout=0.0, max_samples=max_samples
            )
        samples = np.concatenate(blocks)
        timestamps = np.concatenate(stamp_blocks)
        if not len(samples):
            return samples, timestamps

        # a sender that has started again may have another clock for a moment
        age_s = self._clock() - timestamps
        # Longest time in which a sender that starts again stamps samples by a clock
        # whose offset LSL has not measured.
        lost_clock_s = 5.0
        is_ours = (age_s > -1) & (age_s < BUFFER_S + lost_clock_s)
        if is_ours.all():
            self._n_other_clock = 0
        else:
            self._n_other_clock += int((~is_ours).sum())
        if self._n_other_clock > lost_clock_s * self.format.rate_hz:
            difference_s = abs(age_s[~is_ours][-1])
            raise BrainhiveError(
                f"time stamps of stream {self.format.name!r} differ by "
                f"{difference_s:.0f} s from LSL's clock",
                "its program must stamp samples by LSL's clock (local_clock), or leave "
                "that to LSL",
            )
        samples = samples[is_ours]
        timestamps = timestamps[is_ours]

        measured_hz = self._times.measure_rate(timestamps)
        if measured_hz is not None:
            raise BrainhiveError(
                f"stream {self.format.name!r} declares {self.format.rate_hz:g} Hz, and "
                f"sends {measured_hz:.4g} samples a second",
                "its program must declare the rate of the amplifier, and send all "
                "samples",
            )

        # leave out samples without a time, whose clock went back
        times_s = self._times.settle_times(timestamps)
        samples = np.concatenate([self._untimed, samples])
        self._untimed = samples[len(times_s) :]
        samples = samples[: len(times_s)]
        is_timed = ~np.isnan(times_s)
        return samples[is_timed] * self._scale, times_s[is_timed]

    def _read_codes(self, values: Float64, times_s: Float64) -> list[Event]:
        """Return an event for each change to another code than 0.

        Changes at the start or after lost samples are left out: their time is unknown.
        """
        codes = np.nan_to_num(values).round().astype(np.int64)
        previous_codes = np.concatenate([[self._code], codes[:-1]])
        # the first step of the stream is -inf
        steps_s = np.diff(times_s, prepend=self._code_time_s)
        is_next = (steps_s > 0) & (steps_s < 1.5 / self.format.rate_hz)
        self._code = int(codes[-1])
        self._code_time_s = float(times_s[-1])
        is_event = is_next & (codes != previous_codes) & (codes != 0)
        events_s = times_s[is_event] + self._delay_s
        return list(map(Event, events_s.tolist(), map(str, codes[is_event])))


def _wait_for_streams(config: Config, stream_type: str) -> tuple[Any, Any]:
    """Wait for the streams, and return the infos of the signal and the markers.

    Args:
        config: Keys of the streams.
        stream_type: LSL type of the model's signals.

    Returns:
        mne-lsl's stream infos. The markers are None if a channel has codes.
    """
    start_s = time.monotonic()
    # Time between two messages while a stream is missing.
    message_interval_s = 5.0
    message_s = start_s - message_interval_s
    # Duration of a search for streams. Known hosts are asked again after .5 s, and
    # LSL's own default is 1 s.
    resolve_s = 1.5
    network = (
        "without a network, write a file with the lines [lab] and "
        "KnownPeers = {127.0.0.1}, and set LSLAPICFG to its path for "
        "all programs; a firewall must allow UDP 16571 to 16604"
    )
    while True:
        with explain_lsl_errors("streams of LSL cannot be searched"):
            streams = resolve_streams(resolve_s)
        signals, signal_text = _match_signals(config, stream_type, streams)
        markers, marker_text = _match_markers(config, streams)

        # open no stream before all are present
        missing = []
        if not signals:
            missing.append(f"no stream with {signal_text}")
        if not markers and not config.marker_channel:
            missing.append(f"no stream of markers with {marker_text}")
        if not missing:
            return signals[0], markers[0] if markers else None

        now_s = time.monotonic()
        waited_s = now_s - start_s
        problem = " and ".join(missing)
        present = ", ".join(map(_describe, streams)) or "none"
        if waited_s >= config.wait_s:
            keys = (
                "source.name=, source.type=, source.source_id=, source.markers= or "
                "source.marker_channel="
            )
            raise MissingData(
                f"{problem} after {waited_s:.0f} s",
                f"streams present: {present}; choose by {keys}; {network}",
            )
        if now_s - message_s >= message_interval_s:
            message_s = now_s
            say(
                f"waiting ({waited_s:.0f} of {config.wait_s:.0f} s): {problem}; "
                f"streams present: {present}"
            )


def _match_signals(
    config: Config, stream_type: str, streams: list[Any]
) -> tuple[list[Any], str]:
    """Find the stream that matches the keys.

    Returns:
        A list of the stream, empty if no stream matches, and the keys as text.

    Raises:
        RecipeError: if several match, or the match has no samples at a fixed rate.
    """
    # a stream with a name in the recipe may have any type
    if config.type or config.name or config.source_id:
        stream_type = config.type
    criteria = {"name": config.name, "source_id": config.source_id, "type": stream_type}
    text = ", ".join(f"{key} {value!r}" for key, value in criteria.items() if value)
    matches = [
        info
        for info in streams
        if config.name in ("", info.name)
        and config.source_id in ("", info.source_id)
        and stream_type.casefold() in ("", info.stype.casefold())
    ]
    keys = "source.name=, source.source_id= or source.type="
    _require_only_match(matches, text, keys)

    for info in matches:
        _refuse_sizes(info.name, info.n_channels, info.sfreq)
        if not _has_rate(info):
            names = ", ".join(stream.name for stream in streams if _has_rate(stream))
            raise RecipeError(
                f"stream {_describe(info)} has no samples at a rate of 1 Hz or more",
                f"source.name= one of: {names or 'no stream has samples'}",
            )
    return matches, text


def _match_markers(config: Config, streams: list[Any]) -> tuple[list[Any], str]:
    """List the marker stream, if needed and present, and its key as text.

    Raises:
        RecipeError: if several match, or the match has several channels.
    """
    text = f"name {config.markers!r}" if config.markers else "type 'Markers'"
    if config.marker_channel:
        return [], text
    if config.markers:
        matches = [info for info in streams if info.name == config.markers]
    else:
        matches = [info for info in streams if info.stype.casefold() == "markers"]
    _require_only_match(matches, text, "source.markers=NAME")
    for info in matches:
        if info.n_channels > 1:
            raise RecipeError(
                f"stream {info.name!r} of markers has {info.n_channels} channels",
                "send a text or a number for each marker (mne-lsl's player: "
                "annotations_encoding='string')",
            )
    return matches, text


def _require_only_match(matches: list[Any], text: str, keys: str) -> None:
    """Raise an error if several streams match."""
    if len(matches) > 1:
        raise RecipeError(
            f"{len(matches)} streams have {text}: {', '.join(map(_describe, matches))}",
            f"choose by {keys}, or stop the programs of the other streams",
        )


def _refuse_sizes(stream_name: str, n_channels: int, rate_hz: float) -> None:
    """Raise an error if a stream declares more than any amplifier has."""
    # More than any amplifier has. Larger declarations would fill the memory.
    max_rate_hz = 100_000
    if n_channels > MAX_CHANNELS or rate_hz > max_rate_hz:
        raise RecipeError(
            f"stream {stream_name!r} declares {n_channels:,} channels at {rate_hz:g} "
            f"Hz, more than {MAX_CHANNELS:,} or {max_rate_hz:,} Hz",
            "choose another stream by source.name=, or correct its program",
        )


def _has_rate(info: Any) -> bool:
    """Return True if a stream has numbers at a fixed rate."""
    return info.dtype != "string" and info.sfreq >= 1


def _describe(info: Any) -> str:
    """Describe a stream in a line."""
    count = f"{info.n_channels} channel{'s' if info.n_channels > 1 else ''}"
    rate = f"{info.sfreq:g} Hz" if info.sfreq else "no rate"
    values = "text" if info.dtype == "string" else "numbers"
    origin = f"type {info.stype or 'none'}, source_id {info.source_id!r}"
    return f"{info.name!r} ({origin}, {count} of {values}, {rate})"


def _open_inlet(lsl: Any, info: Any) -> Any:
    """Open an inlet, and measure the clock offset of the sender."""
    # the sender may have gone since it was resolved
    with explain_lsl_errors(f"stream {info.name!r} does not open"):
        inlet = lsl.StreamInlet(
            info, max_buffered=BUFFER_S, processing_flags=["clocksync"]
        )
        inlet.open_stream(OPEN_S)
        inlet.time_correction(OPEN_S)
    return inlet


def _read_format(
    info: ElementTree.Element, config: Config, request: StreamRequest
) -> tuple[StreamFormat, Float64]:
    """Read the format of a stream from its LSL info in XML.

    Returns:
        The format, and factors [C] from the samples to its units.
    """
    # descriptions count only if every channel has one
    stream_name = info.findtext("name", "")
    count = int(info.findtext("channel_count", "0"))
    rate_hz = read_number(info.findtext("nominal_srate", ""))
    # a description may differ from the announcement of the stream
    _refuse_sizes(stream_name, count, rate_hz)
    channels = info.findall("desc/channels/channel")
    if len(channels) != count:
        channels = [ElementTree.Element("channel")] * count

    names = config.channels
    if not names:
        names = [channel.findtext("label", "").strip() for channel in channels]
    _require_names(stream_name, names, count, is_declared=not config.channels)

    # channels without a type, or with the model's LSL type, have the model's type
    lsl_type = STREAM_TYPES.get(request.kind, "").casefold()
    # Types of channels that are kept. Other types become `misc`.
    channel_types = set(
        "eeg mag grad ref_meg seeg ecog dbs eog ecg emg bio resp gsr stim".split()
    )
    type_of = {channel_type: channel_type for channel_type in channel_types}
    # Types that programs give to channels with codes of events.
    type_of |= dict.fromkeys({"marker", "markers", "trigger", "trig", "stim"}, "stim")
    type_of |= {"": request.kind, lsl_type: request.kind}
    lsl_types = [channel.findtext("type", "").strip() for channel in channels]
    types = [type_of.get(name.casefold(), "misc") for name in lsl_types]
    names = _standardise_names(names, types)

    # a unit of the recipe is converted to the model's
    declared_units = [channel.findtext("unit", "") for channel in channels]
    units = list(map(_read_unit, declared_units, types))
    scale = np.ones(count)
    if config.unit:
        factor = _find_unit_factor(config.unit, request.unit)
        for index, channel_type in enumerate(types):
            if channel_type == request.kind:
                units[index] = request.unit
                scale[index] = factor

    # mne-lsl sends NaN or zeros for unknown positions
    positions = np.empty((count, 3))
    for row, channel in enumerate(channels):
        for column, axis in enumerate("xyz"):
            positions[row, column] = read_number(channel.findtext(f"loc/R0{axis}", ""))
    is_zero = ~np.any(positions, 1)
    positions[is_zero | ~np.isfinite(positions).all(1)] = np.nan
    has_positions = np.isfinite(positions).any()
    stream_format = StreamFormat(
        stream_name,
        tuple(names),
        tuple(types),
        tuple(units),
        rate_hz,
        positions if has_positions else None,
    )
    return stream_format, scale


def _require_names(
    stream_name: str, names: list[str], count: int, is_declared: bool
) -> None:
    """Raise an error unless each channel has a unique name.

    Args:
        stream_name: Name of the stream.
        names: Names of the channels.
        count: Number of channels.
        is_declared: If True, the names come from the stream, not from the recipe.
    """
    problem = ""
    if len(names) != count or not all(names):
        n_names = sum(map(bool, names))
        declared = " declared" if is_declared else ""
        problem = f"{count} channels, and {n_names} names{declared}"
    elif len(set(names)) < count:
        name = next(name for name, number in Counter(names).items() if number > 1)
        problem = f"two channels {name!r}"
    if problem:
        raise RecipeError(
            f"stream {stream_name!r} has {problem}", "source.channels=A,B,… in order"
        )


def _standardise_names(names: list[str], types: list[str]) -> list[str]:
    """Spell names of EEG as in prepared recordings, unless two would become equal."""
    standard_names = []
    for name, channel_type in zip(names, types, strict=True):
        is_eeg = channel_type == "eeg"
        standard_names.append(standardise_name(name) if is_eeg else name)
    counts = Counter(standard_names)
    for index, name in enumerate(names):
        if counts[standard_names[index]] > 1:
            standard_names[index] = name
    return standard_names


def _find_unit_factor(unit: str, model_unit: str) -> float:
    """Return the factor from a unit of the recipe to the model's unit.

    Raises:
        RecipeError: if they measure different quantities.
    """
    unit_name = normalise_unit(unit)
    size, quantity = UNIT_SIZES.get(unit_name, (1.0, unit_name))
    model_size, model_quantity = UNIT_SIZES.get(model_unit, (1.0, model_unit))
    if quantity != model_quantity:
        names = [
            name
            for name, (_, unit_quantity) in UNIT_SIZES.items()
            if unit_quantity == model_quantity
        ]
        raise RecipeError(
            f"source.unit is {unit!r}, and the model takes {model_unit!r}",
            f"one of: {', '.join(names) or model_unit}",
        )
    return size / model_size


def _read_unit(declared_unit: str, channel_type: str) -> str:
    """Read a unit, or the power of ten that mne-lsl's player writes, such as "-6"."""
    unit = normalise_unit(declared_unit)
    power = read_number(unit)
    if math.isnan(power):
        return unit
    # MNE's base units of channel types. Other types have volts.
    base_units = {"mag": "T", "grad": "T/m", "stim": "", "misc": ""}
    base_unit = base_units.get(channel_type, "V")
    for name, (size, quantity) in UNIT_SIZES.items():
        if quantity == base_unit and math.log10(size) == power:
            return name
    return ""


TINY = Config(wait_s=1.0)
