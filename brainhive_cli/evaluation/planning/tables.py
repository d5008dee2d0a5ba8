"""Tables and figures of planned designs."""

from collections.abc import Iterable, Sequence
from typing import Any

from brainhive_cli.core.base import Table, TableCell
from brainhive_cli.core.runs import Heatmap
from brainhive_cli.evaluation.planning.designs import MIN_POWER
from brainhive_cli.evaluation.planning.facts import (
    DesignFacts,
    PlannedDesign,
    PredictedRange,
)
from brainhive_cli.reports.pages.page import FINDING
from brainhive_cli.reports.tables import ABSENT
from brainhive_cli.reports.templates import render, write_amount


def tabulate_designs(facts: DesignFacts) -> list[Table]:
    """Tabulate predictions, their background, and designs that do not fit, if any.

    Args:
        facts: Designs and their predictions.
    """
    rows = []
    unfit_designs = []
    for design in facts.designs:
        if design.power is None:
            unfit_designs.append(design)
            continue
        row = _describe_amount(design)
        row["enough?"] = design.answer
        row["power"] = _make_cell(design.power)
        row["power, half signal"] = _make_cell(design.half_power)
        row["top-1"] = _make_cell(design.top1)
        row["chance"] = _write_share(design.chance)
        row["smallest effect"] = _write_share(design.smallest)
        rows.append(row)

    tables = [
        _make_table("Designs", rows, render("design.txt", facts=facts)),
        tabulate_background(facts),
    ]
    if unfit_designs:
        title = "Designs that do not fit into their sessions"
        tables.append(tabulate_amounts(title, unfit_designs))
    return tables


def tabulate_amounts(title: str, designs: Iterable[PlannedDesign]) -> Table:
    """Tabulate designs with the sessions that they need.

    Args:
        title: Title of the table.
        designs: The designs.
    """
    rows = []
    for design in designs:
        row = _describe_amount(design)
        row["minutes of trials"] = round(design.minutes)
        row["needed sessions"] = design.least_sessions
        rows.append(row)
    return _make_table(title, rows)


def _describe_amount(design: PlannedDesign) -> dict[str, Any]:
    """Return the cells of a design that describe the amount of recording, by column."""
    row: dict[str, Any] = {
        "design": f"design {design.number}",
        "people": design.people,
        "sessions": design.sessions,
        "hours": f"{design.hours:,.1f}",
    }
    if design.price is not None:
        row["price"] = f"{design.price:,.0f}"
    row["training"] = f"{design.train_pictures:,} × {design.train_repetitions}"
    row["test"] = f"{design.test_pictures:,} × {design.test_repetitions}"
    return row


def _make_table(title: str, rows: Sequence[dict[str, Any]], note: str = "") -> Table:
    """Make a table of rows with equal columns."""
    cells = [list(row.values()) for row in rows]
    return Table(title, list(rows[0]), cells, note=note, keeps_columns=True)


def _write_share(value: float | None) -> str:
    """Write a share in percent, or a dash for None."""
    return ABSENT if value is None else write_amount(value, "top1")


def _make_cell(predicted: PredictedRange | None) -> TableCell:
    """Write a predicted share with its range."""
    assert predicted is not None
    return TableCell(
        _write_share(predicted.value), _write_range(predicted), predicted.value
    )


def _write_range(predicted: PredictedRange) -> str:
    """Write the range of a share, such as `17 to 71 %`."""
    low = _write_share(predicted.low).removesuffix(" %")
    return f"{low} to {_write_share(predicted.high)}"


def draw_powers(facts: DesignFacts) -> list[Heatmap]:
    """Draw the power by people and minutes, and by pictures and repetitions.

    Args:
        facts: Designs and their predictions. A figure is left out if the designs do
            not differ in both of its axes.
    """
    figures = []
    # Field and label of the rows, and field and label of the columns, of each figure.
    panels = (
        ("people", "people", "minutes", "minutes of trials for each person"),
        ("train_repetitions", "repetitions", "train_pictures", "training pictures"),
        ("test_repetitions", "repetitions", "test_pictures", "test pictures"),
    )
    for row_field, row_axis, column_field, column_axis in panels:
        values_of: dict[tuple[float, float], float] = {}
        texts_of = {}
        for design in facts.designs:
            power = design.power
            key = getattr(design, row_field), round(getattr(design, column_field))
            if power and power.value > values_of.get(key, -1):
                values_of[key] = power.value
                texts_of[key] = f"{_write_share(power.value)}\n{_write_range(power)}"
        rows = sorted({row for row, _ in values_of}, reverse=True)
        columns = sorted({column for _, column in values_of})
        if min(len(rows), len(columns)) < 2:
            continue

        values = []
        texts = []
        for row in rows:
            keys = [(row, column) for column in columns]
            values.append([values_of.get(key) for key in keys])
            texts.append([texts_of.get(key, "") for key in keys])
        figures.append(
            Heatmap(
                f"Power by {row_axis} and {column_axis}",
                section=FINDING,
                note=f"Line: power of {_write_share(MIN_POWER)}. Second lines: 95 % "
                "ranges. Of several designs, the most powerful is shown.",
                values=values,
                rows=[f"{row:g}" for row in rows],
                columns=[f"{column:g}" for column in columns],
                row_axis=row_axis,
                column_axis=column_axis,
                value="power",
                low=0,
                high=1,
                texts=texts,
                level=MIN_POWER,
            )
        )
    return figures


def tabulate_background(facts: DesignFacts) -> Table:
    """List what the predictions assume, and what the evaluation will be able to say.

    Args:
        facts: Designs and their predictions.
    """
    evaluation = "compare" if facts.question == "difference" else "eval-retrieval"
    n_studies = max(design.n_studies for design in facts.designs)
    rows = [
        ("assumptions", f"{facts.source}. {facts.source_note}".strip(". ")),
        ("simulation", f"{n_studies:,} studies of each design, seed {facts.seed}"),
        (f"{evaluation} may say", facts.sentence),
        ("this will hold for", facts.claims),
    ]
    numbers = [str(item.number) for item in facts.designs if item.is_extrapolated]
    if numbers:
        text = "more than twice the recorded trials, counted in logarithms"
        rows.append(("extrapolation", f"designs {', '.join(numbers)}: {text}"))
    title = f"Behind design {facts.described}"
    return Table(title, ("item", "value"), rows, is_list=True)
