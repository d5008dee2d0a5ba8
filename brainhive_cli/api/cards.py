"""Cards that notebooks show for runs, ranks and comparisons."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from brainhive_cli.core.cards import draw_card

if TYPE_CHECKING:
    from brainhive_cli.core.measurements import Measurements
    from brainhive_cli.core.runs import RunFolder

MAX_LISTED_NAMES = 5
"""Largest number of names of models in a card."""
METRIC_COLUMNS = ("metric", "value", "95 % interval", "chance", "tested", "candidates")


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
    from brainhive_cli.reports.sentences import explain_caveats, state_finding

    finding = state_finding(measurements)
    return draw_card(
        title,
        [finding] if finding else [],
        METRIC_COLUMNS,
        _list_headlines(measurements),
        explain_caveats(measurements) + list(notes),
        link,
    )


def state_result(measurements: "Measurements") -> str:
    """Return the finding and the explained caveats in lines, or "" without both."""
    from brainhive_cli.reports.sentences import explain_caveats, state_finding

    finding = state_finding(measurements)
    lines = [finding] if finding else []
    return "\n".join(lines + explain_caveats(measurements))


def list_first(names: Sequence[str]) -> str:
    """Write the first names, and the number of the others."""
    n_hidden = len(names) - MAX_LISTED_NAMES
    end = [f"and {n_hidden} more"] if n_hidden > 0 else []
    return ", ".join([*names[:MAX_LISTED_NAMES], *end])


def _list_headlines(measurements: "Measurements") -> list[list[Any]]:
    """List the metrics that summarise a run, or each of its parts.

    Returns:
        A row for each metric, with the columns `METRIC_COLUMNS`. A part of the run has
        a single row.
    """
    from brainhive_cli.core.measurements import choose_headlines, mark, metric_title
    from brainhive_cli.reports.runs_shown import list_part_metrics

    metrics_by_part = {"": measurements.overall}
    if not measurements.overall:
        metrics_by_part = dict(list_part_metrics(measurements))

    rows = []
    for part_name, metrics in metrics_by_part.items():
        names = choose_headlines(list(metrics))
        for name in names[:1] if part_name else names:
            metric = metrics[name]
            title = metric_title(name)
            rows.append(
                [
                    f"{part_name} · {title}" if part_name else title,
                    mark(f"{metric.value:.3f}", metric.caveats),
                    metric.interval_text(),
                    metric.chance,
                    metric.n,
                    metric.pool,
                ]
            )
    return rows


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
