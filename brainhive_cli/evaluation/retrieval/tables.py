"""The tables of an evaluated run."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from brainhive_cli.core.caveats import extend_tables, merge_caveats
from brainhive_cli.core.console import Table
from brainhive_cli.core.measurements import ALL, Measurements, Metric, interval_text, scope
from brainhive_cli.evaluation.retrieval.ceiling import CEILING
from brainhive_cli.evaluation.retrieval.comparisons import TESTS
from brainhive_cli.evaluation.retrieval.summary import BACKWARD, SUBSETS, points_of, regions_of
from brainhive_cli.measurement import metric_names
from brainhive_cli.measurement.rank_sum import LEAST
from brainhive_cli.reports.published_table import published_table

AXES = {"repetitions": "repetitions", "sliding": "window centre, ms"}
CONTROLS = {"shuffled": "signals shuffled", "permuted": "labels permuted"}
EMPTY = Table("", (), ())


def tables(found: Measurements, concept_rows: int) -> tuple[Table, ...]:
    """Lay out all tables that a run has something for."""
    laid_out = [_cells(found), _control(found), _directions(found), _seeds(found), _subsets(found)]
    laid_out += [_ceiling(found), *(_curve(found, name) for name in found.notes["curves"])]
    laid_out += [_regions(found), *_of_concepts(found, concept_rows)]
    published = found.notes["published"]
    laid_out.append(published_table({"": published}) if published and published["differs"] else EMPTY)
    return extend_tables([table for table in laid_out if table.rows], found.caveats)


def detail_tables(found: Measurements, concept_rows: int) -> list[Table]:
    """Lay out what is neither metrics of cells nor drawn: controls, ceilings, concepts, comparisons."""
    laid_out = [_control(found), _subsets(found), _ceiling(found), *_of_concepts(found, concept_rows)]
    return [table for table in laid_out if table.rows]


def _of_concepts(found: Measurements, concept_rows: int) -> list[Table]:
    """Lay out the best and worst concepts, if any are wanted, and the comparisons with other runs."""
    laid_out: list[Table] = []
    if concept_rows:
        laid_out += [_concepts(found, kind, concept_rows) for kind in ("concepts", "categories")]
        laid_out.append(_confusions(found, concept_rows))
    return [*laid_out, *comparison_tables(found.notes["against"])]


def asked_tables(found: Measurements) -> tuple[Table, ...]:
    """Lay out the result, then each control, curve and comparison that the recipe names."""
    laid_out = [_cells(found), _control(found), _subsets(found)]
    laid_out += [*(_curve(found, name) for name in found.notes["curves"]), _regions(found)]
    laid_out += comparison_tables(found.notes["against"])
    return extend_tables([table for table in laid_out if table.rows], found.caveats)


def sweep_tables(variants: Mapping[str, tuple[Table, ...]], found: Measurements) -> tuple[Table, ...]:
    """Lay out the tables of each variant, and their differences; nothing is pooled over variants."""
    laid_out = [
        replace(table, title=f"{variant}: {table.title}")
        for variant, some in variants.items()
        for table in some
    ]
    return (*laid_out, *extend_tables(comparison_tables(found.notes["comparisons"]), found.caveats))


def _cells(found: Measurements) -> Table:
    rows = [("all", *_row(found.overall))]
    for name, cell in found.notes["cells"].items():
        is_named = cell["cell"].rpartition("/")[2].startswith(cell["subject"])
        shown = cell["cell"] if is_named else f"{cell['cell']} on {cell['subject']}"
        rows.append((shown, *_row(found.scopes[name])))
    columns = ("cell", "top-1", "95 % CI", "top-5", "rank", "n", "pool", "chance")
    split = found.overall["top1"].split
    title = f"Retrieval of {split} pictures: {found.notes['protocol']}: {_verdict(found.notes)}"
    return Table("; ".join([title, *found.notes["warnings"]]), columns, tuple(rows))


def _row(metrics: Mapping[str, Metric]) -> tuple[Any, ...]:
    top1, top5, median = (metrics[name] for name in ("top1", "top5", "median_rank"))
    return (top1.value, top1.interval_text(), top5.value, median.value, top1.n, top1.pool, top1.chance)


def _verdict(notes: Mapping[str, Any]) -> str:
    """Say on which side of chance the ranks are, and by which test."""
    test = notes["above_chance"]
    p = min(1.0, 2 * min(test["better"], test["worse"]))
    shown = f"{p:.2g}" if p > 2 * LEAST else f"< {2 * LEAST:.2g}"
    return f"{notes['verdict']} (p {shown}, {test['test']} of {test['n']} pictures among {test['pool']})"


def _control(found: Measurements) -> Table:
    """Show what is measured, and its null distribution under the control."""
    control = found.notes["control"]
    if not control:
        return EMPTY
    rows = [
        (
            metric_names.shown(name),
            each["measured"],
            each["mean"],
            interval_text(each["low"], each["high"]),
            f"{each['p']:.2g}",
        )
        for name, each in control["metrics"].items()
    ]
    draws = f"{control['draws']} draws with {CONTROLS[control['kind']]}"
    title = f"Measured, and in {draws}; n {control['n']}, pool {control['pool']}"
    return Table(title, ("metric", "measured", "control, mean", "95 % of draws", "p"), tuple(rows))


def _directions(found: Measurements) -> Table:
    """Show all metrics in both directions, and what was published of the first with the same set-up."""
    published = found.notes["published"]
    published = {} if not published or published["differs"] else published
    top1, rows = found.overall["top1"], []
    for target, name in (("image", ALL), ("signal", scope(ALL, BACKWARD))):
        for metric in found.scopes.get(name, {}).values():
            known = [published.get(metric.name, "–") if target == "image" else "–"] if published else []
            more = [metric.these_subjects_text()] if top1.these_subjects else []
            if top1.seed_sd is not None:
                more.append("–" if metric.seed_sd is None else f"{metric.seed_sd:.3f}")
            shown = (*known, metric.interval_text(), *more, metric.chance)
            rows.append((metric_names.shown(metric.name), target, metric.value, *shown))
    columns = [
        *("metric", "finds", "measured"),
        *(["published"] if published else []),
        "95 % CI",
        *(["these subjects"] if top1.these_subjects else []),
        *(["sd over seeds"] if top1.seed_sd is not None else []),
        "chance",
    ]
    source = f"; published: {published['source']}" if published else ""
    title = f"All cells together; CI of top-1: {top1.interval}{source}"
    return Table(title, tuple(columns), tuple(rows))


def _seeds(found: Measurements) -> Table:
    """Show top-1 by subject and seed, with mean ± sd over seeds; the last row is over subjects."""
    hits: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, cell in found.notes["cells"].items():
        row = f"{cell['cell'].rpartition('/')[0]} {cell['subject']}".strip()
        hits[row][f"seed {cell['seed']}"].append(found.scopes[name]["top1"].value)
    # by zero-shot transfer, several models of a seed meet a subject
    means = {row: {seed: float(np.mean(some)) for seed, some in by.items()} for row, by in hits.items()}
    seeds = list(dict.fromkeys(seed for row in means.values() for seed in row))
    if len(means) < 2 and len(seeds) < 2:
        return EMPTY
    rows = [
        (subject, *(row.get(seed, "–") for seed in seeds), _spread(list(row.values())))
        for subject, row in means.items()
    ]
    over = [_spread([row[seed] for row in means.values() if seed in row]) for seed in seeds]
    overall = _spread([float(np.mean(list(row.values()))) for row in means.values()])
    return Table(
        "Top-1 by subject and seed, mean ± standard deviation: in rows over seeds, in the last over subjects",
        ("subject", *seeds, "mean ± sd"),
        (*rows, ("mean ± sd", *over, overall)),
    )


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"


def _subsets(found: Measurements) -> Table:
    """Show who finds whom among drawn subsets, and what is expected of all possible ones."""
    directions = {"": "signal", BACKWARD: "image"}
    metrics = {
        words: found.scopes[name]
        for direction, words in directions.items()
        if (name := scope(ALL, SUBSETS, direction)) in found.scopes
    }
    rows = []
    for seeker, each in metrics.items():
        drawn, exact = each["top1"], each.get("top1_expected")
        of_all = ("–", "–") if exact is None else (exact.value, exact.interval_text())
        shown = (drawn.value, drawn.interval_text(), *of_all, drawn.n, drawn.pool, drawn.chance)
        rows.append((f"{seeker} seeks {'image' if seeker == 'signal' else 'signal'}", *shown))
    protocol = next((each["top1"].protocol for each in metrics.values()), "")
    title = f"Top-1 among subsets: {protocol}; MindEye's forward is: image seeks signal"
    columns = ("direction", "drawn", "95 % CI", "of all subsets", "its 95 % CI", "n", "pool", "chance")
    return Table(title, columns, tuple(rows))


def _ceiling(found: Measurements) -> Table:
    """Show the ceiling of each subject's signals, or why there is none."""
    if CEILING not in found.notes:
        return EMPTY
    subjects = dict.fromkeys(cell["subject"] for cell in found.notes["cells"].values())
    rows: list[tuple[Any, ...]] = []
    for name in (*subjects, ALL) if len(subjects) > 1 else subjects:
        if metrics := found.scopes.get(scope(CEILING, name)):
            top1, half = metrics["top1"], metrics["reliability"]
            shown = (f"{top1.value:.3f}", top1.interval_text(), top1.chance, half.value, half.interval_text())
            rows.append((name, *shown, top1.n, top1.pool))
        elif reason := found.missing.get(scope(CEILING, name)):
            rows.append((name, f"not available: {reason}", *["–"] * 6))
    about = found.notes[CEILING]
    title = f"Split-half ceiling of the signals: {about['protocol']}"
    title += f"; {about['repetitions']} repetitions of a picture at most"
    columns = ("subject", "top-1", "95 % CI", "chance", "reliability", "its 95 % CI", "n", "pool")
    return Table(title, columns, tuple(rows))


def _curve(found: Measurements, name: str) -> Table:
    rows, points = [], points_of(found, name)
    for at, point in points.items():
        top1, top5 = point["top1"], point["top5"]
        rows.append((f"{at:g}", top1.value, top1.interval_text(), top5.value, top5.interval_text()))
    columns = (AXES[name], "top-1", "95 % CI", "top-5", "95 % CI of it")
    title = f"Accuracy over {AXES[name]}: {found.notes['curves'][name]['description']}"
    if rows:
        title += f"; n {top1.n}, pool {top1.pool}, chance {top1.chance:.3g}, {top5.chance:.3g}"
    return Table(title, columns, tuple(rows))


def _regions(found: Measurements) -> Table:
    """Show what each region carries of each head, and how many voxels it has."""
    regions, voxels = regions_of(found), found.notes["voxels"]
    heads = list(next(iter(regions.values()), {}))
    rows = [
        (
            name,
            " ".join(str(each[name]) for each in voxels.values()),
            *(cell for m in metrics.values() for cell in (m.value, m.interval_text())),
        )
        for name, metrics in regions.items()
    ]
    columns = ("region", "voxels", *(column for head in heads for column in (head, f"95 % CI of {head}")))
    how = "squared change of predictions without the region, over that without all voxels"
    return Table(f"What regions carry: {how}; voxels: {', '.join(voxels)}", columns, tuple(rows))


def _concepts(found: Measurements, kind: str, most: int) -> Table:
    """Show the concepts (or categories) that are found best and worst."""
    table = list(found.notes[kind].items())
    chosen = table if len(table) <= 2 * most else [*table[:most], *table[-most:]]
    rows = [(name, row["top1"], row["top5"], row["mean_rank"], row["n"]) for name, row in chosen]
    title = f"{kind.capitalize()}: {len(chosen)} of {len(table)}, best first; n over subjects and seeds"
    return Table(title, (kind, "top-1", "top-5", "mean rank", "n"), tuple(rows))


def _confusions(found: Measurements, most: int) -> Table:
    rows = [tuple(row.values()) for row in found.notes["confusions"][:most]]
    columns = ("seen", "taken for", "times", "share", "cosine of the two")
    return Table("Confused concepts", columns, tuple(rows))


def comparison_tables(comparisons: Sequence[Mapping[str, Any]]) -> tuple[Table, ...]:
    """Lay out the comparisons with other runs, or of a sweep's variants; nothing where there are none."""
    if not comparisons:
        return ()
    rows = [
        (
            " minus ".join(each["pair"]) if "pair" in each else f"…{each['run'][-9:]}",
            each["difference"],
            interval_text(each["low"], each["high"]),
            "–" if each["only_first"] is None else f"{each['only_first']}, {each['only_second']}",
            *("–" if p is None else f"{p:.2g}" for p in (each[f"{test}_adjusted"] for test in TESTS)),
            "–" if each["cohens_dz"] is None else f"{each['cohens_dz']:.2g}",
        )
        for each in comparisons
    ]
    columns = ("against", "top-1", "95 % CI", "only", "p", "sign-flip", "Wilcoxon", "t", "d_z")
    title = [
        f"Difference in top-1, n {comparisons[0]['n']}",
        "only: items that only the first, only the second found, of one seed a side",
        f"p: {comparisons[0]['test']}",
        *(["all p by Benjamini–Hochberg"] if len(rows) > 1 else []),
        *("for these items only: sign-flip, Wilcoxon, t", "Cohen's d_z"),
        *dict.fromkeys(note for each in comparisons for note in each["notes"]),
    ]
    caveats = merge_caveats(*(each["caveats"] for each in comparisons))
    differing = [(f"…{each['run'][-9:]}", line) for each in comparisons for line in _differs(each)]
    set_ups = Table("This run differs from others", ("from", "in"), tuple(differing))
    tests = extend_tables([Table("; ".join(title), columns, tuple(rows))], caveats)
    return (*([set_ups] if differing else []), *tests)


def _differs(comparison: Mapping[str, Any]) -> list[str]:
    """List in what two runs differ; variants of a sweep are named by that."""
    return [] if "pair" in comparison else list(comparison["differs"])
