"""Table of runs, with the settings in which they differ."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from brainhive_cli.core import console
from brainhive_cli.core.driver import is_in_use
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import Facts
from brainhive_cli.core.measurements import (
    extend_title,
    list_metric_caveats,
    merge_caveats,
)
from brainhive_cli.core.runs import RunFolder, format_age
from brainhive_cli.core.tables import Table, TableCell, Value
from brainhive_cli.reports.run_settings import (
    BACKBONE,
    ENCODERS,
    MODEL,
    SEEDS,
    Settings,
    choose_headings,
    cut,
    find_differing_keys,
    name_models,
    read_settings,
    write_setting,
)
from brainhive_cli.reports.runs_shown import ShownRun
from brainhive_cli.reports.sentences import state_finding
from brainhive_cli.reports.tables import describe_metric

RESULT = "result"
LABEL = "label"
COLUMN_OF_KEY = {ENCODERS: "encoder", BACKBONE: "backbone", SEEDS: "seeds"}
"""Columns of the settings that every list of runs has."""


@dataclass(frozen=True)
class ListedRun:
    """Run in a list of runs.

    Attributes:
        folder: Folder of the run.
        label: Label that the user has given the run, or "".
        state: "running", "finished" or "interrupted".
        result: Main result with its interval and chance level, or "".
        settings: Settings of the run.
        changed_s: Seconds since 1970 at the last change.
        n_bytes: Size of all files in bytes.
    """

    folder: RunFolder
    label: str
    state: str
    result: str | TableCell
    settings: Settings
    changed_s: float
    n_bytes: int

    @classmethod
    def read(cls, folder: RunFolder, changed_s: float) -> Self:
        """Read a run. A damaged run has an error message as its result.

        Args:
            folder: Folder of the run, which may be unfinished.
            changed_s: Seconds since 1970 at the last change, which is slow to find.
        """
        result: str | TableCell = ""
        facts = Facts()
        if folder.is_finished:
            # a damaged run must not keep the other runs from being listed
            try:
                shown_run = ShownRun(folder.path.name, folder)
                result = describe_result(shown_run)
                facts = shown_run.measurements.facts
            except BrainhiveError as error:
                result = error.message
        return cls(
            folder=folder,
            label=folder.label,
            state=describe_state(folder),
            result=result,
            settings=read_settings(folder, facts),
            changed_s=changed_s,
            n_bytes=count_bytes(folder.path),
        )

    @property
    def command(self) -> str:
        """Command that made the run."""
        return self.folder.path.parent.name

    def write_setting(self, key: str) -> str:
        """Write a setting as text, or "" if the run has no such setting."""
        value = self.settings.get(key)
        if value is None or value in ([], {}):
            return ""
        return name_models(value) if key == MODEL else write_setting(key, value)


def describe_state(folder: RunFolder) -> str:
    """Return "running" (a command works on the run), "finished" or "interrupted"."""
    if is_in_use(folder):
        return "running"
    return "finished" if folder.is_finished else "interrupted"


def describe_result(shown_run: ShownRun) -> str | TableCell:
    """Describe the main result of a run for the list of runs.

    Returns:
        "" without a result. Otherwise a table cell, whose value for programs also names
        the caveats (limits of the result, such as "simulated").
    """
    measurements = shown_run.measurements
    metric_name = shown_run.main_headline
    if metric_name in shown_run.metrics:
        result = describe_metric(shown_run.metrics[metric_name])
        if measurements.facts.scope:
            result += f", for {measurements.facts.scope}"
    else:
        result = state_finding(measurements)
    if not result:
        return ""

    caveats = merge_caveats(
        measurements.caveats, list_metric_caveats(shown_run.metrics.values())
    )
    return TableCell(result, value=extend_title(result, caveats))


def count_bytes(folder: Path) -> int:
    """Return the size of all files in a folder and its subfolders in bytes."""
    n_bytes = 0
    # a worker may rename a file at this moment
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                n_bytes += count_bytes(Path(entry.path))
            else:
                n_bytes += entry.stat(follow_symlinks=False).st_size
    return n_bytes


def name_run(folder: RunFolder) -> str:
    """Return the command and the name of a run, such as eval-retrieval/NAME."""
    return f"{folder.command}/{folder.name}"


def lay_out_runs(runs: Sequence[ListedRun], title: str, note: str = "") -> Table:
    """Lay out a table of runs for programs, with all columns and whole values."""
    keys = find_differing_keys([(run.command, run.settings) for run in runs])
    first_columns = ["run", LABEL, "state", RESULT] + list(COLUMN_OF_KEY.values())
    last_columns = ["last changed", "size"]
    headings = choose_headings(keys, first_columns + last_columns)
    rows = []
    for run in runs:
        row: list[Any] = [name_run(run.folder), run.label, run.state, run.result]
        for key in list(COLUMN_OF_KEY) + keys:
            text = run.write_setting(key)
            row.append(TableCell(cut(text), value=text))

        # people read "2 days ago" and "3 MB", programs read ISO 8601 and bytes
        time = datetime.fromtimestamp(run.changed_s, UTC)
        iso_time = time.isoformat(timespec="seconds")
        row.append(TableCell(format_age(run.changed_s), value=iso_time))
        row.append(TableCell(console.size(run.n_bytes), value=run.n_bytes))
        rows.append(row)
    return Table(
        title,
        first_columns + headings + last_columns,
        rows,
        note=note,
        folded=RESULT,
    )


def lay_out_for_terminal(table: Table) -> list[Table]:
    """Lay out a table of runs for people, in the present width of the terminal.

    Runs of the same command form a table, and the command with the newest run is first.

    Args:
        table: Table of `lay_out_runs`, with its title and its note.
    """
    rows_of_command: dict[str, list[Sequence[Value]]] = {}
    for row in table.rows:
        command, _, name = str(row[0]).partition("/")
        rows_of_command.setdefault(command, []).append([name, *row[1:]])

    # the first table has the title of all, and the last has the note
    title = table.title
    tables: list[Table] = []
    for command, rows in rows_of_command.items():
        is_last = len(tables) == len(rows_of_command) - 1
        tables.append(
            _lay_out_command(
                replace(
                    table,
                    title=f"{title}: {command}" if title else command,
                    rows=rows,
                    note=table.note if is_last else "",
                )
            )
        )
        title = ""
    return tables or [table]


def _lay_out_command(table: Table) -> Table:
    """Lay out the runs of a command for people.

    Columns without a value are left out. Settings that are equal in all runs become a
    note. In a narrow terminal, each run is a paragraph, and settings have
    names.

    Args:
        table: Runs of a single command, in the columns of `lay_out_runs`.
    """
    settings = table.columns[table.columns.index(RESULT) + 1 : -2]
    kept_columns = []
    equal_texts = []
    for number, heading in enumerate(table.columns):
        texts = [str(row[number]) for row in table.rows]
        if heading != RESULT and not any(texts):
            continue
        if len(texts) > 1 and len(set(texts)) == 1 and heading in settings:
            equal_texts.append(f"{heading} {texts[0]}")
            continue
        kept_columns.append(number)

    notes = [table.note] if table.note else []
    if equal_texts:
        notes.insert(0, f"All runs: {', '.join(equal_texts)}")
    wide_table = Table(
        table.title,
        [_shorten_heading(table.columns[number]) for number in kept_columns],
        [[row[number] for number in kept_columns] for row in table.rows],
        note=". ".join(notes),
        folded=RESULT,
    )
    if console.fits(wide_table):
        return wide_table

    # cells of a narrow list say what they hold
    rows = []
    for row in table.rows:
        cells = []
        for number in kept_columns:
            text = str(row[number])
            if table.columns[number] == LABEL and text:
                text = f"“{text}”"
            elif table.columns[number] in settings and text:
                text = f"{table.columns[number]} {text}"
            cells.append(text)
        rows.append(cells)
    return Table(
        table.title, wide_table.columns, rows, note=wide_table.note, is_list=True
    )


def _shorten_heading(heading: str) -> str:
    """Return the heading for people: "last changed" is the age of a run."""
    return "age" if heading == "last changed" else heading
