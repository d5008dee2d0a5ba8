"""The events of a recording: by the table next to it, its annotations, or its stimulus channel."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.errors import BrainhiveError, MissingData, first_line
from brainhive_cli.core.files import read_regular
from brainhive_cli.data.preparations._recording_files import table_of, tables_of


def events_of(
    raw: Any,
    path: Path,
    annotated: list[tuple[int, str]],
    column: str,
    stim_channel: str,
    onset_unit: str,
) -> tuple[list[tuple[int, str]], str]:
    """Find sample and description of each event, and say where they are from.

    Args:
        raw: As mne opened it.
        path: The file.
        annotated: Its annotations that are neither BAD nor an interruption.
        column: As of `read_header`.
        stim_channel: As of `read_header`.
        onset_unit: As of `read_header`.

    Raises:
        MissingData: if there is no table that has the column.
        BrainhiveError: if there are none.
    """
    table = table_of(path, "events")
    if column and table is None:
        hint = f"write {_table_for(path, column, onset_unit)}, or read annotations: \"preparation.column=''\""
        raise MissingData(f"{path} has no events.tsv with a column {column}", hint)
    if table is not None and not stim_channel:
        columns, rows = read_table(table)
        if (column or "stim_file") in columns:
            return _of_table(table, rows, column or "stim_file", raw.info["sfreq"], onset_unit), table.name
        if column:
            raise BrainhiveError(f"{table} has no column {column}", f"it has: {', '.join(columns)}")
    stimulus = [
        name for name, kind in zip(raw.ch_names, raw.get_channel_types(), strict=True) if kind == "stim"
    ]
    if stim_channel and stim_channel not in raw.ch_names:
        hint = f"its stimulus channels: {', '.join(stimulus) or 'none'}"
        raise BrainhiveError(f"{path} has no channel {stim_channel}", hint)
    if annotated and not stim_channel:
        return annotated, "annotations"
    if chosen := stim_channel or next(iter(stimulus), ""):
        if found := _of_channel(raw, chosen):
            return found, f"channel {chosen}"
        others = ", ".join(name for name in stimulus if name != chosen)
        raise BrainhiveError(
            f"{path}: the stimulus channel {chosen} has no events",
            f"preparation.stim_channel={f'NAME, of {others}' if others else 'NAME'}; "
            f"or write {_table_for(path)}",
        )
    raise BrainhiveError(
        f"{path} has no events: no annotations, no stimulus channel, and no events.tsv next to it",
        f"write {_table_for(path)}",
    )


def _table_for(path: Path, column: str = "stim_file", unit: str = "s") -> str:
    return f"{tables_of(path, 'events')[-1].name} with columns onset ({unit}) and {column}"


def _of_table(
    path: Path, rows: list[dict[str, str]], column: str, rate_hz: float, unit: str
) -> list[tuple[int, str]]:
    per_unit = rate_hz / 1000 if unit == "ms" else rate_hz
    try:
        return [
            (round(float(row["onset"]) * per_unit), row[column])
            for row in rows
            if row[column] not in ("", "n/a")
        ]
    except (KeyError, ValueError, OverflowError) as error:  # of an infinite one
        raise BrainhiveError(
            f"{path} has no onset in {unit} in each row: {error}", "fix the table"
        ) from error


def _of_channel(raw: Any, channel: str) -> list[tuple[int, str]]:
    """Find where the codes of a stimulus channel begin."""
    codes = np.rint(raw.get_data(picks=[channel])[0]).astype(np.int64)
    changes = np.flatnonzero(np.diff(codes, prepend=0) != 0)  # mne's own would lose one at sample 0
    return [(int(at), str(codes[at])) for at in changes if codes[at]]


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table with a header line: .tsv, or .csv with commas or semicolons.

    Raises:
        BrainhiveError: if it is no such table.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
        first = text.partition("\n")[0]
        separator = max("\t;,", key=first.count) if path.suffix != ".tsv" else "\t"
        reader = csv.DictReader(text.splitlines(), delimiter=separator, strict=True)
        rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    except (UnicodeDecodeError, csv.Error, AttributeError) as error:
        raise BrainhiveError(
            f"{path} is no table in UTF-8: {first_line(error)}", "save it as CSV in UTF-8"
        ) from error
    return [name for name in reader.fieldnames or [] if name], rows
