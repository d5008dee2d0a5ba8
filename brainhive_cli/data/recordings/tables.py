"""Tables next to recordings: events, channels and electrodes of BIDS."""

import csv
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import BrainhiveError, choose_only, first_line, read_cell
from brainhive_cli.core.files import is_file, read_regular
from brainhive_cli.data.files import (
    SPLIT,
    BidsIndex,
    find_bids_root,
    normalise_name,
    read_entities,
)

WORKBOOK_ENDINGS = (".xlsx", ".xls", ".ods")
SAVE_WORKBOOK_HINT = "open it in a spreadsheet, and save it as CSV in UTF-8"
EMPTY_CELLS = ("", "n/a")
"""Cells of BIDS tables without a value."""
NOT_AVAILABLE = re.compile(r"^(n/?a|nan)$", re.IGNORECASE)
"""Cell without a value, as BIDS, R, pandas and EEGLAB write it."""
STIMULUS_COLUMNS = ("stim_file", "stimulus_id")
"""Columns of BIDS that name the picture of an event. The first column with a value in
the row counts. The second is from draft extension 44.
"""
ENTITIES = {"subject": "sub", "session": "ses", "task": "task", "run": "run"}
"""Entities of a file name that templates of event names may use, and their keys."""
TEMPLATE_FIELD = re.compile(r"(\{([^{}:]+):?([^{}]*?([bdoxX])?)\})")
"""Field of a template: column or entity, Python's format, and type of an integer."""
PERSON_COLUMNS = {
    "sub": ("participant_id", "participant", "subject", "sub"),
    "ses": ("session", "ses"),
    "task": ("task",),
}
"""Columns that select the rows of a recording, by the entity of its name."""
KIND_COLUMNS = ("trial_type", "event_type", "condition", "task", "phase")
"""Columns that tell kinds of rows apart, such as seen and imagined pictures."""
RowKinds = tuple[tuple[str, str], ...]
"""Column of `KIND_COLUMNS` and value, for each such column of a row."""

WhereKey = Annotated[
    dict[str, str | float | list[str | float]],
    Field(
        exclude_if=lambda where: not where,
        description="read only events with these values in the events.tsv, such as "
        "{trial_type: picture} or {trial_type: [1, 2]}",
    ),
]
"""Recipe key of a preparation for the rows of an events.tsv."""


def name_sidecars(path: Path, suffix: str, extension: str = ".tsv") -> list[Path]:
    """Return the possible paths of a sidecar in the folder of a recording.

    Args:
        path: Path of the recording, such as `sub-01_task-x_eeg.vhdr`.
        suffix: BIDS suffix of the sidecar, such as "events".
        extension: Extension of the sidecar.

    Returns:
        Paths, of which the last follows BIDS: `sub-01_task-x_events.tsv`.
    """
    stem = path.name.partition(".")[0]
    unsplit = SPLIT.sub("", stem)
    stems = (stem, unsplit, re.sub(r"_(eeg|meg|ieeg)$", "", unsplit))
    return [path.with_name(f"{name}_{suffix}{extension}") for name in stems]


def find_sidecar(path: Path, suffix: str, extension: str = ".tsv") -> Path | None:
    """Find the sidecar of a recording by the inheritance principle of BIDS.

    The recording has all entities of the sidecar. The nearest folder wins, then the
    sidecar with the most entities.

    Returns:
        Path of the sidecar, or None.
    """
    for sidecar in name_sidecars(path, suffix, extension):
        if is_file(sidecar):
            return sidecar
    root = find_bids_root(path)
    if root is None:
        return None
    sidecars = BidsIndex(root).find_inherited(
        path.relative_to(root), f"{suffix}{extension}"
    )
    return next(filter(is_file, reversed(sidecars)), None)


def is_read_as_bids(path: Path, has_bids_onsets: bool) -> bool:
    """Return True if mne-bids opens a recording.

    Args:
        path: Path of the recording.
        has_bids_onsets: If False, the onsets in its tables are not in seconds.
    """
    if not (has_bids_onsets and path.name.startswith("sub-")):
        return False
    return find_bids_root(path) is not None


def read_number(text: object) -> float:
    """Read a number. Any other text is NaN."""
    try:
        return float(str(text))
    except ValueError:
        return np.nan


def read_table(
    path: Path, categories: Collection[str] = ()
) -> tuple[list[str], list[dict[str, str]]]:
    """Read a .tsv or .csv table with a header line.

    NA and NaN become n/a. A first line `sep=;` of spreadsheets is skipped.

    Args:
        path: Path of the table.
        categories: Names of categories, which stay as they are.

    Returns:
        Names of the columns, and the rows as mappings from column to cell.

    Raises:
        BrainhiveError: if the file is no table, if the number of cells in a line
            differs from the header, or if columns of the same name differ.
    """
    content = read_regular(path)
    # First bytes of workbooks: archives, and older files of Excel.
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise BrainhiveError(f"{path} is a workbook", SAVE_WORKBOOK_HINT)
    try:
        text = _decode(content)
        text = re.sub(r"\Asep=.\r?\n", "", text)
        separator = "\t"
        if path.suffix != ".tsv":
            header_line = text.partition("\n")[0]
            separator = max("\t;,", key=header_line.count)
        file = StringIO(text, newline="")
        lines = list(csv.reader(file, delimiter=separator, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BrainhiveError(
            f"{path} cannot be read as a table: {first_line(error)}",
            'save it as CSV in UTF-8, and write " within a cell twice',
        ) from error

    # lines may end with empty cells that have no column
    names = list(map(str.strip, lines[0])) if lines else []
    rows = []
    for number, line in enumerate(lines[1:], 2):
        cells = [read_cell(cell.strip()) for cell in line]
        for index, cell in enumerate(cells):
            if cell not in categories:
                cells[index] = NOT_AVAILABLE.sub("n/a", cell)
        if not any(cells) and len(cells) < len(names):
            continue  # a blank line
        if any(names[len(cells) :]) or any(cells[len(names) :]):
            raise BrainhiveError(
                f"{path}, line {number} has {len(cells)} cells, but the first line has "
                f"{len(names)}",
                "write as many cells, with n/a where there is no value",
            )
        rows.append(cells)

    # columns of the same name must be equal
    readings: dict[str, dict[str, list[str]]] = {}
    for index, name in enumerate(names):
        if name:
            column = [cells[index] for cells in rows]
            label = f"column {index + 1} ({', '.join(column[:2])} …)"
            readings.setdefault(name, {})[label] = column
    hint = "rename or remove one of the columns"
    columns = []
    for name, column_readings in readings.items():
        columns.append(choose_only(column_readings, f"{path}: {name}", hint) or [])
    table_rows = []
    for row_cells in zip(*columns, strict=True):
        table_rows.append(dict(zip(readings, row_cells, strict=True)))
    return list(readings), table_rows


def normalise_value(value: object) -> str:
    """Return the same text for 1, 01 and 1.0, and for n/a and NaN."""
    number = read_number(value)
    return NOT_AVAILABLE.sub("n/a", str(value)) if np.isnan(number) else str(number)


def select_rows(
    table: Path,
    columns: Sequence[str],
    rows: Sequence[dict[str, str]],
    conditions: Mapping[str, Any],
    labels: Mapping[str, str],
) -> tuple[list[dict[str, str]], Counter[str]]:
    """Select the rows of a recording from a table of events.

    Args:
        table: Path of the table.
        columns: Names of its columns.
        rows: Rows of the table.
        conditions: Allowed value, or list of values, by column.
        labels: Label of the recording by entity, such as {"sub": "01"}. Columns of
            `PERSON_COLUMNS` with several values select by it.

    Returns:
        The rows, and the number of other rows by reason.

    Raises:
        BrainhiveError: if a column of `conditions` is absent, or if a column of people
            or sessions does not have the label.
    """
    allowed_values = {}
    for column, value in conditions.items():
        if column not in columns:
            raise BrainhiveError(
                f"{table} has no column {column}",
                f"preparation.where={{COLUMN: VALUE}} of {', '.join(columns)}",
            )
        choices = value if isinstance(value, list) else [value]
        allowed_values[column] = set(map(normalise_value, choices))
    for entity, names in PERSON_COLUMNS.items():
        for column in set(names).intersection(columns) - conditions.keys():
            values = {_read_label(row[column]) for row in rows} - {"n/a", ""}
            if len(values) < 2 or entity not in labels:
                continue
            if _read_label(labels[entity]) not in values:
                raise BrainhiveError(
                    f"column {column} of {table} does not list {labels[entity]}, only "
                    f"{', '.join(sorted(values))}",
                    "preparation.where={COLUMN: VALUE}, or rename the values or the "
                    "files",
                )
            allowed_values[column] = {_read_label(labels[entity])}

    selected = []
    dropped = Counter[str]()
    for row in rows:
        for column, allowed in allowed_values.items():
            if allowed.isdisjoint(
                {normalise_value(row[column]), _read_label(row[column])}
            ):
                dropped[f"events whose {column} is {row[column]}"] += 1
                break
        else:
            selected.append(row)
    return selected, dropped


def read_kinds(row: Mapping[str, str]) -> RowKinds:
    """Read the values of a row in `KIND_COLUMNS`."""
    return tuple((name, row[name]) for name in KIND_COLUMNS if name in row)


def _read_label(text: str) -> str:
    """Return the same text for sub-01, 01, 1 and 1.0."""
    # Beginning of a label with its entity.
    label_key = re.compile(r"^(sub|ses|task)-", re.IGNORECASE)
    return normalise_value(label_key.sub("", text)).lower()


def find_missing_column(template: str, columns: Sequence[str]) -> str:
    """Return the first column that a template of event names lacks, or "".

    Args:
        template: Template for `name_events`.
        columns: Names of the columns and entities that exist.
    """
    if not template:
        is_missing = set(columns).isdisjoint(STIMULUS_COLUMNS)
        return " or ".join(STIMULUS_COLUMNS) if is_missing else ""
    names = [match[2] for match in TEMPLATE_FIELD.finditer(template)]
    remaining_text = TEMPLATE_FIELD.sub("", template)
    if not names or "{" in remaining_text or "}" in remaining_text:
        names = [template]  # a column, or a malformed template
    for name in names:
        if name not in columns:
            return name
    return ""


def name_events(
    table: Path,
    columns: Sequence[str],
    rows: Sequence[dict[str, str]],
    template: str,
    recording: Path,
) -> str:
    """Add a column with the name of each event to the rows of an events.tsv.

    Args:
        table: Path of the table.
        columns: Names of its columns.
        rows: Rows of the table, which are changed.
        template: Column, or text with columns and `ENTITIES` in braces, such as
            `stim-{task}{number:05d}`. If empty, `STIMULUS_COLUMNS` are used.
        recording: Path of the recording, whose name has the entities.

    Returns:
        Name of the added column. Rows without a value have n/a.

    Raises:
        BrainhiveError: if the template is malformed, or does not fit the table.
    """
    # columns win over entities of the same name
    labels = read_entities(recording)
    entities = {name: labels[key] for name, key in ENTITIES.items() if key in labels}
    hint = f"it has: {', '.join(columns)}"
    missing_column = find_missing_column(template, list(entities) + list(columns))
    if missing_column:
        raise BrainhiveError(f"{table} has no column {missing_column}", hint)
    if not template:
        return _copy_stimulus_column(columns, rows)

    fields = TEMPLATE_FIELD.findall(template)
    if not fields:
        return template
    for line, row in enumerate(rows, 2):
        try:
            row[template] = _fill_template(template, fields, entities | row)
        except ValueError as error:
            raise BrainhiveError(
                f"{table}, line {line}: no {template}: {error}", hint
            ) from error
    return template


def _decode(content: bytes) -> str:
    """Decode text in UTF-16 with a byte order mark, UTF-8, or else Windows-1252."""
    # First bytes of text in UTF-16.
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return content.decode("cp1252")


def _copy_stimulus_column(
    columns: Sequence[str], rows: Sequence[dict[str, str]]
) -> str:
    """Add a column with the first value in `STIMULUS_COLUMNS`, and return its name."""
    used_columns = [name for name in STIMULUS_COLUMNS if name in columns]
    name = " or ".join(used_columns)
    for row in rows:
        value = "n/a"
        for column in reversed(used_columns):  # the first column wins
            if row[column] not in EMPTY_CELLS:
                value = row[column]
        row[name] = value
    return name


def _fill_template(
    template: str,
    fields: Sequence[tuple[str, str, str, str]],
    values: dict[str, str],
) -> str:
    """Fill in the fields of a template, or return n/a if a value is absent.

    Args:
        template: Text with fields.
        fields: Groups of `TEMPLATE_FIELD` for each field.
        values: Values by column or entity. Integers may be written as 00013 or 13.0.
    """
    name = template
    for field, column, format_spec, integer_type in fields:
        value = values[column]
        if value in EMPTY_CELLS:
            return "n/a"
        # Width in a template field that would exhaust the memory.
        if re.search(r"\d{4,}", format_spec):
            raise ValueError("a width of more than 999 letters")
        number = int(normalise_name(value)) if integer_type else value
        name = name.replace(field, format(number, format_spec))
    return name
