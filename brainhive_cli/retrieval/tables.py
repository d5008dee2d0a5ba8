"""The tables of an evaluated run."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from brainhive_cli.core.caveats import in_tables, said_in, together
from brainhive_cli.core.console import Table
from brainhive_cli.metrics.guessing import LEAST
from brainhive_cli.metrics.run_comparison import TESTS
from brainhive_cli.metrics.statistics import interval_text, these_subjects_text
from brainhive_cli.reports.published_table import published_table
from brainhive_cli.retrieval.ceiling import ceiling_table

NAMES = {
    "top1": "top-1",
    "top3": "top-3",
    "top5": "top-5",
    "mean_rank": "mean rank",
    "median_rank": "median rank",
    "mrr": "MRR",
    "map": "mAP",
}
BESIDE = {"these_subjects": "these subjects", "seed_sd": "sd over seeds"}
"""What may stand beside an interval, and its column."""
Metrics = Mapping[str, Any]


def sweep_tables(metrics: Metrics) -> tuple[Table, ...]:
    """Draw the tables of each variant by itself, and their differences; nothing is pooled over variants."""
    drawn: list[Table] = []
    for variant, found in metrics["variants"].items():
        own = tables({**found, "against": []}, 0)
        drawn += [replace(table, title=f"{variant}: {table.title}") for table in own]
    between = _comparisons({"against": metrics["comparisons"]})
    return (*drawn, *in_tables([between] if between.rows else [], metrics["caveats"]))


def tables(metrics: Metrics, concept_rows: int) -> tuple[Table, ...]:
    """Draw all tables that a run has something for."""
    drawn = [_cells(metrics), _control(metrics), _directions(metrics), _seeds(metrics), _subsets(metrics)]
    drawn.append(ceiling_table(metrics))
    drawn += [_curve(metrics, "repetitions", "repetitions"), _curve(metrics, "sliding", "window centre, ms")]
    if concept_rows:
        drawn += [_named(metrics, kind, concept_rows) for kind in ("concepts", "categories")]
        drawn.append(_confusions(metrics, concept_rows))
    beside = together(*(each.get("caveats", []) for each in metrics["against"]))
    drawn += in_tables([_comparisons(metrics)], beside)
    drawn.append(_elsewhere(metrics))
    return in_tables([table for table in drawn if table.rows], said_in(metrics["protocol"]))


def _cells(metrics: Metrics) -> Table:
    rows = []
    for name, subjects in metrics["cells"].items():
        for subject, cell in subjects.items():
            shown = name if name.rpartition("/")[2].startswith(subject) else f"{name} on {subject}"
            rows.append((shown, *_row(cell["metrics"])))
    rows.append(("all", *_row(metrics["overall"])))
    columns = ("cell", "top-1", "95 % CI", "top-5", "rank", "n", "pool", "chance")
    split = metrics["overall"]["top1"]["split"]
    title = f"Retrieval of {split} pictures: {metrics['protocol']}: {_verdict(metrics)}"
    return Table(title, columns, tuple(rows))


def _control(metrics: Metrics) -> Table:
    """Show what is measured beside what is left of it when signals and pictures are dealt anew."""
    found = metrics.get("control")
    if not found:
        return Table("", (), ())
    rows = [
        (NAMES[name], each["measured"], each["mean"], interval_text(each), f"{each['p']:.2g}")
        for name, each in found["metrics"].items()
    ]
    dealt = {"shuffled": "signals shuffled", "permuted": "labels permuted"}[found["kind"]]
    title = (
        f"What is measured, beside {found['draws']} draws with {dealt}; n {found['n']}, pool {found['pool']}"
    )
    return Table(title, ("metric", "measured", "control, mean", "95 % of draws", "p"), tuple(rows))


def _verdict(metrics: Metrics) -> str:
    """Say on which side of chance the ranks are, and by which test."""
    found = metrics.get("above_chance")
    if found is None:
        return str(metrics["verdict"])
    p = min(1.0, 2 * min(found["better"], found["worse"]))
    shown = f"{p:.2g}" if p > 2 * LEAST else f"< {2 * LEAST:.2g}"
    return f"{metrics['verdict']} (p {shown}, {found['test']} of {found['n']} pictures among {found['pool']})"


def _row(metrics: Metrics) -> tuple[Any, ...]:
    top1, top5, median = (metrics[name] for name in ("top1", "top5", "median_rank"))
    return (
        top1["value"],
        interval_text(top1),
        top5["value"],
        median["value"],
        top1["n"],
        top1["pool"],
        top1["chance"],
    )


def _directions(metrics: Metrics) -> Table:
    """Show all metrics in both directions; what was published, of the first, beside what is measured."""
    published = _of_this_set_up(metrics)
    top1, rows = metrics["overall"]["top1"], []
    shown = [name for name in BESIDE if top1.get(name) is not None]
    for finds, direction in (("image", metrics["overall"]), ("signal", metrics["backward"])):
        for name, found in direction.items():
            beside = [published.get(name, "–") if finds == "image" else "–"] if published else []
            rows.append(
                (
                    NAMES[name],
                    finds,
                    found["value"],
                    *beside,
                    interval_text(found),
                    *(_beside(found, each) for each in shown),
                    found["chance"],
                )
            )
    columns = (
        "metric",
        "finds",
        "measured",
        *(["published"] if published else []),
        "95 % CI",
        *(BESIDE[name] for name in shown),
        "chance",
    )
    how = f"; CI of top-1: {top1['interval']}" if "interval" in top1 else ""
    return Table(f"All cells together{how}{_source(published)}", columns, tuple(rows))


def _beside(metric: Metrics, name: str) -> str:
    """Write what stands beside an interval."""
    if name == "these_subjects":
        return these_subjects_text(metric)
    return "–" if metric[name] is None else f"{metric[name]:.3f}"


def _of_this_set_up(metrics: Metrics) -> Metrics:
    """Give what was published of the same set-up; empty if that is another, or nothing was."""
    published: Metrics = metrics["published"]
    return {} if not published or published["differs"] else published


def _elsewhere(metrics: Metrics) -> Table:
    """Show what was published with another set-up, and what differs, apart from what is measured."""
    published = metrics["published"]
    if not published or not published["differs"]:
        return Table("", (), ())
    return published_table({"": published})


def _source(published: Metrics) -> str:
    return f"; published: {published['source']}" if published else ""


def _seeds(metrics: Metrics) -> Table:
    """Show top-1 by subject and seed, with mean ± sd over seeds; the last row is over subjects."""
    hits: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, subjects in metrics["cells"].items():
        variant = name.rpartition("/")[0]
        for subject, cell in subjects.items():
            row = f"{variant} {subject}".strip()
            hits[row][f"seed {cell['seed']}"].append(cell["metrics"]["top1"]["value"])
    # by zero-shot transfer, several models of a seed meet a subject
    found = {row: {seed: float(np.mean(some)) for seed, some in by.items()} for row, by in hits.items()}
    columns = list(dict.fromkeys(seed for row in found.values() for seed in row))
    if len(found) < 2 and len(columns) < 2:
        return Table("", (), ())
    rows = [
        (subject, *(row.get(seed, "–") for seed in columns), _spread(list(row.values())))
        for subject, row in found.items()
    ]
    over = [_spread([row[seed] for row in found.values() if seed in row]) for seed in columns]
    overall = _spread([float(np.mean(list(row.values()))) for row in found.values()])
    return Table(
        "Top-1 by subject and seed, mean ± standard deviation",
        ("subject", *columns, "mean ± sd"),
        (*rows, ("mean ± sd", *over, overall)),
    )


def _subsets(metrics: Metrics) -> Table:
    directions = {"forward": "signal → image", "backward": "image → signal"}
    rows = [
        (directions[name], found["value"], interval_text(found), found["n"], found["pool"], found["chance"])
        for name, found in metrics["subsets"].items()
    ]
    title = next((found["protocol"] for found in metrics["subsets"].values()), "")
    return Table(
        f"Top-1 among subsets: {title}", ("direction", "top-1", "95 % CI", "n", "pool", "chance"), tuple(rows)
    )


def _curve(metrics: Metrics, name: str, axis: str) -> Table:
    rows = []
    for point in metrics["curves"][name]:
        top1, top5 = point["top1"], point["top5"]
        rows.append((point["at"], top1["value"], interval_text(top1), top5["value"], interval_text(top5)))
    columns = (axis, "top-1", "95 % CI", "top-5", "95 % CI of it")
    title = f"Accuracy over {axis}: {metrics['curves']['how'].get(name)}"
    if rows:
        title += f"; n {top1['n']}, pool {top1['pool']}, chance {top1['chance']:.3g}, {top5['chance']:.3g}"
    return Table(title, columns, tuple(rows))


def _named(metrics: Metrics, kind: str, most: int) -> Table:
    """Show the concepts (or categories) that are found best and worst."""
    table = list(metrics[kind].items())
    chosen = table if len(table) <= 2 * most else [*table[:most], *table[-most:]]
    rows = [(name, row["top1"], row["top5"], row["mean_rank"], row["n"]) for name, row in chosen]
    title = f"{kind.capitalize()}: {len(chosen)} of {len(table)}, found best first; n over subjects and seeds"
    return Table(title, (kind, "top-1", "top-5", "mean rank", "n"), tuple(rows))


def _confusions(metrics: Metrics, most: int) -> Table:
    rows = [tuple(row.values()) for row in metrics["confusions"][:most]]
    columns = ("seen", "taken for", "times", "share", "cosine of the two")
    return Table("Concepts taken for others", columns, tuple(rows))


def _comparisons(metrics: Metrics) -> Table:
    rows = [
        (
            _pair(each),
            each["difference"],
            interval_text(each),
            f"{each['only_first']}, {each['only_second']}",
            *(_short(each[f"{test}_adjusted"]) for test in TESTS),
            _short(each["cohens_dz"]),
        )
        for each in metrics["against"]
    ]
    if not rows:
        return Table("", (), ())
    columns = ("against", "top-1", "95 % CI", "only", "p", "sign-flip", "Wilcoxon", "t", "d_z")
    parts = [
        f"Top-1 less another run's, n {metrics['against'][0]['n']}",
        "items only this, only that found",
        f"p: {metrics['against'][0]['test']}",
    ]
    parts += ["all p by Benjamini–Hochberg"] if len(rows) > 1 else []
    parts += ["for these items only: sign-flip, Wilcoxon, t", "Cohen's d_z"]
    notes = dict.fromkeys(note for each in metrics["against"] for note in each["notes"])
    return Table("; ".join([*parts, *notes]), columns, tuple(rows))


def _pair(compared: Metrics) -> str:
    """Name a run that was compared with, or both variants of a sweep."""
    return " less ".join(compared["pair"]) if "pair" in compared else f"…{compared['run'][-9:]}"


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"
