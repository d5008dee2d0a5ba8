"""Templates of pages, tables and sentences, and the filters that write numbers."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from brainhive_cli.core.base import (
    CELL_ESCAPES,
    TableCell,
    escape_markdown,
    format_number,
    format_p,
    format_tick,
    make_visible,
)
from brainhive_cli.core.files import documents
from brainhive_cli.core.results import (
    AGREEMENT,
    BASELINE_CLASSIFIERS,
    CAVEATS,
    Metric,
    is_share,
    mark,
    metric_title,
)

HERE = Path(__file__).parent
LATEX = str.maketrans(documents.read(HERE / "latex.json", dict[str, str]))
"""LaTeX code of characters that are reserved or missing in LaTeX."""
SIGNS = "".join(CAVEATS.values())


@cache
def templates() -> Any:
    """Return the Jinja environment, which escapes values only in HTML templates."""
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    environment = Environment(
        autoescape=select_autoescape(["html"]),
        finalize=make_visible,
        # Folders with templates.
        loader=FileSystemLoader(
            [HERE / room for room in ("sentences", "tables", "figures", "pages")]
        ),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"agreement": AGREEMENT, "classifiers": BASELINE_CLASSIFIERS}
    environment.filters |= {
        "amount": write_amount,
        "signs": lambda caveats: mark("", caveats),
        "brief": format_tick,
        "cell": TableCell.from_value,
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
        "interval_ends": write_interval_ends,
        "number": format_number,
        "p": format_p,
        "signed_difference": write_difference,
        "markdown": escape_markdown,
        "tex": lambda text: str(text).translate(CELL_ESCAPES).translate(LATEX),
        "metric_title": metric_title,
    }
    return environment


@cache
def sentence_templates() -> Any:
    """Return a Jinja environment that keeps the line breaks after blocks."""
    # an overlay has its own cache of templates
    return templates().overlay(trim_blocks=False)


def render(template: str, **values: Any) -> str:
    """Fill a template, and return the text on one line.

    Args:
        template: File name of the template.
        **values: Variables of the template.
    """
    text = sentence_templates().get_template(template).render(**values)
    one_line = " ".join(text.split())
    # Spaces that the blocks of a template leave before punctuation marks and footnote
    # signs, and after an opening bracket.
    return re.sub(
        rf" +([.,;:){SIGNS}])(?!\d)|(?<=\() +", lambda match: match[1] or "", one_line
    )


def write_amount(value: float, name: str) -> str:
    """Format a value, in percent if the metric called `name` is a share."""
    return f"{100 * value:.3g} %" if is_share(name) else format_number(value)


def write_interval_ends(metric: Metric) -> str:
    """Format the interval of a metric, in percent if the metric is a share."""
    assert metric.low is not None and metric.high is not None
    if not is_share(metric.name):
        return metric.interval_text()

    # two digits, but 100 and not 1e+02
    low = float(f"{100 * metric.low:.2g}")
    high = float(f"{100 * metric.high:.2g}")
    return f"{low:g} to {high:g} %"


def write_difference(value: float, name: str) -> str:
    """Format a signed difference, in percentage points if the metric is a share."""
    return f"{100 * value:+.1f} points" if is_share(name) else f"{value:+.3f}"
