"""The tables of reconstructions: every source beside its ceiling and floor, then cell by cell."""

from collections.abc import Mapping, Sequence
from typing import Any

from brainhive_cli.core.caveats import in_tables, together
from brainhive_cli.core.console import Table
from brainhive_cli.metrics.statistics import interval_text, these_subjects_text
from brainhive_cli.reconstruction.scoring import lower_is_better
from brainhive_cli.reports.reconstruction_sheets import short

TITLES = {
    "brain": "brain",
    "images": "images, ceiling",
    "shuffled": "shuffled, floor",
    "zeroed": "zeroed, no brain",
    "nearest": "nearest training picture",
    "mean": "mean training picture",
    "scored": "scored",
}
"""What the sources are called; ↓ beside a metric means that less is better."""
LEVEL = 0.05
"""p below which a difference is told to be one."""
Metrics = Mapping[str, Any]


def tables(metrics: Metrics) -> tuple[Table, ...]:
    """Draw the tables of a finished run; by cell where there are several."""
    source = next(iter(metrics["sources"]))
    cells = [cell for cell in metrics["cells"].values() if cell["source"] == source]
    drawn = [_together(metrics), *([_by_cell(cells)] if len(cells) > 1 else [])]
    if comparisons := metrics.get("comparisons", []):
        drawn.append(_comparisons(TITLES[source], comparisons))
    if against := metrics.get("against", []):
        beside = together(*(each["caveats"] for each in against))
        drawn += in_tables([_comparisons("this run", against)], beside)
    return in_tables(drawn, metrics.get("caveats", []))


def told(missing: Mapping[str, str], sources: Mapping[str, str] = {}) -> list[str]:
    """Say which metrics and baselines are missing, and how to get them, once for those of one network."""
    names: dict[str, list[str]] = {}
    for name, way in {**missing, **{TITLES[source]: way for source, way in sources.items()}}.items():
        names.setdefault(way, []).append(name)
    return [
        f"not measured: {', '.join(some)}: {way}; then the same command measures them"
        for way, some in names.items()
    ]


def _together(metrics: Metrics) -> Table:
    """Put every source's value of a metric below one another."""
    rows: list[tuple[Any, ...]] = []
    for name in metrics["overall"]:
        for source, figures in metrics["sources"].items():
            m = figures[name]
            chance, pool = ("–" if m[key] is None else m[key] for key in ("chance", "pool"))
            shown = (m["value"], interval_text(m), these_subjects_text(m), m["n"], pool, chance)
            rows.append((_arrowed(name, name), TITLES[source], *shown))
    rows += [(_arrowed(name, name), "–", "missing", *["–"] * 5) for name in metrics["missing"]]
    rows += [("all", TITLES[source], "missing", *["–"] * 5) for source in metrics.get("missing_sources", {})]
    columns = ("metric", "drawn from", "value", "95 % CI", "these subjects", "n", "pool", "chance")
    return Table(_title(metrics), columns, tuple(rows))


def _title(metrics: Metrics) -> str:
    """Say what all figures of a run have in common."""
    found = [metric for figures in metrics["sources"].values() for metric in figures.values()]
    seeds = sorted({seed for metric in found for seed in metric["seeds"]})
    trained = f", {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}" if seeds else ""
    split = "" if found[0]["split"] == "scored" else f" of {found[0]['split']} pictures"
    return f"Reconstruction{split}: {found[0]['protocol']}{trained}"


def _comparisons(whose: str, comparisons: Sequence[Metrics]) -> Table:
    """Show how much more than others the reconstructions score, metric by metric."""
    rows = []
    for each in comparisons:
        shown = TITLES.get(each["with"], f"…{each['with'][-9:]}")
        for name, m in each["metrics"].items():
            is_more = (m["difference"] > 0) != m["lower_is_better"]
            is_told = m["p_adjusted"] is not None and m["p_adjusted"] < LEVEL
            better = (whose if is_more else shown) if is_told else "–"
            p = "–" if m["p_adjusted"] is None else f"{m['p_adjusted']:.2g}"
            measured = f"{m['difference']:+.3f}", interval_text(m), m["n"], p
            rows.append((_arrowed(name, name), shown, *measured, better))
    tests = {m["test"] for each in comparisons for m in each["metrics"].values()}
    title = f"{whose} less others, paired; p: {', '.join(sorted(tests))} (Benjamini–Hochberg over metrics)"
    title = "; ".join([title, *dict.fromkeys(note for each in comparisons for note in each.get("notes", []))])
    columns = ("metric", "less", "difference", "95 % CI", "n", "p", f"better (p < {LEVEL})")
    return Table(title[0].upper() + title[1:], columns, tuple(rows))


def _by_cell(cells: Sequence[Metrics]) -> Table:
    names = list(cells[0]["metrics"])
    rows = []
    for cell in cells:
        found = [cell["metrics"][name] for name in names]
        rows.append((cell["title"], *(f"{metric['value']:.3f}" for metric in found), found[0]["n"]))
    columns = ("cell", *(_arrowed(name, short(name)) for name in names), "n")
    return Table("By cell; intervals are in metrics.json", columns, tuple(rows))


def _arrowed(metric: str, words: str) -> str:
    return f"{words} ↓" if lower_is_better(metric) else words
