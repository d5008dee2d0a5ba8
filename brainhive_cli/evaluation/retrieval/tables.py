"""The tables of an evaluated run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from brainhive_cli.core.measurements import (
    ALL,
    TRANSDUCTIVE,
    Measurements,
    Metric,
    extend_tables,
    interval_text,
    merge_caveats,
    scope,
)
from brainhive_cli.core.tables import Table, adjustment_text, p_text
from brainhive_cli.evaluation.retrieval.baseline import BASELINE, NAMES, PLAIN
from brainhive_cli.evaluation.retrieval.summary import (
    BACKWARD,
    CEILING,
    CORRECTIONS,
    REGIONS,
    SUBSETS,
    scopes_below,
)
from brainhive_cli.measurement import metric_names
from brainhive_cli.reports.tables import published_tables

HEADLINES = ("top-1", "95 % CI", "top-5", "rank", "n", "pool", "chance")
CLASSES = ("balanced_accuracy", "auc")
"""Metrics of held-out trials besides top-1, which is their accuracy."""
AXES = {"repetitions": "repetitions", "sliding": "window centre, ms"}
CONTROLS = {"shuffled": "signals shuffled", "permuted": "labels permuted"}
EMPTY = Table("", (), ())
REQUESTED = ("cells", "baseline", "control", "corrections", "subsets", "curves", "regions", "comparisons")
"""Tables that are printed: the result, then each control, curve and comparison that the recipe names."""
DETAILS = ("baseline", "control", "corrections", "subsets", "ceiling", "concepts", "comparisons")
"""Tables on pages: what is neither metrics of cells nor drawn."""


def lay_out(measured: Measurements, concept_rows: int, parts: Sequence[str] | None) -> list[Table]:
    """Lay out the tables that a run has something for.

    Args:
        measured: What it measured.
        concept_rows: Best and worst concepts, and confusions, that are listed; 0 for none.
        parts: Which tables, by what they show; None for all.
    """
    tables = {
        "cells": [_cells(measured)],
        "baseline": [_baseline(measured), _plain(measured)],
        "control": [_control(measured)],
        "corrections": [_corrections(measured)],
        "subsets": [_subsets(measured)],
        "ceiling": [_ceiling(measured)],
        "curves": [_curve(measured, name) for name in measured.notes["curves"]],
        "regions": [_regions(measured)],
        "concepts": _concepts(measured, concept_rows) if concept_rows else [],
        "comparisons": comparison_tables(measured.notes["against"]),
        "published": published_tables(measured.notes["published"]),
    }
    return [table for part in parts or tables for table in tables[part] if table.rows]


def sweep_tables(tables_of: Mapping[str, Sequence[Table]], measured: Measurements) -> tuple[Table, ...]:
    """Lay out the tables of each variant, and their differences; nothing is pooled over variants."""
    named = [
        replace(table, title=f"{variant}: {table.title}")
        for variant, tables in tables_of.items()
        for table in tables
    ]
    return (*named, *extend_tables(comparison_tables(measured.notes["comparisons"]), measured.caveats))


def list_headlines(metrics: Mapping[str, Metric]) -> tuple[Any, ...]:
    """List the values below HEADLINES."""
    top1, top5, median = (metrics[metric] for metric in ("top1", "top5", "median_rank"))
    return (top1.value, top1.interval_text(), top5.value, median.value, top1.n, top1.pool, top1.chance)


def _baseline(measured: Measurements) -> Table:
    """Lay out the run and the ridge in one table."""
    if BASELINE not in measured.scopes:
        return EMPTY
    models = {"this run": measured.overall, "ridge": measured.scopes[BASELINE]}
    rows = [(name, *list_headlines(metrics)) for name, metrics in models.items()]
    title = f"{measured.notes['baseline']['sentence']}; ridge: {models['ridge']['top1'].protocol}"
    return Table(f"{title[0].upper()}{title[1:]}", ("model", *HEADLINES), rows)


def _plain(measured: Measurements) -> Table:
    """Lay out the run and its baselines, with the paired difference of each."""
    if not measured.notes.get(PLAIN):
        return EMPTY

    # the run, then each baseline
    top1 = measured.overall["top1"]
    rows = [("this run", top1.value, top1.interval_text(), "–", "–", "–")]
    for row in measured.notes[PLAIN]:
        plain = measured.scopes[scope(PLAIN, row["name"])]["top1"]
        ends = "–" if row["low"] is None else f"{row['low']:+.3f} to {row['high']:+.3f}"
        difference = f"{row['difference']:+.3f}"
        rows.append((NAMES[row["name"]], plain.value, plain.interval_text(), difference, ends, row["side"]))
    title = (
        f"Plain baselines on the same folds, n {top1.n}, pool {top1.pool}, chance {top1.chance:.3g}; "
        f"difference: this run less the baseline; {measured.notes[PLAIN][0]['interval']}"
    )
    return Table(title, ("model", "top-1", "95 % CI", "difference", "its 95 % CI", "this run is"), rows)


def _with_interval(metric: Metric) -> tuple[float, str]:
    return metric.value, metric.interval_text()


def _cells(measured: Measurements) -> Table:
    # all cells together, then each; its name may end with the subject
    notes, scopes = measured.notes, {"all": measured.overall}
    for name, cell in notes["cells"].items():
        is_named = cell["cell"].rpartition("/")[2].startswith(cell["subject"])
        scopes[cell["cell"] if is_named else f"{cell['cell']} on {cell['subject']}"] = measured.scopes[name]
    rows = [(name, *list_headlines(metrics)) for name, metrics in scopes.items()]

    # the title answers whether pictures are found at all
    top1, answers = measured.overall["top1"], [notes["above_chance"], *notes["questions"]]
    title = [f"Retrieval of {top1.split} pictures", *(answer["sentence"] for answer in answers)]
    if "confusion_matrix" in notes:
        title[0] = f"Which of {top1.pool} was shown in held-out trials"
        for name in CLASSES:
            if metric := measured.overall.get(name):
                value = f"{metric.value:.3f} ({metric.interval_text()})"
                title.append(f"{metric_names.shown(name)} {value}")
    title[0] += f": {notes['protocol']}"
    return Table("; ".join([*title, *notes["warnings"]]), ("cell", *HEADLINES), rows)


def _control(measured: Measurements) -> Table:
    """Show what is measured, and its null distribution under the control."""
    control = measured.notes["control"]
    if not control:
        return EMPTY
    rows = []
    for name, metric in control["metrics"].items():
        interval = interval_text(metric["low"], metric["high"])
        numbers = (metric["measured"], metric["mean"], interval, p_text(metric["p"]))
        rows.append((metric_names.shown(name), *numbers))
    draws = f"{control['draws']} draws with {CONTROLS[control['kind']]}"
    title = f"Measured, and in {draws}; n {control['n']}, pool {control['pool']}"
    return Table(title, ("metric", "measured", "control, mean", "95 % of draws", "p"), rows)


def _corrections(measured: Measurements) -> Table:
    """Show the result next to what it would be after corrections by all test signals."""
    corrected = scopes_below(measured, CORRECTIONS)
    if not corrected:
        return EMPTY

    # the result first; metrics of each direction
    directions = {"none: the result": (measured.overall, measured.scopes.get(scope(ALL, BACKWARD)))}
    for name, metrics in corrected.items():
        if not name.endswith(BACKWARD):
            directions[name] = metrics, corrected.get(scope(name, BACKWARD))
    rows = []
    for name, (forward, backward) in directions.items():
        hits = backward["top1"].value if backward else "–"
        rows.append((name, *_with_interval(forward["top1"]), forward["top5"].value, hits))
    columns = ("correction", "top-1", "95 % CI", "top-5", "top-1, finds signal")
    return Table(f"Similarities corrected: {TRANSDUCTIVE}", columns, rows)


def _subsets(measured: Measurements) -> Table:
    """Show who finds whom among drawn subsets, and what is expected of all possible ones."""
    rows, protocol = [], ""
    for direction, words in {"": "signal seeks image", BACKWARD: "image seeks signal"}.items():
        if metrics := measured.scopes.get(scope(ALL, SUBSETS, direction)):
            drawn, expected = metrics["top1"], metrics.get("top1_expected")
            exact = _with_interval(expected) if expected else ("–", "–")
            rows.append((words, *_with_interval(drawn), *exact, drawn.n, drawn.pool, drawn.chance))
            protocol = protocol or drawn.protocol
    title = f"Top-1 among subsets: {protocol}; MindEye's forward is: image seeks signal"
    columns = ("direction", "drawn", "95 % CI", "of all subsets", "its 95 % CI", "n", "pool", "chance")
    return Table(title, columns, rows)


def _ceiling(measured: Measurements) -> Table:
    """Show the ceiling of each subject's signals, or why there is none."""
    if CEILING not in measured.notes:
        return EMPTY

    # subjects, then all together
    subjects = dict.fromkeys(cell["subject"] for cell in measured.notes["cells"].values())
    rows = []
    for name in (*subjects, ALL) if len(subjects) > 1 else subjects:
        if metrics := measured.scopes.get(scope(CEILING, name)):
            top1, half = metrics["top1"], metrics["reliability"]
            hits = (f"{top1.value:.3f}", top1.interval_text(), top1.chance)
            rows.append((name, *hits, *_with_interval(half), top1.n, top1.pool))
        elif reason := measured.missing.get(scope(CEILING, name)):
            rows.append((name, f"not available: {reason}", *["–"] * 6))

    # what all subjects have in common
    notes = measured.notes[CEILING]
    title = f"Split-half ceiling of the signals: {notes['protocol']}"
    title += f"; {notes['repetitions']} repetitions of a picture at most"
    columns = ("subject", "top-1", "95 % CI", "chance", "reliability", "its 95 % CI", "n", "pool")
    return Table(title, columns, rows)


def _curve(measured: Measurements, name: str) -> Table:
    rows = []
    title = described = f"Accuracy over {AXES[name]}: {measured.notes['curves'][name]['description']}"
    for at, point in scopes_below(measured, name).items():
        top1, top5 = point["top1"], point["top5"]
        rows.append((at, *_with_interval(top1), *_with_interval(top5)))
        title = f"{described}; n {top1.n}, pool {top1.pool}, chance {top1.chance:.3g}, {top5.chance:.3g}"
    return Table(title, (AXES[name], "top-1", "95 % CI", "top-5", "95 % CI of it"), rows)


def _regions(measured: Measurements) -> Table:
    """Show what each region carries of each head, and how many voxels it has."""
    regions, voxels = scopes_below(measured, REGIONS), measured.notes["voxels"]
    heads = list(next(iter(regions.values()), {}))
    rows = []
    for name, metrics in regions.items():
        sizes = " ".join(str(size_of[name]) for size_of in voxels.values())
        rows.append((name, sizes, *(cell for metric in metrics.values() for cell in _with_interval(metric))))
    columns = ("region", "voxels", *(column for head in heads for column in (head, f"95 % CI of {head}")))
    how = "squared change of predictions without the region, over that without all voxels"
    return Table(f"What regions carry: {how}; voxels: {', '.join(voxels)}", columns, rows)


def _concepts(measured: Measurements, most: int) -> list[Table]:
    """Show the concepts and categories that are found best and worst, and concepts that are confused."""
    # the first and the last rows, as they are sorted by top-1
    tables = []
    for kind in ("concepts", "categories"):
        listed = list(measured.notes[kind].items())
        chosen = listed if len(listed) <= 2 * most else [*listed[:most], *listed[-most:]]
        rows = [(name, row["top1"], row["top5"], row["mean_rank"], row["n"]) for name, row in chosen]
        title = f"{kind.capitalize()}: {len(chosen)} of {len(listed)}, best first; n over subjects and seeds"
        tables.append(Table(title, (kind, "top-1", "top-5", "mean rank", "n"), rows))

    # the most frequent confusions
    confused = [tuple(row.values()) for row in measured.notes["confusions"][:most]]
    columns = ("seen", "taken for", "times", "share", "cosine of the two")
    return [*tables, Table("Confused concepts", columns, confused)]


def comparison_tables(comparisons: Sequence[Mapping[str, Any]]) -> tuple[Table, ...]:
    """Lay out the comparisons with other runs, or of a sweep's variants; nothing where there are none."""
    if not comparisons:
        return ()

    # a row for each comparison, and one for each setting that differs
    rows, differing = [], []
    for row in comparisons:
        name = " minus ".join(row["pair"]) if "pair" in row else f"…{row['run'][-9:]}"
        only = "–" if row["only_first"] is None else f"{row['only_first']}, {row['only_second']}"
        interval = interval_text(row["low"], row["high"])
        numbers = (row["difference"], interval, only, p_text(row["p_adjusted"]), p_text(row["cohens_dz"]))
        rows.append((name, *numbers))

        # variants of a sweep are named by what they differ in
        differing += [] if "pair" in row else [(name, line) for line in row["differs"]]

    # the title has what all rows share
    columns = ("against", "top-1", "95 % CI", "only", "p", "d_z")
    title = [
        f"Difference in top-1, n {comparisons[0]['n']}",
        "only: items that only the first, only the second found, of one seed a side",
        f"p: {comparisons[0]['test']}",
        adjustment_text(comparisons[0]["adjusted_over"]),
        "d_z: Cohen's, over subjects",
        *dict.fromkeys(note for row in comparisons for note in row["notes"]),
    ]
    caveats = merge_caveats(*(row["caveats"] for row in comparisons))
    set_ups = Table("This run differs from others", ("from", "in"), differing)
    tests = extend_tables([Table("; ".join(title), columns, rows)], caveats)
    return (*([set_ups] if differing else []), *tests)
