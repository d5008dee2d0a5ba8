"""Tables for papers, as Markdown or LaTeX: mean ± sd, the best in bold, signs of significance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Literal

from brainhive_cli.core.caveats import merge_caveats
from brainhive_cli.measurement.metric_names import lower_is_better, with_arrow
from brainhive_cli.reports.numbers import brief
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun
from brainhive_cli.reports.tables import MEANING, mark_of

Format = Literal["md", "tex"]
SPECIAL = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}
SPECIAL |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL |= {"±": r"$\pm$", "↓": r"$\downarrow$", "–": "--", "·": r"$\cdot$"}
SPECIAL |= {"′": "$'$", "<": "$<$", ">": "$>$"}
"""What LaTeX writes otherwise."""


@dataclass(frozen=True)
class Value:
    """One cell: a mean, and its standard deviation where it is of several subjects."""

    mean: float
    sd: float | None = None
    is_best: bool = False
    mark: str = ""

    @property
    def text(self) -> str:
        """Mean ± sd, in three decimals."""
        return f"{self.mean:.3f}" + ("" if self.sd is None else f" ± {self.sd:.3f}")


@dataclass(frozen=True)
class PaperTable:
    """A table with all that its caption must say.

    Attributes:
        caption: What the values are of, in sentences.
        columns: Names of metrics.
        rows: What a row is of, and its values; None where there is none.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Value | None]]]


def paper_table(group: RunGroup) -> PaperTable:
    """Make the table of some runs: a row a run; of a single run, a row a subject and their mean."""
    runs = group.runs
    names = list(dict.fromkeys(name for run in runs for name in _metrics(run)))
    if len(runs) == 1:
        rows = _subjects(runs[0], names)
    else:
        rows = [(run.label, [_value(run, name) for name in names]) for run in runs]
        rows = _marked(rows, names, group)
    return PaperTable(_caption(group), [with_arrow(name) for name in names], rows)


def _metrics(run: ShownRun) -> list[str]:
    measured = [*run.variants.values(), *(cell.metrics for cell in run.cells)]
    return list(run.metrics) or list(dict.fromkeys(name for metrics in measured for name in metrics))


def _value(run: ShownRun, name: str) -> Value | None:
    """Take the mean over subjects where it is known of each; else the run's own value."""
    some = [mean(values) for values in run.parts(name).values()]
    metric = run.metrics.get(name)
    if len(some) > 1 or (some and metric is None):
        return _of(some)
    return None if metric is None else Value(metric.value, metric.seed_sd)


def _of(values: Sequence[float]) -> Value:
    return Value(mean(values), stdev(values) if len(values) > 1 else None)


def _subjects(run: ShownRun, names: Sequence[str]) -> list[tuple[str, Sequence[Value | None]]]:
    by_name = {name: run.parts(name) for name in names}
    subjects = list(dict.fromkeys(subject for some in by_name.values() for subject in some))
    rows: list[tuple[str, Sequence[Value | None]]] = [
        (subject, [_of(by_name[name][subject]) if subject in by_name[name] else None for name in names])
        for subject in subjects
    ]
    if run.is_swept:
        return rows
    return [
        *(rows if len(rows) > 1 else []),
        ("mean" if len(rows) > 1 else run.label, [_value(run, n) for n in names]),
    ]


def _marked(
    rows: Sequence[tuple[str, Sequence[Value | None]]], names: Sequence[str], group: RunGroup
) -> list[tuple[str, Sequence[Value | None]]]:
    """Put the best of each column in bold, and sign what differs from the first run."""
    marks = {(each.second, each.metric): mark_of(each) for each in group.compared}
    best = []
    for place, name in enumerate(names):
        values = {label: some[place] for label, some in rows if label in group.comparable}
        means = [value.mean for value in values.values() if value is not None]
        best.append((min if lower_is_better(name) else max)(means) if len(means) > 1 else None)
    return [
        (
            label,
            [
                each
                and Value(
                    each.mean,
                    each.sd,
                    label in group.comparable and each.mean == best[place],
                    marks.get((label, name), ""),
                )
                for place, (name, each) in enumerate(zip(names, some, strict=True))
            ],
        )
        for label, some in rows
    ]


def _caption(group: RunGroup) -> str:
    first = group.runs[0]
    metrics = first.metrics or next((cell.metrics for cell in first.cells), {})
    metric = next(iter(metrics.values()), None)
    subjects = len({cell.subject for cell in first.cells if cell.subject})
    said = []
    if metric is not None:
        pool = f" among {metric.pool} candidates" if metric.pool else ""
        chance = (
            "" if metric.chance is None else f" ({with_arrow(metric.name)} at chance: {brief(metric.chance)})"
        )
        said.append(f"{metric.protocol}; {metric.n} {metric.split} items{pool}{chance}.")
    if subjects > 1:
        said.append(f"Mean ± standard deviation over {subjects} subjects; seeds averaged.")
    elif any(run_metric.seed_sd is not None for run in group.runs for run_metric in run.metrics.values()):
        said.append("One subject: value ± standard deviation over the seeds of its trainings.")
    elif len(group.runs) == 1 and not first.metrics and len(first.cells) > 1:
        said.append(f"Mean ± standard deviation over cells, {len(first.cells)} in all.")
    if len(group.runs) > 1:
        labels = group.comparable
        among = f", among {', '.join(labels)}" if group.not_compared else ""
        no_best = "No best is marked: these runs cannot be compared."
        said.append(f"Bold: best of a column{among}." if len(labels) > 1 else no_best)
    said += dict.fromkeys(f"{note[:1].upper()}{note[1:]}." for each in group.compared for note in each.notes)
    if group.compared:
        tests = "; ".join(dict.fromkeys(each.test for each in group.compared))
        said.append(f"{MEANING}: differs from {first.label}, paired by item ({tests}; Benjamini–Hochberg).")
    if caveats := merge_caveats(*(run.found.caveats for run in group.runs)):
        said.append(f"Caveats: {', '.join(caveats)}.")
    return " ".join(said)


def markdown(table: PaperTable) -> str:
    """Write a table as Markdown."""

    def cell(value: Value | None) -> str:
        if value is None:
            return "–"
        text = f"**{value.text}**" if value.is_best else value.text
        return text + value.mark.replace("*", r"\*")

    head = f"| | {' | '.join(table.columns)} |"
    lines = [head, f"|---|{'---:|' * len(table.columns)}"]
    lines += [f"| {_plain(label)} | {' | '.join(map(cell, values))} |" for label, values in table.rows]
    return "\n".join([*lines, "", table.caption.replace("*", r"\*")]) + "\n"


def _plain(label: str) -> str:
    return label.replace("|", r"\|")


def latex(table: PaperTable) -> str:
    """Write a table as LaTeX, for the package booktabs."""

    def cell(value: Value | None) -> str:
        if value is None:
            return "--"
        text = _escaped(value.text)
        bold = rf"\textbf{{{text}}}" if value.is_best else text
        return bold + (f"$^{{{value.mark}}}$" if value.mark else "")

    head = " & ".join(["", *map(_escaped, table.columns)])
    body = "\n".join(
        f"{' & '.join([_escaped(label), *map(cell, values)])} \\\\" for label, values in table.rows
    )
    return (
        "\\begin{table}\n\\centering\n"
        f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}\n\\toprule\n{head} \\\\\n\\midrule\n{body}\n"
        f"\\bottomrule\n\\end{{tabular}}\n\\caption{{{_escaped(table.caption)}}}\n\\end{{table}}\n"
    )


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(letter, letter) for letter in text)


WRITERS: dict[Format, Callable[[PaperTable], str]] = {"md": markdown, "tex": latex}
"""How each format is written."""
