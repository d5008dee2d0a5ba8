"""Tables that accompany recordings: events, channels and electrodes of BIDS."""

import csv
import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np

from brainhive_cli.core.errors import (
    BrainhiveError,
    first_line,
)
from brainhive_cli.core.files import (
    is_file,
    read_regular,
)
from brainhive_cli.core.only_match import choose_only
from brainhive_cli.data.files.ids import plain_name
from brainhive_cli.data.files.named_files import (
    SPLIT,
)

MODALITY = re.compile(r"_(eeg|meg|ieeg)$")

UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""First bytes of text in UTF-16."""

EMPTY_CELLS = ("", "n/a")
"""Entries of BIDS tables that say nothing."""

NOT_AVAILABLE = re.compile(r"^(n/?a|nan)$", re.IGNORECASE)
"""The same as R, pandas and EEGLAB write it."""

STIMULUS_COLUMNS = ("stim_file", "stimulus_id")
"""Columns of BIDS that name the picture of an event, the latter in its draft extension
44; in each row the first with an entry counts.
"""

ENTITIES = {"subject": "sub", "session": "ses", "task": "task", "run": "run"}
"""Entities of a file's name that a template of event names may hold, and their keys."""

FIELD = re.compile(r"(\{([^{}:]+):?([^{}]*?([bdoxX])?)\})")
"""Field of a template: its column or entity, Python's format, and the type of an
integer.
"""

WIDE = re.compile(r"\d{4,}")
"""Width in a field that takes more memory than any name has letters."""


def name_sidecars(path: Path, what: str, ending: str = ".tsv") -> list[Path]:
    """Name the events.tsv or channels.tsv next to a recording: as it is called, and
    last as in BIDS.
    """
    stem = path.name.partition(".")[0]
    unsplit = SPLIT.sub("", stem)
    return [
        path.with_name(f"{name}_{what}{ending}")
        for name in (stem, unsplit, MODALITY.sub("", unsplit))
    ]


def find_sidecar(path: Path, what: str, ending: str = ".tsv") -> Path | None:
    """Find the events.tsv or channels.tsv of a recording; None if there is none.

    It lies next to the recording; or, as BIDS has it, in a folder above up to the root
    of the data set, and has entities of the recording alone: the nearest one counts, of
    one folder that with most entities.
    """
    table = next(filter(is_file, name_sidecars(path, what, ending)), None)
    if table is not None:
        return table
    root = find_bids_root(path)
    if root is None:
        return None
    entities = {*path.name.partition(".")[0].split("_")}
    for folder in [*path.parents][: len(path.relative_to(root).parts)]:
        parts = {
            table: {*table.name.removesuffix(f"{what}{ending}").split("_")} - {""}
            for table in folder.glob(f"*{what}{ending}")
            if is_file(table)
        }
        if fitting := [table for table in parts if parts[table] <= entities]:
            return max(fitting, key=lambda table: len(parts[table]))
    return None


def find_bids_root(path: Path) -> Path | None:
    """Find the root of the BIDS data set that a recording lies in; None where it lies
    in none.
    """
    # not the nearest folder; the outermost data set counts
    folders = reversed(list(path.parents)[1:5])
    named = (each for each in folders if (each / "dataset_description.json").is_file())
    return next(named, None)


def is_read_as_bids(path: Path, has_bids_onsets: bool) -> bool:
    """Whether mne-bids opens a recording, unless onsets in its tables are not
    BIDS's.
    """
    return (
        has_bids_onsets
        and path.name.startswith("sub-")
        and find_bids_root(path) is not None
    )


def read_number(text: object) -> float:
    """Read a number that anyone may have written; NaN where there is none."""
    try:
        return float(str(text))
    except ValueError:
        return np.nan


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table with a header line: .tsv, or .csv with commas or semicolons; NA and
    NaN are read as n/a.

    Spreadsheets write UTF-8, UTF-16, or Windows-1252, and may name the separator in a
    first line `sep=;`.

    Raises:
        BrainhiveError: if it is no such table, a line has other cells than the header,
            or two different columns have one name.
    """
    try:
        content = read_regular(path)
        # UTF-16 with its mark, UTF-8 with or without one, else Windows-1252
        try:
            text = content.decode("utf-16" if content[:2] in UTF_16 else "utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252")
        text = re.sub(r"\Asep=.\r?\n", "", text)

        # of a .csv the most frequent separator of the first line counts
        first = text.partition("\n")[0]
        separator = max("\t;,", key=first.count) if path.suffix != ".tsv" else "\t"
        file = StringIO(text, newline="")
        lines = [*csv.reader(file, delimiter=separator, strict=True)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BrainhiveError(
            f"{path} is no table: {first_line(error)}",
            'save it as CSV in UTF-8, where " within a cell is written twice',
        ) from error

    # cells of each line; blank ones at its end have no name
    names = [name.strip() for name in lines[0]] if lines else []
    rows = []
    for number, line in enumerate(lines[1:], 2):
        cells = [NOT_AVAILABLE.sub("n/a", cell.strip()) for cell in line]
        if not any(cells) and len(cells) < len(names):
            continue  # a blank line
        if any(names[len(cells) :]) or any(cells[len(names) :]):
            raise BrainhiveError(
                f"{path}, line {number} has {len(cells)} cells, its first line "
                f"{len(names)}",
                "write as many, n/a where there is no value",
            )
        rows.append(cells)

    # a name may stand over several columns, if these are equal
    columns: dict[str, dict[str, list[str]]] = {}
    for index, name in enumerate(names):
        if name:
            column = [cells[index] for cells in rows]
            label = f"column {index + 1} ({', '.join(column[:2])} …)"
            columns.setdefault(name, {})[label] = column
    way = "rename one of the columns, or take it out"
    chosen = [
        choose_only(readings, f"{path}: {name}", way) or []
        for name, readings in columns.items()
    ]
    return [*columns], [
        dict(zip(columns, cells, strict=True)) for cells in zip(*chosen, strict=True)
    ]


def find_missing_column(template: str, known: Sequence[str]) -> str:
    """Find the first column that a template of event names needs and a table lacks;
    empty where there is none. A column alone is a template, too, and a broken one is no
    column; the empty one needs any of `STIMULUS_COLUMNS`.
    """
    if not template:
        return " or ".join(STIMULUS_COLUMNS) * {*STIMULUS_COLUMNS}.isdisjoint(known)
    names = [name for _, name, *_ in FIELD.findall(template)]
    if not names or {*"{}"} & {*FIELD.sub("", template)}:
        names = [template]
    return next((name for name in names if name not in known), "")


def name_events(
    table: Path,
    columns: Sequence[str],
    rows: Sequence[dict[str, str]],
    template: str,
    recording: Path,
) -> str:
    """Name the event of each row of an events.tsv, in a column that is added.

    Args:
        table: Its file.
        columns: Its columns.
        rows: Its rows.
        template: A column; text with columns and `ENTITIES` in braces, as
            `stim-{task}{number:05d}`; or empty for the first of `STIMULUS_COLUMNS` that
            has an entry in the row.
        recording: The file that the table describes.

    Returns:
        The column of the names, n/a in rows that lack a value.

    Raises:
        BrainhiveError: if the template is broken, or does not fit the table.
    """
    # entities of the file's name count where no column has their name
    parts = dict(re.findall(r"(?<![^_])([a-z]+)-([^_.]+)", recording.name))
    entities = {name: parts[key] for name, key in ENTITIES.items() if key in parts}
    way = f"it has: {', '.join(columns)}"
    if absent := find_missing_column(template, [*entities, *columns]):
        raise BrainhiveError(f"{table} has no column {absent}", way)
    if not template:
        template = " or ".join(filter(columns.__contains__, STIMULUS_COLUMNS))
        for row in rows:
            entries = [row.get(name, "") for name in STIMULUS_COLUMNS]
            row[template] = next((e for e in entries if e not in EMPTY_CELLS), "n/a")
        return template

    # an integer may have zeros or a point: 00013, 13.0
    fields = FIELD.findall(template)
    for line, row in enumerate(rows if fields else (), 2):
        values = entities | row
        name = template
        try:
            for field, column, spec, integer in fields:
                value = values[column]
                if value in EMPTY_CELLS:
                    name = "n/a"
                    break
                if WIDE.search(spec):
                    raise ValueError("a width of more than 999 letters")
                number = int(plain_name(value)) if integer else value
                name = name.replace(field, format(number, spec))
        except ValueError as error:
            raise BrainhiveError(
                f"{table}, line {line}: no {template}: {error}", way
            ) from error
        row[template] = name
    return template
