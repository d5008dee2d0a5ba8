"""Table of runs, with the settings in which they differ."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from brainhive_cli.core.base import BrainhiveError, Table, TableCell, console
from brainhive_cli.core.results import (
    Facts,
    extend_title,
    list_footnotes,
    list_metric_caveats,
    merge_caveats,
)
from brainhive_cli.core.runs import RunFolder, format_age, is_in_use
from brainhive_cli.reports.sentences.sentences import state_finding
from brainhive_cli.reports.tables import (
    LISTED_KEYS,
    ShownRun,
    describe_metric,
    find_differing_keys,
    read_settings,
)

RESULT = "result"


def cut(text: str) -> str:
    """Cut a text that is too long for a list of runs."""
    # Largest number of letters of a setting in a list of runs.
    max_letters = 40
    return text if len(text) <= max_letters else f"{text[: max_letters - 1]}…"


def describe_state(folder: RunFolder) -> str:
    """Return "running" (a command works on the run), "finished" or "interrupted"."""
    if is_in_use(folder):
        return "running"
    return "finished" if folder.is_finished else "interrupted"


def describe_result(folder: RunFolder) -> tuple[TableCell, Facts, list[str]]:
    """Describe the main result of a run for the list of runs.

    Returns:
        Result with its interval and chance level, or "", or the error of a damaged run.
        The value for programs also names the caveats. Then the facts of the run, and
        the caveats of the result.
    """
    if not folder.is_finished:
        return TableCell(""), Facts(), []
    # a damaged run must not keep the other runs from being listed
    try:
        shown_run = ShownRun(folder.name, folder)
        measurements = shown_run.measurements
        metric = shown_run.metrics.get(shown_run.main_headline)
        result = describe_metric(metric) if metric else state_finding(measurements)
    except BrainhiveError as error:
        return TableCell(error.message), Facts(), []
    if metric and measurements.facts.scope:
        result += f", for {measurements.facts.scope}"
    caveats = list_metric_caveats(shown_run.metrics.values())
    caveats = merge_caveats(measurements.caveats, caveats) if result else []
    cell = TableCell(result, value=extend_title(result, caveats))
    return cell, measurements.facts, caveats


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


def lay_out_runs(runs: Mapping[RunFolder, float], title: str) -> list[Table]:
    """Lay out a table of the runs of each command, with all columns and whole values.

    Args:
        runs: Seconds since 1970 at the last change of each run, the newest first.
        title: Title of the first table, before the command.
    """
    runs_of_command: dict[str, list[RunFolder]] = {}
    for folder in runs:
        runs_of_command.setdefault(folder.command, []).append(folder)
    tables: list[Table] = []
    for command, folders in runs_of_command.items():
        table_title = command if tables else f"{title}: {command}"
        changed_s = [runs[folder] for folder in folders]
        tables.append(_lay_out_command(folders, changed_s, table_title))
    return tables


def _lay_out_command(
    folders: Sequence[RunFolder], changed_s: Sequence[float], title: str
) -> Table:
    """Lay out the runs of a command, which were last changed at some seconds."""
    results = []
    settings_of_runs = []
    all_caveats: list[str] = []
    for folder in folders:
        result, facts, caveats = describe_result(folder)
        results.append(result)
        settings_of_runs.append(read_settings(folder, facts))
        all_caveats += caveats
    keys = [*LISTED_KEYS, *find_differing_keys(settings_of_runs)]

    rows = []
    for folder, result, settings, seconds in zip(
        folders, results, settings_of_runs, changed_s, strict=True
    ):
        name = TableCell(folder.name, value=name_run(folder))
        row: list[Any] = [name, folder.label, describe_state(folder), result]
        for key in keys:
            text = settings.get(key, "")
            row.append(TableCell(cut(text), value=text))

        # people read "2 days ago" and "3 MB", programs read ISO 8601 and bytes
        time = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
        n_bytes = count_bytes(folder.path)
        row.append(TableCell(format_age(seconds), value=time))
        row.append(TableCell(console.size(n_bytes), value=n_bytes))
        rows.append(row)
    headings = [key.removesuffix(".kind") for key in keys]
    columns = ["run", "label", "state", RESULT, *headings, "last changed", "size"]
    note = list_footnotes(all_caveats)
    return Table(title, columns, rows, note=note, folded=RESULT)


def shorten_table(table: Table) -> Table:
    """Leave out columns of a list of runs that tell people nothing.

    These are columns without a value, and settings that are equal in all runs, which
    become a note.
    """
    settings = table.columns[table.columns.index(RESULT) + 1 : -2]
    columns = []
    equal_texts = []
    for heading, *cells in zip(table.columns, *table.rows, strict=True):
        texts = set(map(str, cells))
        if heading != RESULT and texts == {""}:
            continue
        if len(cells) > 1 and len(texts) == 1 and heading in settings:
            equal_texts.append(f"{heading} {texts.pop()}")
            continue
        columns.append([heading, *cells])
    headings, *rows = zip(*columns, strict=True)
    notes = [f"All runs: {', '.join(equal_texts)}"] if equal_texts else []
    note = ". ".join(filter(None, [*notes, table.note]))
    return replace(table, columns=headings, rows=rows, note=note)
