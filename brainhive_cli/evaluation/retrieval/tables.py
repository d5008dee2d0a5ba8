"""The tables of an evaluated run."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from brainhive_cli.core.caveats import extend_tables, merge_caveats
from brainhive_cli.core.measurements import ALL, Measurements, Metric, interval_text, scope
from brainhive_cli.core.tables import Table, by_subject_and_seed, p_text, published_table
from brainhive_cli.evaluation.retrieval.summary import BACKWARD, CEILING, SUBSETS, points_of, regions_of
from brainhive_cli.measurement import metric_names
from brainhive_cli.measurement.paired_runs import TESTS
from brainhive_cli.measurement.rank_scores import LEAST

AXES = {"repetitions": "repetitions", "sliding": "window centre, ms"}
CONTROLS = {"shuffled": "signals shuffled", "permuted": "labels permuted"}
EMPTY = Table("", (), ())


def tables(measured: Measurements, concept_rows: int) -> tuple[Table, ...]:
    """Lay out all tables that a run has something for."""
    laid_out = [
        _cells(measured),
        _control(measured),
        _directions(measured),
        _seeds(measured),
        _subsets(measured),
    ]
    laid_out += [_ceiling(measured), *(_curve(measured, name) for name in measured.notes["curves"])]
    laid_out += [_regions(measured), *_of_concepts(measured, concept_rows)]
    published = measured.notes["published"]
    laid_out.append(published_table({"": published}) if published and published["differs"] else EMPTY)
    return extend_tables([table for table in laid_out if table.rows], measured.caveats)


def detail_tables(measured: Measurements, concept_rows: int) -> list[Table]:
    """Lay out what is neither metrics of cells nor drawn: controls, ceilings, concepts, comparisons."""
    laid_out = [
        _control(measured),
        _subsets(measured),
        _ceiling(measured),
        *_of_concepts(measured, concept_rows),
    ]
    return [table for table in laid_out if table.rows]


def _of_concepts(measured: Measurements, concept_rows: int) -> list[Table]:
    """Lay out the best and worst concepts, if any are wanted, and the comparisons with other runs."""
    laid_out: list[Table] = []
    if concept_rows:
        laid_out += [_concepts(measured, kind, concept_rows) for kind in ("concepts", "categories")]
        laid_out.append(_confusions(measured, concept_rows))
    return [*laid_out, *comparison_tables(measured.notes["against"])]


def asked_tables(measured: Measurements) -> tuple[Table, ...]:
    """Lay out the result, then each control, curve and comparison that the recipe names."""
    laid_out = [_cells(measured), _control(measured), _subsets(measured)]
    laid_out += [*(_curve(measured, name) for name in measured.notes["curves"]), _regions(measured)]
    laid_out += comparison_tables(measured.notes["against"])
    return extend_tables([table for table in laid_out if table.rows], measured.caveats)


def sweep_tables(variants: Mapping[str, tuple[Table, ...]], measured: Measurements) -> tuple[Table, ...]:
    """Lay out the tables of each variant, and their differences; nothing is pooled over variants."""
    laid_out = [
        replace(table, title=f"{variant}: {table.title}")
        for variant, some in variants.items()
        for table in some
    ]
    return (*laid_out, *extend_tables(comparison_tables(measured.notes["comparisons"]), measured.caveats))


def _cells(measured: Measurements) -> Table:
    rows = [("all", *_row(measured.overall))]
    for name, cell in measured.notes["cells"].items():
        is_named = cell["cell"].rpartition("/")[2].startswith(cell["subject"])
        shown = cell["cell"] if is_named else f"{cell['cell']} on {cell['subject']}"
        rows.append((shown, *_row(measured.scopes[name])))
    columns = ("cell", "top-1", "95 % CI", "top-5", "rank", "n", "pool", "chance")
    split = measured.overall["top1"].split
    title = f"Retrieval of {split} pictures: {measured.notes['protocol']}: {_verdict(measured.notes)}"
    return Table("; ".join([title, *measured.notes["warnings"]]), columns, tuple(rows))


def _row(metrics: Mapping[str, Metric]) -> tuple[Any, ...]:
    top1, top5, median = (metrics[name] for name in ("top1", "top5", "median_rank"))
    return (top1.value, top1.interval_text(), top5.value, median.value, top1.n, top1.pool, top1.chance)


def _verdict(notes: Mapping[str, Any]) -> str:
    """Say on which side of chance the ranks are, and by which test."""
    test = notes["above_chance"]
    p = min(1.0, 2 * min(test["better"], test["worse"]))
    shown = f"{p:.2g}" if p > 2 * LEAST else f"< {2 * LEAST:.2g}"
    return f"{notes['verdict']} (p {shown}, {test['test']} of {test['n']} pictures among {test['pool']})"


def _control(measured: Measurements) -> Table:
    """Show what is measured, and its null distribution under the control."""
    control = measured.notes["control"]
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


def _directions(measured: Measurements) -> Table:
    """Show all metrics in both directions, and what was published of the first with the same set-up."""
    published = measured.notes["published"]
    published = {} if not published or published["differs"] else published
    top1, rows = measured.overall["top1"], []
    for target, name in (("image", ALL), ("signal", scope(ALL, BACKWARD))):
        for metric in measured.scopes.get(name, {}).values():
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


def _seeds(measured: Measurements) -> Table:
    """Show top-1 by subject and seed, with mean ± sd over seeds; the last row is over subjects."""
    hits: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, cell in measured.notes["cells"].items():
        row = f"{cell['cell'].rpartition('/')[0]} {cell['subject']}".strip()
        hits[row][str(cell["seed"])].append(measured.scopes[name]["top1"].value)
    seeds = list(dict.fromkeys(seed for row in hits.values() for seed in row))
    if len(hits) < 2 and len(seeds) < 2:
        return EMPTY
    title = (
        "Top-1 by subject and seed, mean ± standard deviation: in rows over seeds, in the last over subjects"
    )
    return by_subject_and_seed(title, hits, seeds)


def _subsets(measured: Measurements) -> Table:
    """Show who finds whom among drawn subsets, and what is expected of all possible ones."""
    directions = {"": "signal", BACKWARD: "image"}
    metrics = {
        words: measured.scopes[name]
        for direction, words in directions.items()
        if (name := scope(ALL, SUBSETS, direction)) in measured.scopes
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


def _ceiling(measured: Measurements) -> Table:
    """Show the ceiling of each subject's signals, or why there is none."""
    if CEILING not in measured.notes:
        return EMPTY
    subjects = dict.fromkeys(cell["subject"] for cell in measured.notes["cells"].values())
    rows: list[tuple[Any, ...]] = []
    for name in (*subjects, ALL) if len(subjects) > 1 else subjects:
        if metrics := measured.scopes.get(scope(CEILING, name)):
            top1, half = metrics["top1"], metrics["reliability"]
            shown = (f"{top1.value:.3f}", top1.interval_text(), top1.chance, half.value, half.interval_text())
            rows.append((name, *shown, top1.n, top1.pool))
        elif reason := measured.missing.get(scope(CEILING, name)):
            rows.append((name, f"not available: {reason}", *["–"] * 6))
    about = measured.notes[CEILING]
    title = f"Split-half ceiling of the signals: {about['protocol']}"
    title += f"; {about['repetitions']} repetitions of a picture at most"
    columns = ("subject", "top-1", "95 % CI", "chance", "reliability", "its 95 % CI", "n", "pool")
    return Table(title, columns, tuple(rows))


def _curve(measured: Measurements, name: str) -> Table:
    rows, points = [], points_of(measured, name)
    for at, point in points.items():
        top1, top5 = point["top1"], point["top5"]
        rows.append((f"{at:g}", top1.value, top1.interval_text(), top5.value, top5.interval_text()))
    columns = (AXES[name], "top-1", "95 % CI", "top-5", "95 % CI of it")
    title = f"Accuracy over {AXES[name]}: {measured.notes['curves'][name]['description']}"
    if rows:
        title += f"; n {top1.n}, pool {top1.pool}, chance {top1.chance:.3g}, {top5.chance:.3g}"
    return Table(title, columns, tuple(rows))


def _regions(measured: Measurements) -> Table:
    """Show what each region carries of each head, and how many voxels it has."""
    regions, voxels = regions_of(measured), measured.notes["voxels"]
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


def _concepts(measured: Measurements, kind: str, most: int) -> Table:
    """Show the concepts (or categories) that are found best and worst."""
    table = list(measured.notes[kind].items())
    chosen = table if len(table) <= 2 * most else [*table[:most], *table[-most:]]
    rows = [(name, row["top1"], row["top5"], row["mean_rank"], row["n"]) for name, row in chosen]
    title = f"{kind.capitalize()}: {len(chosen)} of {len(table)}, best first; n over subjects and seeds"
    return Table(title, (kind, "top-1", "top-5", "mean rank", "n"), tuple(rows))


def _confusions(measured: Measurements, most: int) -> Table:
    rows = [tuple(row.values()) for row in measured.notes["confusions"][:most]]
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
            *(p_text(each[f"{test}_adjusted"]) for test in TESTS),
            p_text(each["cohens_dz"]),
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
