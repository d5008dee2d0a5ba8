"""The tables of a report: metrics with intervals, by subject and seed, run by run, and their differences."""

from collections.abc import Mapping, Sequence
from typing import Any

from brainhive_cli.core.measurements import ALL, Measurements, Metric, interval_text, scope
from brainhive_cli.core.set_up import SET_UP, differences
from brainhive_cli.core.tables import Cell, Table, brief, by_subject_and_seed, mean_sd, number, p_text
from brainhive_cli.measurement.comparison import LEVEL, is_difference
from brainhive_cli.measurement.metric_names import lower_is_better, shown, with_arrow
from brainhive_cli.reports.runs_shown import Compared, RunGroup, ShownRun

MARKS = ((0.001, "***"), (0.01, "**"), (LEVEL, "*"))
"""Signs of p values below each level."""
MEANING = "* p < .05, ** p < .01, *** p < .001, where 0 is not in the interval"


def tables_of(group: RunGroup) -> list[Table]:
    """Lay out all tables of some runs."""
    if len(group.runs) > 1:
        laid_out = [*_runs(group), _subjects_of_runs(group), _differences(group.compared), _set_ups(group)]
        return [table for table in laid_out if table.rows]
    (run,) = group.runs
    collected = [_by_source(run) if run.source else _metrics(run, ALL), *_directions(run), _variants(run)]
    return [table for table in [*collected, *_by_cell(run), _published(run)] if table.rows]


def mark_of(compared: Compared) -> str:
    """Give the sign of a difference; empty where none may be claimed."""
    ends = (compared.low, compared.high)
    return next((sign for level, sign in MARKS if is_difference(compared.p, *ends, level)), "")


def with_interval(metric: Metric | None, is_best: bool = False, mark: str = "") -> Cell:
    """Make a cell of a value, its interval below it."""
    if metric is None:
        return Cell("–")
    low_high = "" if metric.low is None else metric.interval_text()
    return Cell(number(metric.value), low_high, metric.value, is_best, mark)


def _metrics(run: ShownRun, name: str, title: str = "All cells together") -> Table:
    metrics = (run.metrics if name == ALL else run.found.scopes.get(name, {})) or {}
    known = _published_values(run) if name == ALL else {}
    has_these = any(metric.these_subjects for metric in metrics.values())
    has_seeds = any(metric.seed_sd is not None for metric in metrics.values())
    columns = ["metric", "value, 95 % CI", *(["published"] if known else [])]
    columns += [*(["these subjects"] if has_these else []), *(["sd over seeds"] if has_seeds else [])]
    shared = _shared(metrics, ("n", "pool"))
    rows = [
        [
            with_arrow(key),
            with_interval(metric),
            *([known.get(key)] if known else []),
            *([metric.these_subjects_text()] if has_these else []),
            *([metric.seed_sd] if has_seeds else []),
            _chance(metric),
            *(getattr(metric, each) for each in ("n", "pool") if each not in shared),
        ]
        for key, metric in metrics.items()
    ]
    first = next(iter(metrics.values()), None)
    columns += ["chance", *(each for each in ("n", "pool") if each not in shared)]
    return Table(title, columns, rows, note=_note(first, has_these, shared))


def _shared(metrics: Mapping[str, Metric], names: Sequence[str]) -> dict[str, Any]:
    """Find what is the same for all metrics, which a note says once."""
    collected = {name: {getattr(metric, name) for metric in metrics.values()} for name in names}
    return {name: values.pop() for name, values in collected.items() if len(values) == 1}


def _chance(metric: Metric) -> Cell:
    return Cell("–") if metric.chance is None else Cell(brief(metric.chance), value=metric.chance)


def _note(metric: Metric | None, has_these: bool, shared: Mapping[str, Any]) -> str:
    if metric is None:
        return ""
    said = [metric.protocol, *(f"{name} {value:,}" for name, value in shared.items() if value is not None)]
    if metric.low is not None:
        said.append(f"interval: {metric.interval}")
    if has_these:
        said.append("these subjects: over items (or units of alike ones) alone, which holds for them only")
    return "; ".join(said) + "."


def _by_source(run: ShownRun) -> Table:
    """Put each source of pictures next to the first: ceiling, floor and baselines."""
    sources, titles = run.found.notes["sources"], run.found.notes.get("titles", {})
    known, shared = _published_values(run), _shared(run.metrics, ("n",))
    rows = []
    for name, metric in run.metrics.items():
        some = [run.found.scopes[source].get(name) for source in sources]
        more = [known.get(name)] if known else []
        own = [] if "n" in shared else [metric.n]
        rows.append([with_arrow(name), *map(with_interval, some), *more, _chance(metric), *own])
    columns = ["metric", *(titles.get(each, each) for each in sources), *(["published"] if known else [])]
    first = next(iter(run.metrics.values()), None)
    columns += ["chance", *([] if "n" in shared else ["n"])]
    note = _note(first, False, shared)
    return Table("Measured, with ceiling, floor and baselines", columns, rows, note=note)


def _directions(run: ShownRun) -> list[Table]:
    """Show the scopes that are of everything, but measured in another way."""
    first = scope(ALL, "")
    names = [name for name in run.found.scopes if name.startswith(f"{first} · ")]
    return [_metrics(run, name, f"All cells together: {name.removeprefix(f'{first} · ')}") for name in names]


def _variants(run: ShownRun) -> Table:
    """Show the variants of a sweep."""
    names = list(dict.fromkeys(name for metrics in run.variants.values() for name in metrics))
    is_comparable = not run.found.notes.get("not_compared")
    best = _best(run.variants, names) if is_comparable else {}
    rows = [
        [label, *(with_interval(metrics.get(name), best.get(name) == label) for name in names)]
        for label, metrics in run.variants.items()
    ]
    note = "Bold: the best of a column." if best else "No best is marked: some variants cannot be compared."
    return Table("By variant", ["variant", *map(with_arrow, names)], rows, note=note)


def _by_cell(run: ShownRun) -> list[Table]:
    """Show subjects by seeds, or cells by metrics."""
    cells = run.cells
    subjects = list(dict.fromkeys(cell.subject for cell in cells))
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    if len(cells) < 2:
        return []
    if len(seeds) > 1 and "" not in subjects:
        return [_subject_by_seed(run, name, seeds) for name in run.headlines]
    names = list(cells[0].metrics)
    has_subjects = "" not in subjects and len(subjects) == len(cells)
    epochs = ["epoch"] if "epoch" in cells[0].about else []
    rows: list[list[Any]] = [
        [
            cell.subject if has_subjects else cell.name,
            *(cell.about[key] for key in epochs),
            *(with_interval(cell.metrics.get(name)) for name in names),
        ]
        for cell in cells
    ]
    spread = [mean_sd(c.metrics[name].value for c in cells if name in c.metrics) for name in names]
    rows.append(["mean ± sd", *("" for _ in epochs), *spread])
    heading = "subject" if has_subjects else "cell"
    note = f"±: standard deviation over {heading}s."
    columns = [heading, *epochs, *map(with_arrow, names)]
    return [Table(f"By {heading}, with 95 % intervals", columns, rows, note=note)]


def _subject_by_seed(run: ShownRun, metric: str, seeds: Sequence[str]) -> Table:
    values: dict[str, dict[str, list[float]]] = {}
    for cell in run.cells:
        if metric in cell.metrics:
            by_seed = values.setdefault(cell.subject, {})
            by_seed.setdefault(cell.seed, []).append(cell.metrics[metric].value)
    note = "±: standard deviation over seeds; in the last row over subjects, their seeds averaged."
    return by_subject_and_seed(f"{shown(metric)} by subject and seed", values, seeds, note)


def _published_values(run: ShownRun) -> Mapping[str, float]:
    """Give what was published, if it was measured with the run's set-up."""
    published = run.found.notes.get("published") or {}
    is_same = "source" in published and not published.get("differs")
    return (
        {key: value for key, value in published.items() if isinstance(value, int | float)} if is_same else {}
    )


def _published(run: ShownRun) -> Table:
    """Show what was published with another set-up, and how that differs."""
    published = run.found.notes.get("published") or {}
    by_variant = {"": published} if "source" in published else published
    rows = []
    others = {variant: each for variant, each in by_variant.items() if each.get("differs")}
    names = {
        key: None for each in others.values() for key, value in each.items() if isinstance(value, int | float)
    }
    for variant, each in others.items():
        values = [each.get(name) for name in names]
        rows.append([variant or run.label, *values, "; ".join(each["differs"])])
    source = next((each["source"] for each in others.values()), "")
    columns = ["run", *map(shown, names), "differs from this run"]
    return Table(f"Published with another set-up: {source}", columns, rows)


def _runs(group: RunGroup) -> list[Table]:
    """Put runs below one another; the best in bold, with signs of significance."""
    of_runs = {run.label: run.metrics for run in group.runs if run.metrics}
    names = list(dict.fromkeys(name for metrics in of_runs.values() for name in metrics))
    best = _best({label: each for label, each in of_runs.items() if label in group.comparable}, names)
    marks = {(each.second, each.metric): mark_of(each) for each in group.compared}
    rows = [
        [
            label,
            *(
                with_interval(metrics.get(name), best.get(name) == label, marks.get((label, name), ""))
                for name in names
            ),
            next(iter(metrics.values())).n,
        ]
        for label, metrics in of_runs.items()
    ]
    first = group.runs[0].label
    signs = f" {MEANING}: differs from {first}, paired by item, adjusted." if group.compared else ""
    return [
        Table(
            "Run by run, with 95 % intervals",
            ["run", *map(with_arrow, names), "n"],
            rows,
            note=f"{_bold(group)}{signs}",
        )
    ]


def _bold(group: RunGroup) -> str:
    """Say what is bold, where anything is."""
    if len(group.comparable) < 2:
        return "No best is marked: these runs cannot be compared."
    return "Bold: best." if not group.not_compared else f"Bold: best of {', '.join(group.comparable)}."


def _set_ups(group: RunGroup) -> Table:
    """Show in what each other run differs from the first."""
    first, *others = group.runs
    here = first.found.notes.get(SET_UP, {})
    rows = [
        [run.label, line] for run in others for line in differences(run.found.notes.get(SET_UP, {}), here)
    ]
    return Table(f"Set-ups: what differs from {first.label}", ["run", "in"], rows)


def _best(of_runs: Mapping[str, Mapping[str, Metric]], names: Sequence[str]) -> dict[str, str]:
    """Find whose value of each metric is best; of one run nothing is."""
    collected = {}
    for name in names:
        values = {label: metrics[name].value for label, metrics in of_runs.items() if name in metrics}
        if len(values) > 1:
            collected[name] = (min if lower_is_better(name) else max)(values, key=values.__getitem__)
    return collected


def _subjects_of_runs(group: RunGroup) -> Table:
    """Show the first headline of each subject in each run."""
    name = next(iter(group.runs[0].headlines), "")
    by_run = {run.label: run.by_subject(name) for run in group.runs}
    subjects = list(dict.fromkeys(subject for some in by_run.values() for subject in some))
    rows = [[subject, *(some.get(subject) for some in by_run.values())] for subject in subjects]
    if rows:
        rows.append(["mean ± sd", *(mean_sd(some.values()) for some in by_run.values())])
    return Table(f"{shown(name)} by subject; seeds averaged", ["subject", *by_run], rows)


def _differences(compared: Sequence[Compared]) -> Table:
    rows = [
        [
            with_arrow(each.metric),
            f"{each.first} – {each.second}",
            Cell(
                f"{each.difference:+.3f}",
                interval_text(each.low, each.high),
                each.difference,
                mark=mark_of(each),
            ),
            each.n,
            Cell(p_text(each.p), value=each.p),
        ]
        for each in compared
    ]
    tests = "; ".join(dict.fromkeys(each.test for each in compared))
    columns = ["metric", "runs", "difference, 95 % CI", "n", "p"]
    note = f"{MEANING}; {tests}; adjusted by Benjamini–Hochberg."
    return Table("Differences, paired by item and subject", columns, rows, note=note)


RIGHT = "none"
"""The variant without a control."""
SHUFFLED = "shuffled trials"


def control_effects(
    swept: Mapping[str, Measurements], shuffled: Mapping[str, Measurements]
) -> list[dict[str, Any]]:
    """List the effect of each control on each head.

    Args:
        swept: What eval-retrieval measured of each head, for a sweep over controls.
        shuffled: What it measured of each head without a control, and in draws with shuffled trials.

    Returns:
        head, control, its top1, and how much less that is than without it (`loss`): the value, with the 95 %
        interval `low` to `high`, and `these_subjects` over units alone. Those of shuffled trials are of the
        draws. Without a control `loss` is 0 and the interval is that of top1.
    """
    collected: list[dict[str, Any]] = []
    for head, measured in swept.items():
        right = measured.scopes[scope(RIGHT, ALL)]["top1"]
        ends = {"low": right.low, "high": right.high, "these_subjects": right.these_subjects}
        collected.append({"head": head, "control": RIGHT, "top1": right.value, "loss": 0.0, **ends})
        for pair in measured.notes["comparisons"]:
            if pair["pair"][0] == RIGHT:
                control = pair["pair"][1]
                top1 = measured.scopes[scope(control, ALL)]["top1"].value
                ends = {name: pair[name] for name in ("low", "high", "these_subjects")}
                collected.append(
                    {"head": head, "control": control, "top1": top1, "loss": pair["difference"], **ends}
                )
        drawn = shuffled[head].notes["control"]["metrics"]["top1"]
        ends = {
            "low": right.value - drawn["high"],
            "high": right.value - drawn["low"],
            "these_subjects": None,
        }
        loss = right.value - drawn["mean"]
        collected.append({"head": head, "control": SHUFFLED, "top1": drawn["mean"], "loss": loss, **ends})
    return collected


def effects_table(effects: list[dict[str, Any]], title: str) -> Table:
    """Lay out what `control_effects` found."""
    rows = []
    for each in effects:
        interval = interval_text(each["low"], each["high"])
        these = interval_text(*(each["these_subjects"] or (None, None)))
        is_right = each["control"] == RIGHT
        shown = ("–", f"{interval} (top-1)") if is_right else (f"{each['loss']:.3f}", interval)
        rows.append((each["head"], each["control"], each["top1"], *shown, these))
    columns = ("head", "control", "top-1", "loss", "95 % CI", "these subjects")
    return Table(title, columns, tuple(rows))
