"""Card of a shared model: the page of its repository, for people and for the hub's
search.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainhive_cli.core.facts import format_setting
from brainhive_cli.core.measurements import (
    Metric,
    extend_title,
    headlines,
    shown,
)
from brainhive_cli.core.tables import escape_markdown, format_number, make_visible

TEMPLATE = Path(__file__).with_name("model_card.md")
IN_THE_INDEX = {"top1", "top3", "top5", "mean_rank", "mrr", "map"}
"""Metrics of retrieval that the hub's index of results gets; all are in the card's
tables.
"""
LICENCES = {
    "apache-2.0",
    "mit",
    "bsd-3-clause",
    "openrail",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-3.0",
    "cc-by-sa-4.0",
    "cc-by-sa-3.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-nc-nd-4.0",
}
"""Licences of the hub's list that weights have; any other is written as `other` with
its name.
"""


CardScores = tuple[str, Mapping[str, Sequence[Metric]], str]
"""What one run measured of the model, and on what; rows of metrics by label, those of
everything together first, then of subjects or cells; data set of a test, empty for
pictures kept from training.
"""


def render_card(page: Mapping[str, Any], hub_datasets: Sequence[str]) -> str:
    """Write a card: metadata as the hub reads them, then Markdown.

    Args:
        page: What `model_card.md` shows, by the names that stand there. `scores` lists
            tests first; `environment` has versions by name; `licence` is that of the
            weights.
        hub_datasets: Data sets on the hub that the model learned from, as owner/name.
    """
    from huggingface_hub import EvalResult, ModelCardData
    from jinja2 import Environment

    # results of tests, of everything together, for the hub's index
    results = [
        EvalResult(
            task_type="image-retrieval",
            task_name="retrieval of the seen picture",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=metric.split,
            metric_type=metric.name,
            metric_name=extend_title(
                f"{shown(metric.name)} among {metric.pool}", metric.caveats
            ),
            metric_value=metric.value,
            metric_args={
                **{
                    name: getattr(metric, name)
                    for name in ("n", "pool", "chance", "protocol")
                },
                "interval": [metric.low, metric.high],
                "seeds": [*metric.seeds],
                "selected_on_test": metric.selected,
            },
        )
        for _, rows, dataset in page["scores"]
        if dataset
        for metric in next(iter(rows.values()), ())
        if metric.name in IN_THE_INDEX
    ]

    # metadata, which the hub checks before a commit
    licence = page["licence"]
    is_listed = licence in LICENCES
    kind = "brain-encoder" if page["layout"] else "prior"
    metadata = ModelCardData(
        license=licence if is_listed else "other",
        license_name=None if is_listed else licence,
        license_link=None if is_listed else "README.md",
        library_name="brainhive",
        tags=[
            "brainhive",
            *filter(None, [page["modality"].lower()]),
            "brain-decoding",
            kind,
        ],
        datasets=[*hub_datasets] or None,
        metrics=["accuracy"] if results else None,
        model_name=page["name"],
        eval_results=results or None,
        brainhive_version=page["environment"].get("brainhive", ""),
    )

    # the page
    environment = Environment(
        keep_trailing_newline=True, autoescape=False, finalize=make_visible
    )
    environment.filters |= {
        "cell": _write_cell,
        "number": format_number,
        "shown": shown,
    }
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        card=page
    )
    return f"---\n{metadata.to_yaml()}\n---\n\n{text}"


def _write_cell(value: Any, key: str = "") -> str:
    """Write a cell of a table: one line without markup."""
    return escape_markdown(format_setting(key, value).replace("\n", " "))


def choose_metrics(metrics: Mapping[str, Metric]) -> list[Metric]:
    """Choose the metrics of a row of the card: the headlines, or all where there are
    none.
    """
    names = headlines(list(metrics)) or list(metrics)
    return [metrics[name] for name in names]
