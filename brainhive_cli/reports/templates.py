"""Templates of sentences, pages and tables, with the filters that write numbers in
them.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

from brainhive_cli.core import documents
from brainhive_cli.core.measurements import Metric
from brainhive_cli.core.tables import Cell, brief, number, p_text
from brainhive_cli.measurement.metric_names import is_share, shown

HERE = Path(__file__).parent
LATEX = str.maketrans(documents.read(HERE / "latex.json", dict[str, str]))
"""LaTeX for characters that it reserves or lacks."""
SPACES = re.compile(r" +([.,;:)†])(?!\d)|(?<=\() +")
"""Blanks before a stop or comma, and behind a bracket, which blocks of a template
leave.
"""


@cache
def templates() -> Any:
    """Open the templates of sentences and pages, with the filters that write
    numbers.
    """
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    # only HTML is escaped; blocks leave neither line breaks nor indentation
    environment = Environment(
        autoescape=select_autoescape(["html"]),
        loader=FileSystemLoader(HERE),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # filters by the names that templates use
    environment.filters |= {
        "amount": write_amount,
        "brief": brief,
        "cell": Cell.of,
        "ends": write_ends,
        "number": number,
        "p": p_text,
        "signed": write_difference,
        "tex": lambda text: str(text).translate(LATEX),
        "shown": shown,
    }
    return environment


@cache
def sentences() -> Any:
    """Open the templates of sentences, in which the end of a line is a blank."""
    return templates().overlay(trim_blocks=False)  # has its own cache of templates


def render(template: str, **values: Any) -> str:
    """Fill a template of sentences, on one line; what blocks leave before a stop or
    comma is cut.
    """
    # one line of single blanks, less those before stops
    text = " ".join(sentences().get_template(template).render(**values).split())
    return SPACES.sub(lambda match: match[1] or "", text)


def write_amount(value: float, name: str) -> str:
    """Write a value of a metric: shares in percent, others as numbers."""
    return f"{100 * value:.3g} %" if is_share(name) else number(value)


def write_ends(metric: Metric) -> str:
    """Write the ends of the interval of a metric, in percent where it is a share."""
    assert metric.low is not None and metric.high is not None
    if is_share(metric.name):
        # 100, not 1e+02
        low, high = (float(f"{100 * end:.2g}") for end in (metric.low, metric.high))
        return f"{low:g} to {high:g} %"
    return metric.interval_text()


def write_difference(value: float, name: str) -> str:
    """Write a difference of a metric with its sign, in points of percent where it is a
    share.
    """
    return f"{100 * value:+.1f} points" if is_share(name) else f"{value:+.3f}"
