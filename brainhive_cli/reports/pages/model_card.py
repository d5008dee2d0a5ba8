"""Model card of a shared model, the first page of its repository."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainhive_cli.core.base import escape_markdown, format_number, make_visible
from brainhive_cli.core.results import (
    Metric,
    choose_headlines,
    extend_title,
    format_setting,
    metric_title,
)

CardScores = tuple[str, Mapping[str, Sequence[Metric]], str]
"""Scores of a model in one run: title, metrics by label, and data set of the test, or
"" for held-out training pictures. The first label stands for all subjects and seeds.
"""


def render_card(page: Mapping[str, Any], hub_datasets: Sequence[str]) -> str:
    """Write the model card: metadata for the hub, then Markdown.

    Args:
        page: Variables of the template `model_card.md`. `scores` lists tests first, and
            `environment` has versions by name.
        hub_datasets: Training data sets on the hub, such as "owner/name".
    """
    from huggingface_hub import ModelCardData
    from jinja2 import Environment

    licence = page["licence"]
    # Licences of weights that the hub knows. The metadata name any other licence
    # `other`.
    hub_licences = {
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
    is_known = licence in hub_licences
    results = _list_results(page["scores"])
    tags = ["brainhive"]
    if page["modality"]:
        tags.append(page["modality"].lower())
    tags += ["brain-decoding", "brain-encoder" if page["layout"] else "prior"]
    metadata = ModelCardData(
        license=licence if is_known else "other",
        license_name=None if is_known else licence,
        license_link=None if is_known else "README.md",
        library_name="brainhive",
        tags=tags,
        datasets=list(hub_datasets) or None,
        metrics=["accuracy"] if results else None,
        model_name=page["name"],
        eval_results=results or None,
        brainhive_version=page["environment"].get("brainhive", ""),
    )

    environment = Environment(
        keep_trailing_newline=True, autoescape=False, finalize=make_visible
    )
    environment.filters |= {
        "cell": _write_cell,
        "number": format_number,
        "metric_title": metric_title,
    }
    card_template = Path(__file__).with_name("model_card.md")
    template = environment.from_string(card_template.read_text(encoding="utf-8"))
    return f"---\n{metadata.to_yaml()}\n---\n\n{template.render(card=page)}"


def _list_results(scores: Sequence[CardScores]) -> list[Any]:
    """List the pooled test results of a model as `EvalResult` of huggingface_hub."""
    from huggingface_hub import EvalResult

    results = []
    for _, metrics_by_label, dataset in scores:
        pooled_metrics = next(iter(metrics_by_label.values()), ())
        if not dataset:
            continue
        for metric in pooled_metrics:
            # Metrics of retrieval that are sent to the result index of the hub. The
            # tables of the card have all metrics.
            if metric.name not in {"top1", "top3", "top5", "mean_rank", "mrr", "map"}:
                continue
            title = f"{metric_title(metric.name)} among {metric.pool}"
            result = EvalResult(
                task_type="image-retrieval",
                task_name="retrieval of the seen picture",
                dataset_type=dataset,
                dataset_name=dataset,
                dataset_split=metric.split,
                metric_type=metric.name,
                metric_name=extend_title(title, metric.caveats),
                metric_value=metric.value,
                metric_args={
                    "n": metric.n,
                    "pool": metric.pool,
                    "chance": metric.chance,
                    "protocol": metric.protocol,
                    "interval": [metric.low, metric.high],
                    "seeds": list(metric.seeds),
                    "selected_on_test": metric.selected,
                },
            )
            results.append(result)
    return results


def _write_cell(value: Any, key: str = "") -> str:
    """Write a value of a set-up as a table cell: a single line without markup.

    Args:
        value: The value.
        key: Name of the setting, which decides how the value is written.
    """
    return escape_markdown(format_setting(key, value).replace("\n", " "))


def choose_metrics(metrics: Mapping[str, Metric]) -> list[Metric]:
    """Choose the metrics of a row of the card: the headlines, or else all metrics."""
    names = choose_headlines(list(metrics)) or list(metrics)
    return [metrics[name] for name in names]
