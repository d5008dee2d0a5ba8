"""Header of a recording: channels, bad spans and events."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from html import unescape
from math import ceil
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core.base import (
    BrainhiveError,
    Float64,
    MissingData,
    first_line,
    naming,
)
from brainhive_cli.core.files import documents
from brainhive_cli.core.recipes import parts
from brainhive_cli.data.files import read_entities
from brainhive_cli.data.recordings.account import Dispute
from brainhive_cli.data.recordings.onset_shift import compare_codes, compare_onsets
from brainhive_cli.data.recordings.opening import open_raw, report_unreadable
from brainhive_cli.data.recordings.stim_channels import (
    EventList,
    FindPictures,
    drop_repeats,
    find_code_changes,
    list_stim_channels,
    read_codes,
    read_stim_events,
)
from brainhive_cli.data.recordings.tables import (
    EMPTY_CELLS,
    RowKinds,
    WhereKey,
    find_missing_column,
    find_sidecar,
    is_read_as_bids,
    name_events,
    name_sidecars,
    read_kinds,
    read_table,
    select_rows,
)

ANNOTATIONS = "annotations"
"""Source of events that the recording itself names."""
FILES_HINT = "select the recordings with pictures: preparation.files=PATTERN"
"""Hint for a recording without events, such as a recording of rest."""


class ElectrodeKeys(parts.Config):
    """Keys for the names and positions of electrodes."""

    rename: dict[str, str] = Field(
        {},
        exclude_if=lambda rename: not rename,  # stores hold it only if it is set
        description="new names of channels, by their names in the files; names of EEG "
        "channels are converted to the 10-05 system anyway (FP1 and `EEG Fp1-REF` "
        "become Fp1)",
    )
    montage: str = Field(
        "",
        exclude_if=lambda montage: not montage,  # stores hold it only if it is set
        description="montage in mne, such as biosemi64, GSN-HydroCel-128 or "
        "easycap-M1; it sets positions, and the names of BioSemi inputs (A1 …); "
        "default: the positions in the files, else those of the channel names",
    )


class RecordingKeys(ElectrodeKeys):
    """Keys for the events and electrodes of recordings."""

    column: str = Field(
        "",
        description="column of the events.tsv next to a recording that names its "
        "events, or a template such as stim-{task}{number:05d}; default: stim_file, "
        "else stimulus_id, else the annotations of the recording",
    )
    onset_unit: Literal["s", "ms"] = Field(
        "s",
        description="unit of the onsets in the events.tsv; BIDS uses s; with ms, "
        "mne-bids does not read the recordings",
    )
    where: WhereKey = Field({})
    stim_channel: str = Field(
        "",
        description="channel whose codes are the events; default: any stimulus "
        "channel, if there are no annotations",
    )

    @model_validator(mode="after")
    def _require_column_for_unit(self) -> Self:
        if self.where and self.stim_channel:
            raise ValueError("where selects rows of the events.tsv, not codes")
        if self.onset_unit != "s" and (self.stim_channel or not self.column):
            raise ValueError(
                f"onset_unit {self.onset_unit} needs a column of the events.tsv"
            )
        return self


@dataclass(frozen=True)
class Header:
    """Content of a recording without its signals.

    Attributes:
        ch_names: Names [C] of the channels.
        ch_types: Types [C] of the channels in mne.
        bads: Names of the channels that are marked as bad.
        positions: Positions [C, 3] in metres, or NaN.
        rate_hz: Sampling rate.
        filtered_hz: Highpass and lowpass of the amplifier and of earlier programs.
        n_times: Number of samples.
        events: Sample and name of each event, without bad spans and boundaries.
        bad_spans: First sample, last sample and description of each bad span and
            boundary.
        event_source: Source of the events, such as "channel STI101".
        variances: Variances [C] in mne's units, averaged over segments of 1 s. NaN if
            no segment is finite.
        events_without_onset: Names of the events whose row in the events.tsv has no
            onset.
        reference: EEG reference in the sidecar or mne. Empty without EEG.
        compensation_grade: Grade of CTF compensation, or None for other systems.
        warnings: Unusual facts about events and tables, a line each.
        kinds: Kinds of the row of each event, by its sample.
        n_outside: Number of events before or after the recording.
        disputes: What does not add up between the table and the recording.
        date: Day of the recording, such as "2023-05-12", or "" if unknown.
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
    kinds: Mapping[int, RowKinds] = field(default_factory=dict)
    n_outside: int = 0
    disputes: tuple[Dispute, ...] = ()
    date: str = ""

    @property
    def has_table(self) -> bool:
        """True if an events.tsv names the events."""
        return self.event_source.endswith(".tsv")

    @property
    def breaks(self) -> list[tuple[int, int]]:
        """Spans where the signal is not continuous: first sample, and first sample
        after the span.
        """
        # Beginnings of the annotations at which the signal is not continuous.
        return [
            (start, stop)
            for start, stop, text in self.bad_spans
            if re.match(
                r"(comment/)?(edge|bad[ _]acq[ _]skip|bad[ _]boundary|boundary"
                r"|new segment/).*",
                text,
                re.IGNORECASE | re.DOTALL,
            )
        ]

    def get_variances(self, names: Sequence[str]) -> Float64:
        """Return the variances of the named channels, in mne's units."""
        return self.variances[list(map(self.ch_names.index, names))]

    def find_bad_span(self, onset: int, span: tuple[int, int]) -> str:
        """Return the description of the first bad span that a trial overlaps, or "".

        Args:
            onset: Sample of the trial's onset.
            span: First and last sample of the trial, relative to its onset.
        """
        for start, stop, text in self.bad_spans:
            if start <= onset + span[1] and onset + span[0] <= stop:
                return text
        return ""


def read_header(
    path: Path,
    keys: RecordingKeys,
    delay_s: float = 0.0,
    find_pictures: FindPictures = lambda events: (),
) -> Header:
    """Read the header of a recording, with its events.

    Args:
        path: Path of the recording.
        keys: Keys for its events and electrodes.
        delay_s: Time from an event to its picture, which is added to each onset.
        find_pictures: Finds the events that stand for pictures. The codes of a channel
            replace the annotations if only the codes stand for pictures.

    Raises:
        MissingData: if the file is damaged.
        BrainhiveError: if it has no events, or if its sources of events conflict.
    """
    has_bids_onsets = keys.onset_unit == "s"
    omitted: list[int] = []
    raw = open_raw(path, has_bids_onsets, keys.rename, keys.montage, omitted)
    # mne-bids replaces the annotations by the events.tsv, so open the file without it
    is_bids = is_read_as_bids(path, has_bids_onsets)
    own_raw = open_raw(path, has_bids_onsets=False) if is_bids else raw
    with report_unreadable(path):
        own_markers, own_spans = _read_annotations(own_raw, path, find_pictures)
        if is_bids:
            markers, table_spans = _read_annotations(raw, path, find_pictures)
        else:
            markers, table_spans = own_markers, []
        event_list = _find_events(raw, path, markers, keys, find_pictures)
        source = event_list.source
        warnings = list(event_list.warnings)

        # events outside the recording are counted, not damage
        rate_hz = float(raw.info["sfreq"])
        delay = round(delay_s * rate_hz)
        onsets = []
        names_without_onset = []
        for sample, name in event_list.events:
            if sample is None:
                names_without_onset.append(name)
            else:
                onsets.append((sample, name))
        inside = [pair for pair in onsets if 0 <= pair[0] < raw.n_times]
        n_outside = len(onsets) - len(inside)
        if source == ANNOTATIONS:
            n_outside = sum(omitted)

        # compare a table with the recording
        disputes = []
        table = "events.tsv" if is_bids and source == ANNOTATIONS else source
        if table.endswith(".tsv") and onsets:
            marker_source = "markers of the recording"
            stim_channels = list_stim_channels(raw)
            if stim_channels and not own_markers:
                channel, codes = read_codes(raw, stim_channels, find_pictures)
                own_markers = find_code_changes(codes, rate_hz, find_pictures)[1]
                marker_source = f"codes of channel {channel}"
            onsets_s = np.array([sample / rate_hz for sample, _ in onsets])
            conflict = f"{table} and {marker_source} disagree"
            with naming(f"{path}: {conflict}"):
                difference = compare_onsets(onsets_s, own_markers, rate_hz, delay_s)
            if difference:
                warnings.append(f"{conflict}: {difference}")
            names = [name for _, name in onsets]
            labellings = [names, [name.rpartition("/")[0] for name in names]]
            kinds = [event_list.kinds.get(sample, ()) for sample, _ in onsets]
            for columns in zip(*kinds, strict=False):
                labellings.append([value for _, value in columns])
            dispute = compare_codes(onsets_s, labellings, own_markers, rate_hz)
            if dispute:
                problem = f"{path.name}, {marker_source}: {dispute.problem}"
                disputes.append(replace(dispute, problem=problem))

        header = make_header(
            raw,
            source,
            sorted((sample + delay, name) for sample, name in inside),
            table_spans + own_spans,
            names_without_onset,
            warnings,
        )
        return replace(
            header,
            kinds={at + delay: kind for at, kind in event_list.kinds.items()},
            n_outside=n_outside,
            disputes=tuple(disputes),
        )


def make_header(
    raw: Any,
    event_source: str,
    events: Sequence[tuple[int, str]],
    bad_spans: Sequence[tuple[int, int, str]] = (),
    events_without_onset: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> Header:
    """Make the header of a recording that is open in mne.

    The arguments after `raw` are attributes of `Header`.
    """
    # variances in segments that are spread evenly over the recording
    rate_hz = float(raw.info["sfreq"])
    length = min(int(raw.n_times), max(2, round(rate_hz)))
    # The variance of channels is measured in 12 segments of 1 s.
    spaced = np.linspace(0, raw.n_times - length, 12)
    segments = []
    # leave out segments in which samples were lost (NaN)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in np.unique(spaced.astype(int)).tolist():
            segments.append(raw.get_data(start=start, stop=start + length).var(1))
        variances = np.ma.masked_invalid(np.array(segments, np.float64)).mean(0)  # [C]

    # mne writes zeros for an unknown position
    positions = np.array(
        [channel["loc"][:3] for channel in raw.info["chs"]], np.float64
    )
    has_position = np.any(positions, 1, keepdims=True)
    highpass_hz = float(raw.info["highpass"] or 0)
    lowpass_hz = float(raw.info["lowpass"] or rate_hz / 2)
    return Header(
        ch_names=tuple(raw.ch_names),
        ch_types=tuple(raw.get_channel_types()),
        bads=tuple(raw.info["bads"]),
        positions=np.where(has_position, positions, np.nan),
        rate_hz=rate_hz,
        filtered_hz=(highpass_hz, lowpass_hz),
        n_times=int(raw.n_times),
        events=tuple(events),
        bad_spans=tuple(bad_spans),
        event_source=event_source,
        variances=np.ma.filled(variances, np.nan),
        events_without_onset=tuple(events_without_onset),
        reference=_read_reference(raw) if "eeg" in raw else "",
        compensation_grade=raw.compensation_grade,
        warnings=tuple(warnings),
        date=str(raw.info["meas_date"] or "")[:10],
    )


def _read_reference(raw: Any) -> str:
    """Read the EEG reference from the BIDS sidecar, or else from mne's info."""
    path = raw.filenames[0]
    sidecar = find_sidecar(Path(path), "eeg", ".json") if path else None
    if sidecar is not None:
        with suppress(BrainhiveError):  # a damaged sidecar stops nothing else
            reference = str(documents.read(sidecar).get("EEGReference", ""))
            if reference not in EMPTY_CELLS:
                return reference
    for projection in raw.info["projs"]:
        if "reference" in projection["desc"]:
            return "average, as a projection"
    return "set in mne" if raw.info["custom_ref_applied"] else "as recorded"


def _read_annotations(
    raw: Any, path: Path, find_pictures: FindPictures = lambda names: ()
) -> tuple[list[tuple[int, str]], list[tuple[int, int, str]]]:
    """Read the annotations of a recording.

    The name of a picture, such as badger_1, marks no bad span.

    Returns:
        Sample and name of each marker, and first sample, last sample and description
        of each bad span and boundary.
    """
    rate_hz = float(raw.info["sfreq"])
    markers = []
    bad_spans = []
    boundaries = []
    is_eeglab = path.suffix.lower() == ".set"
    # onsets count from the start of the acquisition, before the first sample
    onsets = ((raw.annotations.onset - raw.first_time) * rate_hz).tolist()
    durations_s = raw.annotations.duration.tolist()
    descriptions = raw.annotations.description.tolist()
    # Annotations of spans without trials.
    bad_span = re.compile(r"(comment/)?(bad|edge).*", re.IGNORECASE | re.DOTALL)
    picture_names = set(find_pictures(list(filter(bad_span.fullmatch, descriptions))))
    for onset, duration_s, text in zip(onsets, durations_s, descriptions, strict=True):
        sample = round(onset)
        # Character outside Latin-1 in a description that mne wrote to a .fif file.
        text = re.sub(r"&#\d{3,7};", lambda match: unescape(match[0]), text)
        # Annotations of EEGLAB and BrainVision where a recording was interrupted, or
        # samples were cut out.
        is_boundary = re.fullmatch(
            r"(comment/)?(boundary|new segment/.*)", text, re.IGNORECASE
        )
        # EEGLAB files with numeric events call it -99 (option_boundary99).
        is_numeric_boundary = is_eeglab and re.fullmatch(r"-99(\.0*)?", text)
        if text in picture_names:
            markers.append((sample, text))
        elif bad_span.fullmatch(text):
            bad_spans.append((sample, sample + round(duration_s * rate_hz), text))
        elif not (is_boundary or is_numeric_boundary):
            markers.append((sample, text))
        else:
            # EEGLAB puts a boundary between two samples. The duration counts removed
            # samples. A boundary at the start separates nothing
            sample = ceil(round(onset, 3))
            if sample > 0:
                name = text if is_boundary else "boundary"
                boundaries.append((sample, sample, name))
    return markers, bad_spans + boundaries


def _find_events(
    raw: Any,
    path: Path,
    markers: list[tuple[int, str]],
    keys: RecordingKeys,
    find_pictures: FindPictures,
) -> EventList:
    """Find the events in the events.tsv, the annotated markers or a stimulus channel.

    Raises:
        BrainhiveError: if there are no events, or if the keys do not fit.
    """
    rate_hz = float(raw.info["sfreq"])
    table_events = _read_events_table(path, keys, rate_hz)
    if table_events is not None:
        return table_events

    stim_channels = list_stim_channels(raw)
    if keys.stim_channel and keys.stim_channel not in raw.ch_names:
        raise BrainhiveError(
            f"{path} has no channel {keys.stim_channel}. Its stimulus channels: "
            f"{', '.join(stim_channels) or 'none'}",
            "choose one of them, or leave out preparation.stim_channel to read "
            "annotations",
        )
    if markers and not keys.stim_channel:
        distinct, warnings = drop_repeats(markers, rate_hz)
        marker_events = EventList(distinct, ANNOTATIONS, warnings)
        if stim_channels and not _has_pictures(marker_events, find_pictures):
            code_events = read_stim_events(raw, path, stim_channels, find_pictures)
            if _has_pictures(code_events, find_pictures):
                return code_events
        return marker_events

    channels = [keys.stim_channel] if keys.stim_channel else stim_channels
    if channels:
        code_events = read_stim_events(raw, path, channels, find_pictures)
        if code_events.events:
            return code_events
        source = code_events.source
        alternatives = [name for name in stim_channels if name not in source]
        raise BrainhiveError(
            f"the stimulus {source} of {path} has no events",
            "choose another channel (preparation.stim_channel="
            f"{' or '.join(alternatives) or 'NAME'}), or write "
            f"{_describe_table(path)}",
        )
    hint = f"write {_describe_table(path)}; or {FILES_HINT}"
    for name in raw.ch_names:
        # Names of channels that may hold codes, although their type is not `stim`.
        if re.fullmatch(
            r".*(TRIG|STIM|STATUS|MARKER|EVENT|STI ?\d|DIN).*", name, re.IGNORECASE
        ):
            hint = f"preparation.stim_channel={name}, if it holds codes; or {hint}"
            break
    raise BrainhiveError(
        f"{path} has no events: no annotations, no stimulus channel, and no events.tsv "
        "next to it",
        hint,
    )


def _has_pictures(event_list: EventList, find_pictures: FindPictures) -> bool:
    """Return True if any of the events stands for a picture."""
    return bool(find_pictures([name for _, name in event_list.events]))


def _read_events_table(
    path: Path, keys: RecordingKeys, rate_hz: float
) -> EventList | None:
    """Read the events of the events.tsv of a recording.

    Returns:
        The events, or None if the keys name a stimulus channel, or if they name no
        column and the usual columns are absent or empty.

    Raises:
        BrainhiveError: if the keys name a column that is absent or empty.
    """
    table = find_sidecar(path, "events")
    if keys.column and table is None:
        raise MissingData(
            f"{path} has no events.tsv with a column {keys.column}",
            f"write {_describe_table(path, keys.column, keys.onset_unit)}, or leave "
            "out preparation.column to read annotations",
        )
    if table is None or keys.stim_channel:
        return None
    columns, all_rows = read_table(table)
    rows, dropped = select_rows(
        table, columns, all_rows, keys.where, read_entities(path)
    )
    if keys.column or not find_missing_column("", columns):
        name_column = name_events(table, columns, rows, keys.column, path)
        events, kinds = _read_event_rows(
            table, rows, name_column, keys.onset_unit, rate_hz
        )
        if events:
            lines = [f"{count} {reason}" for reason, count in dropped.items()]
            return EventList(
                events, table.name, _check_order(table, events) + lines, kinds
            )
    if keys.column:
        raise BrainhiveError(
            f"column {keys.column} of {table} is empty. Its columns: "
            f"{', '.join(columns)}",
            f"name another column (preparation.column=NAME), or {FILES_HINT}",
        )
    return None


def _describe_table(path: Path, column: str = "stim_file", unit: str = "s") -> str:
    """Describe the events.tsv that a recording lacks, for hints."""
    table = name_sidecars(path, "events")[-1]
    return f"{table.name} with columns onset ({unit}) and {column}"


def _read_event_rows(
    path: Path, rows: list[dict[str, str]], column: str, unit: str, rate_hz: float
) -> tuple[list[tuple[int | None, str]], dict[int, RowKinds]]:
    """Read the sample (None without an onset) and name of each event of a table, and
    its kinds by sample.

    Args:
        path: Path of the table, for errors.
        rows: Rows of the table. Rows without a name are skipped.
        column: Column of the names.
        unit: Unit of the onsets, "s" or "ms".
        rate_hz: Sampling rate of the recording.
    """
    events: list[tuple[int | None, str]] = []
    kinds = {}
    units_per_s = 1000 if unit == "ms" else 1
    try:
        for row in rows:
            if row[column] in EMPTY_CELLS:
                continue
            text = row["onset"]
            onset = np.nan if text in EMPTY_CELLS else float(text)
            if np.isinf(onset):
                raise ValueError("an onset is infinite")
            is_absent = np.isnan(onset)
            sample = None if is_absent else round(onset * rate_hz / units_per_s)
            events.append((sample, row[column]))
            if sample is not None:
                kinds[sample] = read_kinds(row)
    except (KeyError, ValueError) as error:
        raise BrainhiveError(
            f"{path} has no onset in {unit} in each row: {first_line(error)}",
            "write seconds from the first sample, as in 12.5, into the column onset; "
            f"its columns: {', '.join(rows[0])}",
        ) from error
    return events, kinds


def _check_order(path: Path, events: Sequence[tuple[int | None, str]]) -> list[str]:
    """Describe where the onsets of a table decrease.

    Raises:
        BrainhiveError: if onsets before and after a decrease interleave, because a
            clock restarted.
    """
    samples = np.array([sample for sample, _ in events if sample is not None], int)
    steps = np.diff(samples)
    if not (steps < 0).any():
        return []
    row = int(np.argmax(steps < 0)) + 1
    problem = f"onsets go back {(steps < 0).sum()} times, first behind event {row}"
    # two sequences of a restarted clock overlap, so sorted onsets are much closer
    distance = np.percentile(np.diff(np.sort(samples)), 5)
    if (steps > 0).any() and distance < 0.25 * steps[steps > 0].min():
        raise BrainhiveError(
            f"{path}: {problem}, so a clock restarted",
            "write onsets from the start of the recording",
        )
    return [f"{path.name}: {problem}"]
