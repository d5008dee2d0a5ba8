"""Cards that notebooks show for runs, ranks and comparisons."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from brainhive_cli.core.results import draw_card

if TYPE_CHECKING:
    from brainhive_cli.core.results import Measurements
    from brainhive_cli.core.runs import RunFolder


def draw_result_card(
    title: str, measurements: "Measurements", notes: Sequence[str] = (), link: str = ""
) -> str:
    """Write the card of measurements: their finding, main metrics and caveats.

    Args:
        title: Command and name of the run.
        measurements: Metrics of the run, and facts about it.
        notes: Sentences below the caveats.
        link: Path of the page, or "".
    """
    from brainhive_cli.core.base import format_cell
    from brainhive_cli.core.results import choose_headlines
    from brainhive_cli.reports.sentences.sentences import explain_caveats, state_finding
    from brainhive_cli.reports.tables import (
        list_metric_names,
        list_part_rows,
        make_rows,
        tabulate_rows,
    )

    finding = state_finding(measurements)
    rows = make_rows({"all": measurements.overall}) or list_part_rows(measurements)
    names = choose_headlines(list_metric_names(rows))
    table = tabulate_rows("", rows, "model", names)
    cells = [list(map(format_cell, row)) for row in table.rows]
    lines = [*explain_caveats(measurements), table.note, *notes]
    sentences = [finding] if finding else []
    return draw_card(
        title, sentences, table.columns, cells, list(filter(None, lines)), link
    )


def state_result(measurements: "Measurements") -> str:
    """Return the finding and the explained caveats in lines, or "" without both."""
    from brainhive_cli.reports.sentences.sentences import explain_caveats, state_finding

    finding = state_finding(measurements)
    lines = [finding] if finding else []
    return "\n".join(lines + explain_caveats(measurements))


def list_first(names: Sequence[str]) -> str:
    """Write the first names, and the number of the others."""
    # Largest number of names of models in a card.
    max_listed_names = 5
    n_hidden = len(names) - max_listed_names
    end = [f"and {n_hidden} more"] if n_hidden > 0 else []
    return ", ".join([*names[:max_listed_names], *end])


def find_page(folder: "RunFolder") -> str:
    """Return the path of a run's page from the working directory, or ""."""
    from brainhive_cli.commands import report

    for path in (
        folder.path / "index.html",
        report.build_report_path(folder.file_name),
    ):
        if path.is_file():
            return os.path.relpath(path)
    return ""
