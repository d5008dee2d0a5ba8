"""Header of a recording: channels, spans without trials, and events, whose witnesses
are compared.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import unescape
from math import ceil
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core import documents, parts
from brainhive_cli.core.arrays import Bool, Float64, Int64
from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingData,
    first_line,
    naming,
)
from brainhive_cli.core.only_match import choose_only
from brainhive_cli.data.recordings.opening import (
    CHANNEL_UNITS,
    open_raw,
    report_unreadable,
)
from brainhive_cli.data.recordings.tables import (
    EMPTY_CELLS,
    find_missing_column,
    find_sidecar,
    is_read_as_bids,
    name_events,
    name_sidecars,
    read_table,
)

BAD = re.compile(r"(comment/)?(bad|edge).*", re.IGNORECASE | re.DOTALL)
"""Annotations of spans of which no trial is taken."""
CUT = re.compile(r"(comment/)?(boundary|new segment/.*)", re.IGNORECASE)
"""Annotations of EEGLAB and BrainVision where a recording was interrupted, or samples
were cut out.
"""
BREAK = re.compile(
    r"(comment/)?(edge|bad[ _]acq[ _]skip|bad[ _]boundary|boundary|new segment/).*",
    re.IGNORECASE | re.DOTALL,
)
"""The annotations of these at which the signal does not go on, as at joins of mne."""
CUT_NUMBER = re.compile(r"-99(\.0*)?")
"""What EEGLAB writes for `boundary` where events are numbers (its
option_boundary99).
"""
REFERENCE = re.compile(r"&#\d{3,7};")
"""A letter outside Latin-1 in the name of an event, as mne writes it into .fif."""
ANNOTATIONS = "annotations"
"""Source of events that the recording itself names."""
STRETCHES = 12
"""Seconds of a recording of which channels' variances are measured."""
COMBINED = re.compile(r"STI ?101|STI ?014|Status|UPPT001", re.IGNORECASE)
"""Channels that combine single trigger lines, as MEGIN, mne, BioSemi and CTF call
them.
"""
TRIGGER = re.compile(r".*(TRIG|STIM|STATUS|MARKER|EVENT|STI ?\d|DIN).*", re.IGNORECASE)
"""Names of channels that may hold codes, whatever their type."""
GLITCH_S = 1e-3
"""Seconds for which lines of a port may differ while a code is set; one sample at
least.
"""
DOUBLE_S = 0.01
"""Seconds after which the same event cannot be meant a second time."""
LINE = re.compile(r"(.*?)(\d+)(\D*)")
"""Name of a trigger line, whose number says its bit."""
MOST_FRACTIONS = 0.2
"""Share of samples off a channel's rest that may lie more than a quarter from any whole
number: noise stays below, codes that were resampled or filtered have .3 to .5.
"""
LEAST_REST = 256
"""Level from which on a channel may rest at another than 0: lines that are always
high.
"""
TOLERANCE_S = 0.005
"""Seconds by which witnesses of an event may differ; two samples at least."""
MOST_LINES = 32
"""Largest number of a trigger line: ports have no more."""
MOST = 0.9
"""Share of rows near a marker from which on no other shift is looked for."""
WITH_PICTURES = "recordings that show pictures: preparation.files=PATTERN"
"""Hint for a recording without events, as one of rest."""
NEAR_S = 0.05
"""Seconds within which, after a constant shift, a row and a marker are of one event:
clocks drift.
"""


class ElectrodeKeys(parts.Config):
    """Keys of what electrodes are called, and where they lie."""

    rename: dict[str, str] = Field(
        {},
        exclude_if=lambda rename: not rename,  # stores name it only where it is chosen
        description="name of a channel in the files: its name here; names of EEG are "
        "written as the 10-05 system does (FP1 and `EEG Fp1-REF` are Fp1) "
        "by themselves",
    )
    montage: str = Field(
        "",
        exclude_if=lambda montage: not montage,  # as `rename`
        description="cap, as mne calls it: biosemi64, GSN-HydroCel-128, easycap-M1 …: "
        "positions, and of BioSemi's inputs (A1 …) also names; default: "
        "the files' positions, or those of the names",
    )


class RecordingKeys(ElectrodeKeys):
    """Keys of whatever opens recordings: where events are described, and what
    electrodes are called.
    """

    column: str = Field(
        "",
        description="column of the events.tsv next to a recording that describes its "
        "events, or a template as stim-{task}{number:05d}; default: stim_file, else "
        "stimulus_id, else the recording's annotations",
    )
    onset_unit: Literal["s", "ms"] = Field(
        "s",
        description="unit of the onsets in that events.tsv: BIDS has s; with ms "
        "nothing else is read as BIDS",
    )
    stim_channel: str = Field(
        "",
        description="channel whose codes are the events; default: any, if there are no "
        "annotations",
    )

    @model_validator(mode="after")
    def _has_a_table_of_that_unit(self) -> Self:
        if self.onset_unit != "s" and (self.stim_channel or not self.column):
            raise ValueError(
                f"onset_unit {self.onset_unit} needs a column of the events.tsv"
            )
        return self


@dataclass(frozen=True)
class Header:
    """Content of a recording, apart from its signals.

    Attributes:
        ch_names: [C] names of the channels.
        types: [C] types of the channels as mne names them.
        bad: Names of the channels that were marked as bad.
        positions: [C, 3] in metres; NaN where they are not known.
        rate_hz: Samples a second.
        filtered_hz: Lower and upper edge of filters of earlier programs and of the
            amplifier.
        samples: Number of samples.
        events: Sample and description of each event; neither BAD nor an interruption.
        bad_spans: First and last sample, and description, of each BAD annotation and
            interruption.
        events_from: Source of the events, in words.
        variances: [C] in mne's units, within a few stretches of a second over all of
            the recording; NaN where no stretch is finite.
        without_onset: Descriptions of events whose row of the events.tsv has no onset.
        reference: Reference of EEG, as the sidecar or mne says it; empty without EEG.
        compensation: Grade of CTF's compensation; None for other systems.
        doubts: What is unusual about its events and tables, a line each.
    """

    ch_names: tuple[str, ...]
    ch_types: tuple[str, ...]
    bads: tuple[str, ...]
    positions: Float64
    rate_hz: float
    filtered_hz: tuple[float, float]
    n_times: int
    events: tuple[tuple[int, str], ...]
    bad_spans: tuple[tuple[int, int, str], ...]
    event_source: str
    variances: Float64
    events_without_onset: tuple[str, ...]
    reference: str
    compensation_grade: int | None
    warnings: tuple[str, ...]

    @property
    def breaks(self) -> list[tuple[int, int]]:
        """First sample of each span where the signal does not go on, and the first
        behind it; equal where no samples lie between.
        """
        return [(low, high) for low, high, text in self.bad_spans if BREAK.match(text)]

    def get_variances(self, names: Sequence[str]) -> Float64:
        """Return the variances of channels by name, in mne's units."""
        return self.variances[[*map(self.ch_names.index, names)]]

    def find_bad_span(self, onset: int, span: tuple[int, int]) -> str:
        """Describe the first of the bad spans that a trial overlaps; empty if none
        does.

        Args:
            onset: Sample of the trial's onset.
            span: First and last sample of the trial, from its onset.
        """
        for low, high, text in self.bad_spans:
            if low <= onset + span[1] and onset + span[0] <= high:
                return text
        return ""


FindPictures = Callable[[Collection[str]], Collection[str]]
"""Finds those of some events that stand for pictures."""
Events = tuple[Sequence[tuple[int | None, str]], str, list[str]]
"""Sample (None without an onset) and description of each event, their source in words,
and doubts.
"""


def read_header(
    path: Path,
    keys: RecordingKeys,
    delay_s: float = 0.0,
    find_pictures: FindPictures = lambda events: (),
) -> Header:
    """Read the content of a recording, apart from its signals.

    Args:
        path: The file.
        keys: Where its events are described, and what its electrodes are called.
        delay_s: Seconds from an event to its picture on the screen, which are added.
        find_pictures: Finds the events that stand for pictures. Their codes count
            however short they are, and the codes of a channel count where no annotation
            stands for a picture.

    Raises:
        MissingData: if it is damaged.
        BrainhiveError: if it has no events.
    """
    has_bids_onsets = keys.onset_unit == "s"
    raw = unchanged = open_raw(path, has_bids_onsets, keys.rename, keys.montage)
    # mne-bids puts the events.tsv instead of its annotations
    if is_read_as_bids(path, has_bids_onsets):
        unchanged = open_raw(path, has_bids_onsets=False)
    with report_unreadable(path):
        # annotations: events, spans without trials, and interruptions
        rate_hz = float(raw.info["sfreq"])
        markers, own_spans = _read_annotations(unchanged, path)
        annotated, spans = (
            (markers, []) if unchanged is raw else _read_annotations(raw, path)
        )
        spans += own_spans
        events, source, doubts = _find_events(raw, path, annotated, keys, find_pictures)

        # onsets of a table, which mne-bids may have read, against markers or codes of
        # the recording itself
        table = (
            "events.tsv" if unchanged is not raw and source == ANNOTATIONS else source
        )
        if table.endswith(".tsv"):
            witness = "markers of the recording"
            if not markers and (stimulus := _list_stimulus(raw)):
                chosen, codes = _read_codes(raw, stimulus, find_pictures)
                markers = _find_changes(codes, rate_hz, find_pictures)[1]
                witness = f"codes of channel {chosen}"
            times_s = np.array([at / rate_hz for at, _ in events if at is not None])
            with naming(f"{path}: {table} and {witness} disagree"):
                doubt = compare_onsets(times_s, markers, rate_hz, delay_s)
            if doubt:
                doubts.append(f"{table} and {witness} disagree: {doubt}")

        delay = round(delay_s * rate_hz)
        return make_header(
            raw,
            source,
            sorted((at + delay, text) for at, text in events if at is not None),
            spans,
            [text for at, text in events if at is None],
            doubts,
        )


def make_header(
    raw: Any,
    event_source: str,
    events: Sequence[tuple[int, str]],
    bad_spans: Sequence[tuple[int, int, str]] = (),
    events_without_onset: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> Header:
    """Describe the channels of a recording that is open in mne; arguments are those of
    `Header`.
    """
    # variances within stretches of a second, evenly over the recording
    rate_hz = float(raw.info["sfreq"])
    length = min(int(raw.n_times), max(2, round(rate_hz)))
    starts = np.unique(
        np.linspace(0, raw.n_times - length, STRETCHES).astype(int)
    ).tolist()
    # stretches where samples were lost (NaN) say nothing
    with np.errstate(over="ignore", invalid="ignore"):
        stretches = np.array(
            [raw.get_data(start=at, stop=at + length).var(1) for at in starts],
            np.float64,
        )
        means = np.ma.masked_invalid(stretches).mean(0)  # [C]

    # mne writes zeros where a position is not known
    # [C, 3]
    positions = np.array(
        [channel["loc"][:3] for channel in raw.info["chs"]], np.float64
    )
    return Header(
        tuple(raw.ch_names),
        tuple(raw.get_channel_types()),
        tuple(raw.info["bads"]),
        np.where(np.any(positions, 1, keepdims=True), positions, np.nan),
        rate_hz,
        (
            float(raw.info["highpass"] or 0),
            float(raw.info["lowpass"] or rate_hz / 2),
        ),
        int(raw.n_times),
        tuple(events),
        tuple(bad_spans),
        event_source,
        np.ma.filled(means, np.nan),
        tuple(events_without_onset),
        _read_reference(raw) if "eeg" in raw else "",
        raw.compensation_grade,
        tuple(warnings),
    )


def _read_reference(raw: Any) -> str:
    """Read the reference of EEG from the sidecar of BIDS, or else as mne notes it."""
    file = raw.filenames[0]
    known = dict[str, Any]()
    if file and (sidecar := find_sidecar(Path(file), "eeg", ".json")):
        with suppress(BrainhiveError):  # of no use for anything else
            known = documents.read(sidecar)
    reference = str(known.get("EEGReference", ""))
    if reference not in EMPTY_CELLS:
        return reference
    if any("reference" in projection["desc"] for projection in raw.info["projs"]):
        return "average, as a projection"
    return "set in mne" if raw.info["custom_ref_applied"] else "as recorded"


def _read_annotations(
    raw: Any, path: Path
) -> tuple[list[tuple[int, str]], list[tuple[int, int, str]]]:
    """Read sample and description of markers; and first and last sample and description
    of spans and cuts.
    """
    rate_hz = float(raw.info["sfreq"])
    # times of .fif count from the start of the acquisition, before the first sample
    onsets = (raw.annotations.onset - raw.first_time) * rate_hz
    texts = [
        REFERENCE.sub(lambda match: unescape(match[0]), text)
        for text in raw.annotations.description
    ]
    markers = []
    spans = []
    cuts = []
    is_eeglab = path.suffix.lower() == ".set"
    for onset, length_s, text in zip(
        onsets.tolist(), raw.annotations.duration, texts, strict=True
    ):
        at = round(onset)
        if BAD.fullmatch(text):
            spans.append((at, at + round(float(length_s) * rate_hz), text))
        elif not (CUT.fullmatch(text) or (is_eeglab and CUT_NUMBER.fullmatch(text))):
            markers.append((at, text))
        # the first segment begins with the recording; EEGLAB puts a boundary between
        # two samples, and gives it the length of what was cut out
        elif (at := ceil(round(onset, 3))) > 0:
            cuts.append((at, at, text if CUT.fullmatch(text) else "boundary"))
    return markers, spans + cuts


def _find_events(
    raw: Any,
    path: Path,
    annotated: list[tuple[int, str]],
    keys: RecordingKeys,
    find_pictures: FindPictures,
) -> Events:
    """Find events in a table, `annotated` or a channel."""
    column = keys.column
    stim_channel = keys.stim_channel
    onset_unit = keys.onset_unit
    # the events.tsv, if it has the column, or all of a template, with any entries
    table = find_sidecar(path, "events")
    if column and table is None:
        raise MissingData(
            f"{path} has no events.tsv with a column {column}",
            f"write {_table_for(path, column, onset_unit)}, or read annotations: "
            "\"preparation.column=''\"",
        )
    if table is not None and not stim_channel:
        columns, rows = read_table(table)
        if column or not find_missing_column("", columns):
            name = name_events(table, columns, rows, column, path)
            if any(row[name] not in EMPTY_CELLS for row in rows):
                events = _list_rows(table, rows, name, onset_unit, raw.info["sfreq"])
                return events, table.name, _check_order(table, events)
        if column:
            raise BrainhiveError(
                f"{table} has entries in no row of column {column}",
                f"it has: {', '.join(columns)}; {WITH_PICTURES}",
            )

    # annotations, unless the recipe names a stimulus channel
    stimulus = _list_stimulus(raw)
    if stim_channel and stim_channel not in raw.ch_names:
        raise BrainhiveError(
            f"{path} has no channel {stim_channel}",
            f"its stimulus channels: {', '.join(stimulus) or 'none'}",
        )
    if annotated and not stim_channel:
        distinct, doubled = _drop_doubled(annotated, raw.info["sfreq"])
        if stimulus and not find_pictures([name for _, name in distinct]):
            # the codes of a channel may stand for pictures where annotations do not
            coded = _read_channel(raw, path, stimulus, find_pictures)
            if find_pictures([name for _, name in coded[0]]):
                return coded
        return distinct, ANNOTATIONS, doubled

    # each change of a stimulus channel to a code
    if stim_channel or stimulus:
        named = [stim_channel] if stim_channel else stimulus
        coded = _read_channel(raw, path, named, find_pictures)
        if coded[0]:
            return coded
        source = coded[1]
        further = ", ".join(name for name in stimulus if name not in source)
        raise BrainhiveError(
            f"{path}: the stimulus {source} has no events",
            f"preparation.stim_channel={f'NAME, of {further}' if further else 'NAME'}; "
            f"or write {_table_for(path)}",
        )
    way = f"write {_table_for(path)}; {WITH_PICTURES}"
    if trigger := next(filter(TRIGGER.fullmatch, raw.ch_names), ""):
        way = f"preparation.stim_channel={trigger}, if that holds codes; or {way}"
    raise BrainhiveError(
        f"{path} has no events: no annotations, no stimulus channel, and no events.tsv "
        "next to it",
        way,
    )


def _read_channel(
    raw: Any, path: Path, names: Sequence[str], find_pictures: FindPictures
) -> Events:
    """Read the events of a stimulus channel: each change to a code."""
    with naming(path):
        chosen, codes = _read_codes(raw, names, find_pictures)
    rate_hz = float(raw.info["sfreq"])
    rest, events, doubts = _find_changes(codes, rate_hz, find_pictures)
    source = f"channel {chosen}"
    if rest:
        source += f", which adds {rest} to each code"
    return events, source, [f"channel {chosen}: {doubt}" for doubt in doubts]


def _list_stimulus(raw: Any) -> list[str]:
    """List the channels that hold codes of events alone."""
    pairs = zip(raw.ch_names, raw.get_channel_types(), strict=True)
    return [name for name, kind in pairs if kind == "stim"]


def _table_for(path: Path, column: str = "stim_file", unit: str = "s") -> str:
    table = name_sidecars(path, "events")[-1]
    return f"{table.name} with columns onset ({unit}) and {column}"


def _list_rows(
    path: Path, rows: list[dict[str, str]], column: str, unit: str, rate_hz: float
) -> list[tuple[int | None, str]]:
    """List sample and description of the rows of a table that describe events, all with
    an onset or n/a.
    """
    described = [row for row in rows if row[column] not in EMPTY_CELLS]
    try:
        texts = [row["onset"] for row in described]
        onsets_s = np.array(
            [np.nan if text in EMPTY_CELLS else float(text) for text in texts]
        )
        if np.isinf(onsets_s).any():
            raise ValueError("one is infinite")
    except (KeyError, ValueError) as error:
        raise BrainhiveError(
            f"{path} has no onset in {unit} in each row: {first_line(error)}",
            "fix the table",
        ) from error
    samples = onsets_s * rate_hz / (1000 if unit == "ms" else 1)
    pairs = zip(samples, described, strict=True)
    return [(None if np.isnan(at) else round(at), row[column]) for at, row in pairs]


def _check_order(path: Path, events: Sequence[tuple[int | None, str]]) -> list[str]:
    """Describe where onsets of a table go back.

    Raises:
        BrainhiveError: if a clock restarts there: events before and after it are much
            closer to each other than any that follow each other.
    """
    onsets = np.array([at for at, _ in events if at is not None], np.int64)
    steps = np.diff(onsets)
    if not (steps < 0).any():
        return []
    line = int(np.argmax(steps < 0)) + 1
    where = f"onsets go back {(steps < 0).sum()} times, first behind event {line}"
    apart = np.percentile(np.diff(np.sort(onsets)), 5)
    if (steps > 0).any() and apart < 0.25 * steps[steps > 0].min():
        raise BrainhiveError(
            f"{path}: {where}, as of a clock that restarts",
            "write onsets from the start of the recording",
        )
    return [f"{path.name}: {where}"]


def compare_onsets(
    onsets_s: Float64,
    markers: Sequence[tuple[int, str]],
    rate_hz: float,
    delay_s: float = 0.0,
) -> str:
    """Describe how onsets of a table differ from markers of the recording.

    Empty where they agree, where fewer than half belong together by any constant shift,
    or where the shift is the one that `delay_s` makes up for.

    Args:
        onsets_s: [n] seconds.
        markers: Sample and name of each.
        rate_hz: Sampling rate.
        delay_s: Seconds that are added to all onsets.

    Raises:
        BrainhiveError: if that shift is longer than from one event to the next, so that
            each onset would lie at another event.
    """
    from scipy.signal import fftconvolve

    times_s = np.unique([at / rate_hz for at, _ in markers])  # [m]
    if min(len(onsets_s), len(times_s)) < 3:
        return ""

    # onsets in whole seconds lie up to .5 s from their markers
    onsets_s = np.sort(onsets_s)
    is_whole = not (onsets_s % 1).any() and (times_s % 1).any()
    near_s = 0.5 + TOLERANCE_S if is_whole else NEAR_S

    # the shift by which most belong together: none, or the peak of the correlation of
    # both, counted in bins
    lag_s = 0.0
    if np.mean(np.abs(_pair(onsets_s, times_s)) <= near_s) < MOST:
        first_s = min(onsets_s[0], times_s[0])
        rows, marks = (
            np.bincount(((at - first_s) / near_s).astype(int))
            for at in (onsets_s, times_s)
        )
        together = np.convolve(
            np.rint(fftconvolve(rows, marks[::-1])), [1, 1, 1], "same"
        )
        lags = np.arange(len(together)) - (len(marks) - 1)
        lag_s = float(lags[np.lexsort((np.abs(lags), -together))[0]] * near_s)

    # each row with its nearest marker after that shift
    late_s = _pair(onsets_s - lag_s, times_s)
    lag_s += float(np.median(late_s[np.abs(late_s) <= 2 * near_s]))
    late_s = _pair(onsets_s - lag_s, times_s)
    is_near = np.abs(late_s) <= near_s
    if is_near.sum() < max(3, min(len(onsets_s), len(times_s)) / 2):
        return ""

    # shift, rounding, and rows or markers more
    tolerance_s = max(TOLERANCE_S, 2 / rate_hz)
    differences = []
    if lost := int((~is_near).sum()):
        differences.append(f"rows without a marker: {lost} of {len(onsets_s)}")
    most_s = np.abs(late_s[is_near]).max()
    if most_s > 4 * tolerance_s:
        what = (
            "its onsets are whole seconds" if is_whole else "after that its onsets lie"
        )
        differences.append(f"{what}, up to {most_s:.2g} s from the markers")
    least_s = near_s if is_whole else tolerance_s
    rest_s = max(tolerance_s, 0.1 * abs(lag_s))
    if abs(lag_s) > least_s and abs(lag_s + delay_s) > rest_s:
        side = "later" if lag_s > 0 else "earlier"
        shift = f"it is {abs(lag_s):.4g} s {side} throughout"
        way = (
            f"preparation.delay_ms={-1000 * lag_s:.0f} would move it onto them, if "
            "they are right"
        )
        if abs(lag_s) > np.median(np.diff(onsets_s)):
            raise BrainhiveError("; ".join([*differences, shift]), way)
        differences.append(f"{shift}; {way}")
    return "; ".join(differences)


def _pair(onsets_s: Float64, times_s: Float64) -> Float64:
    """Give the seconds [n] from the nearest time to each onset."""
    # the nearer of the times before and after
    after = np.searchsorted(times_s, onsets_s).clip(1, len(times_s) - 1)
    nearest = after - (onsets_s - times_s[after - 1] < times_s[after] - onsets_s)
    return onsets_s - times_s[nearest]


def _read_codes(
    raw: Any, names: Sequence[str], find_pictures: FindPictures
) -> tuple[str, Int64]:
    """Read the codes of a channel, or the code whose bits several trigger lines are.

    Of several channels, the one counts whose name says that it combines the others;
    else the one with the most codes of pictures.

    Returns:
        Name of the channel or the lines, and code of each sample.

    Raises:
        BrainhiveError: if codes are not whole numbers, or it cannot be said which
            channel or bit counts.
    """
    # a channel that combines the lines, STI101 before others; else all channels
    combined = [name for name in names if COMBINED.fullmatch(name)]
    chosen = sorted(combined, key=lambda name: "101" not in name)[:1] or names
    codes = {}
    for name in chosen:
        picks = [raw.ch_names.index(name)]
        (values,) = raw.get_data(picks=picks)
        (kind,) = raw.get_channel_types(picks=picks)
        # a channel that the file takes for a signal in volts has codes in its own unit
        if kind != "stim" and np.abs(values).max(initial=0) < 0.5:
            values = values * CHANNEL_UNITS.get(kind, (1.0, ""))[0]
        codes[name] = _round_codes(np.nan_to_num(values), name)

    # channels that change between two values are the bits of one code
    counts = {name: len(np.unique(codes[name])) for name in codes}
    changing = [name for name in codes if counts[name] > 1]
    if len(changing) > 1 and max(counts.values()) == 2:
        return _combine_lines({name: codes[name] for name in changing}, names)

    # the channel with the most codes of pictures, or else with the most codes
    worth = {}
    for name, values in codes.items():
        levels = [*map(str, np.unique(values))]
        worth[name] = (len(find_pictures(levels)), counts[name])
    best = [name for name in codes if worth[name] == max(worth.values())]
    if len(changing) > 1:
        readings = {f"channel {name}": codes[name] for name in best}
        choose_only(readings, "codes", "preparation.stim_channel=NAME")
    return best[0], codes[best[0]]


def _round_codes(values: Float64, name: str) -> Int64:
    """Round the values of a channel to codes.

    Raises:
        BrainhiveError: if most are no codes, as those that were resampled or filtered.
    """
    codes = np.rint(values).astype(np.int64)
    levels, counts = np.unique(codes, return_counts=True)
    is_off = codes != levels[counts.argmax()]
    fractions = np.abs(values - codes)[is_off] > 0.25
    if len(fractions) and fractions.mean() > MOST_FRACTIONS:
        raise BrainhiveError(
            f"channel {name} has no whole numbers in {fractions.mean():.0%} of its "
            "samples: it was resampled or filtered",
            "take events before that, and save them as annotations or events.tsv",
        )
    return codes


def _combine_lines(
    lines: Mapping[str, Int64], names: Sequence[str]
) -> tuple[str, Int64]:
    """Combine trigger lines into the code whose bits they are, by their numbers from 1,
    or from 0 if there is a line 0.

    Args:
        lines: The values [samples] of each line that changes.
        names: Names of all lines.

    Raises:
        BrainhiveError: if the names do not number the lines.
    """
    matches = [LINE.fullmatch(name) for name in names]
    numbers = [int(match[2]) for match in matches if match]
    stems = {(match[1], match[3]) for match in matches if match}
    if len({*numbers}) < len(names) or len(stems) > 1 or max(numbers) > MOST_LINES:
        raise BrainhiveError(
            f"channels {', '.join(lines)} change between two values each, and their "
            "names do not say which bit of a code each is",
            "preparation.stim_channel=NAME of the one that marks pictures, or events "
            "in an events.tsv",
        )
    bits = dict(zip(names, numbers, strict=True))
    first = min(1, *numbers)
    code = sum(
        (values > values.min()).astype(np.int64) << (bits[name] - first)
        for name, values in lines.items()
    )
    return f"{names[0]} to {names[-1]}", np.asarray(code, np.int64)


def _find_changes(
    codes: Int64, rate_hz: float, find_pictures: FindPictures
) -> tuple[int, list[tuple[int, str]], list[str]]:
    """Find the changes of a channel to a code: its level at rest, sample and code of
    each, and doubts.
    """
    # spans of one value; where most last, those of a sample are lines that change one
    # after another. mne's own would lose one at sample 0
    starts = np.flatnonzero(np.diff(codes, prepend=codes[:1] - 1))
    values = codes[starts]
    lengths = np.diff(starts, append=len(codes))
    glitch = max(1, int(GLITCH_S * rate_hz))
    doubts = []
    if (values != 0).any() and np.median(lengths[values != 0]) >= 2 * glitch:
        is_glitch = lengths <= glitch
        is_glitch[-1] = False
        is_glitch &= ~_are_pulses(values, is_glitch, find_pictures)
        for index in np.flatnonzero(is_glitch)[::-1].tolist():
            values[index] = values[index + 1]
        is_start = np.diff(values, prepend=values[:1] - 1) != 0
        starts = starts[is_start]
        values = values[is_start]
        if is_glitch.any():
            length_ms = 1000 * glitch / rate_hz
            doubts.append(
                f"codes or gaps of up to {length_ms:.2g} ms are left out, "
                f"{is_glitch.sum()} times"
            )

    # lines that are always high add to all codes
    levels, counts = np.unique(values, return_counts=True)
    rest = int(levels[counts.argmax()])
    if 0 <= rest < LEAST_REST or counts.max() <= 0.4 * len(values):
        rest = 0

    # events are codes other than 0 and the level at rest
    is_event = (values != 0) & (values != rest)
    pairs = zip(starts[is_event].tolist(), map(str, values[is_event]), strict=True)
    events, doubled = _drop_doubled(pairs, rate_hz)
    return rest, events, doubts + doubled


def _are_pulses(values: Int64, is_short: Bool, find_pictures: FindPictures) -> Bool:
    """Mark the short spans [n] of a channel that are events: of codes that a table
    lists and that never last longer, with lines high that neither neighbour has.
    """
    neighbours = np.append(0, values[:-1]) | np.append(values[1:], 0)
    adds_lines = (values & ~neighbours) != 0
    lasting = {*values[~is_short].tolist()}
    codes = [code for code in {*values[is_short].tolist()} if code not in lasting]
    listed = [int(code) for code in find_pictures([*map(str, codes)])]
    return is_short & adds_lines & np.isin(values, listed)


def _drop_doubled(
    events: Iterable[tuple[int, str]], rate_hz: float
) -> tuple[list[tuple[int, str]], list[str]]:
    """Drop events that repeat the same one within DOUBLE_S, and describe how many."""
    last: dict[str, int] = {}
    distinct = []
    events = sorted(events)
    for at, name in events:
        # the last counts, dropped or not, so that a line that bounces is one event
        if name not in last or at - last[name] > DOUBLE_S * rate_hz:
            distinct.append((at, name))
        last[name] = at
    doubt = (
        f"events that repeat one within {DOUBLE_S * 1000:.0f} ms count once, "
        f"{len(events) - len(distinct)} times"
    )
    return distinct, [doubt] if len(distinct) < len(events) else []
