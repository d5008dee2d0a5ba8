"""The tables of reconstructions: every source with its ceiling and floor, then cell by cell."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from brainhive_cli.core.measurements import (
    Measurements,
    Metric,
    extend_tables,
    interval_text,
    merge_caveats,
    scope,
)
from brainhive_cli.core.tables import Table, p_text
from brainhive_cli.measurement.comparison import LEVEL, is_difference
from brainhive_cli.measurement.metric_names import with_arrow
from brainhive_cli.measurement.metrics.tasks import RECALL

COMPARISONS = "Comparisons"
"""The heading under which a page shows differences."""
FLOOR = "shuffled"
TITLES = {
    "brain": "brain",
    "images": "images, ceiling",
    "shuffled": "shuffled, floor",
    "zeroed": "zeroed, no brain",
    "mean_embedding": "mean embedding",
    "nearest": "nearest training picture",
    "mean": "mean training picture",
    "still": "still first frame",
    "truth": "stimuli themselves",
    "scored": "scored",
}
"""What the sources of pictures are called; ↓ after a metric means that less is better."""


def titles_of(medium: str) -> dict[str, str]:
    """Name the sources of pictures, or of clips."""
    return {source: title.replace("picture", medium) for source, title in TITLES.items()}


def tables(measured: Measurements, published: Any = None) -> tuple[Table, ...]:
    """Write the tables of a finished run; by cell where there are several; and what was published."""
    source = measured.notes["sources"][0]
    cells = {
        cell["title"]: measured.scopes[scope]
        for scope, cell in measured.notes["cells"].items()
        if cell["source"] == source
    }
    written = [
        _by_source(measured),
        *([_by_cell(cells)] if len(cells) > 1 else []),
        *comparison_tables(measured),
    ]
    return extend_tables([*written, *published_scores(published)], measured.caveats)


def comparison_tables(measured: Measurements) -> list[Table]:
    """Write the tables of differences, of the first source and the run from others, and that of concepts."""
    written = []
    titles = titles_of(measured.notes.get("medium", "picture"))
    if comparisons := measured.notes.get("comparisons", []):
        written.append(_comparisons(titles[measured.notes["sources"][0]], comparisons, titles))
    if against := measured.notes.get("against", []):
        caveats = merge_caveats(*(each["caveats"] for each in against))
        written += extend_tables([_comparisons("this run", against, titles)], caveats)
    return [replace(table, section=COMPARISONS) for table in written + _recall_by_concept(measured)]


def published_scores(published: Any) -> list[Table]:
    """Show what was published of these metrics, if the recipe says it."""
    if published is None:
        return []
    title = "; ".join([f"Published: {published.source}", *(f"differs: {each}" for each in published.differs)])
    columns = [with_arrow(name) for name in published.values]
    return [Table(title, tuple(columns), (tuple(f"{each:.3f}" for each in published.values.values()),))]


def missing_lines(missing: Mapping[str, str], medium: str = "picture") -> list[str]:
    """Say which metrics and baselines are missing, and how to get them, once for those of one network."""
    names: dict[str, list[str]] = {}
    for name, way in missing.items():
        names.setdefault(way, []).append(titles_of(medium).get(name, name))
    return [
        f"not measured: {', '.join(some)}: {way}; then the same command measures them"
        for way, some in names.items()
    ]


def _by_source(measured: Measurements) -> Table:
    """Put every source's value of a metric below one another."""
    rows: list[tuple[Any, ...]] = []
    titles = titles_of(measured.notes.get("medium", "picture"))
    for name in measured.overall:
        for source in (each for each in measured.notes["sources"] if name in measured.scopes[each]):
            m = measured.scopes[source][name]
            chance, pool = ("–" if value is None else value for value in (m.chance, m.pool))
            shown = (m.value, m.interval_text(), m.these_subjects_text(), m.n, pool, chance)
            rows.append((with_arrow(name), titles[source], *shown))
    for name in measured.missing:
        row = ("all", titles[name]) if name in titles else (with_arrow(name), "–")
        rows.append((*row, "missing", *["–"] * 5))
    columns = ("metric", "from", "value", "95 % CI", "these subjects", "n", "pool", "chance")
    return Table(_title(measured), columns, tuple(rows))


def _title(measured: Measurements) -> str:
    """Say what all numbers of a run have in common."""
    metrics = [metric for source in measured.notes["sources"] for metric in measured.scopes[source].values()]
    seeds = sorted({seed for metric in metrics for seed in metric.seeds})
    trained = f", {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}" if seeds else ""
    items = f"{metrics[0].split} {measured.notes.get('medium', 'picture')}s"
    split = "" if metrics[0].split == "scored" else f" of {items}"
    return f"Reconstruction{split}: {metrics[0].protocol}{trained}"


def _recall_by_concept(measured: Measurements) -> list[Table]:
    """Show the recall of each concept, the most frequent first, next to that of shuffled pairs."""
    source, titles = measured.notes["sources"][0], titles_of(measured.notes.get("medium", "picture"))
    rows = []
    for concept in measured.notes.get("concepts", []):
        own = measured.scopes[scope(f"concept {concept}", source)][RECALL]
        floor = measured.scopes.get(scope(f"concept {concept}", FLOOR), {}).get(RECALL)
        shuffled = "–" if floor is None else floor.value
        rows.append((concept, own.n, own.value, own.interval_text(), shuffled, own.chance))
    rows.sort(key=lambda row: -row[1])
    columns = ("concept", "n", titles[source], "95 % CI", titles[FLOOR], "chance of a guess")
    title = "Recall of each concept among the likeliest, as many as a stimulus shows"
    return [Table(title, columns, tuple(rows))] if rows else []


def _comparisons(of: str, comparisons: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> Table:
    """Show how much more than others the reconstructions score, metric by metric."""
    rows = []
    for each in comparisons:
        other = titles.get(each["with"], f"…{each['with'][-9:]}")
        for name, m in each["metrics"].items():
            is_more = (m["difference"] > 0) != m["lower_is_better"]
            is_shown = is_difference(m["p_adjusted"], m["low"], m["high"])
            better = (of if is_more else other) if is_shown else "–"
            p = p_text(m["p_adjusted"])
            measured = f"{m['difference']:+.3f}", interval_text(m["low"], m["high"]), m["n"], p
            rows.append((with_arrow(name), other, *measured, better))
    tests = {m["test"] for each in comparisons for m in each["metrics"].values()}
    title = f"{of} less others, paired; p: {', '.join(sorted(tests))} (Benjamini–Hochberg over metrics)"
    title = "; ".join([title, *dict.fromkeys(note for each in comparisons for note in each["notes"])])
    columns = ("metric", "less", "difference", "95 % CI", "n", "p", f"better (p < {LEVEL})")
    return Table(title[0].upper() + title[1:], columns, tuple(rows))


def _by_cell(cells: Mapping[str, Mapping[str, Metric]]) -> Table:
    names = list(next(iter(cells.values())))
    rows = [
        (title, *(f"{metrics[name].value:.3f}" for name in names), metrics[names[0]].n)
        for title, metrics in cells.items()
    ]
    columns = ("cell", *(with_arrow(name) for name in names), "n")
    return Table("By cell; intervals are in metrics.json", columns, tuple(rows))
