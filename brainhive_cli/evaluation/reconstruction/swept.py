"""The variants of a reconstruction, each a run of its own, in one table."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Measurements, extend_tables, scope
from brainhive_cli.core.results import Result
from brainhive_cli.core.sweep import collect_variants
from brainhive_cli.core.tables import Table
from brainhive_cli.evaluation.reconstruction.tables import published_scores, titles_of
from brainhive_cli.measurement.comparison import LEVEL, compare_runs, is_difference
from brainhive_cli.measurement.metric_names import with_arrow

MARK = "*"
"""After a value that differs from the first variant's, item by item."""


def measure_variants(results: Mapping[str, Result]) -> Measurements:
    """Put the scopes of all variants together, after their names; nothing is pooled.

    The first is compared with the others; notes say why some cannot be.
    """
    by_label = {label: result.metrics for label, result in results.items()}
    (first, base), *others = by_label.items()
    comparisons, reasons = [], []
    for label, measurements in others:
        try:
            comparisons += compare_runs(base, first, {label: measurements})
        except BrainhiveError as error:
            reasons.append(error.message)
    collected = collect_variants(results)
    variants = {
        label: {**variant, "sources": by_label[label].notes["sources"]}
        for label, variant in collected.notes["variants"].items()
    }
    notes = {
        **collected.notes,
        "mode": base.notes["mode"],
        "medium": base.notes.get("medium", "picture"),
        "variants": variants,
        "comparisons": comparisons,
        "not_compared": reasons,
    }
    return replace(collected, notes=notes)


def sweep_tables(measured: Measurements, published: Any) -> tuple[Table, ...]:
    """Write one table of all variants and sources; values that differ from the first variant's are marked."""
    variants = measured.notes["variants"]
    named = {
        (label, source): measured.scopes[scope(label, source)]
        for label, variant in variants.items()
        for source in variant["sources"]
    }
    metrics = list(dict.fromkeys(name for each in named.values() for name in each))
    differs = {each["with"]: each["metrics"] for each in measured.notes["comparisons"]}
    titles, rows = titles_of(measured.notes.get("medium", "picture")), []
    for (label, source), each in named.items():
        is_first = source == variants[label]["sources"][0]
        values = [
            f"{each[name].value:.3f}{_mark(differs.get(label, {}), name) if is_first else ''}"
            if name in each
            else "–"
            for name in metrics
        ]
        rows.append((label, titles[source], *values, next(iter(each.values())).n))
    first = next(iter(variants))
    protocol = next(iter(next(iter(named.values())).values())).protocol.partition(",")[0]
    title = f"Reconstruction, variant by variant, {protocol}; intervals are in metrics.json"
    if differs:
        tests = {m["test"] for each in differs.values() for m in each.values()}
        notes = dict.fromkeys(note for each in measured.notes["comparisons"] for note in each["notes"])
        marked = (
            f"{MARK} differs from {first}, p < {LEVEL} ({', '.join(sorted(tests))}, adjusted over metrics)"
        )
        title = "; ".join([title, marked, *notes])
    arrows = [with_arrow(name) for name in metrics]
    table = Table(title, ("variant", "from", *arrows, "n"), tuple(rows))
    return extend_tables([table, *published_scores(published)], measured.caveats)


def _mark(metrics: Mapping[str, Any], name: str) -> str:
    compared = metrics.get(name)
    if compared is None:
        return ""
    return MARK if is_difference(compared["p_adjusted"], compared["low"], compared["high"]) else ""
