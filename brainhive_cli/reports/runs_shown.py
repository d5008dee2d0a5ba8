"""The runs of a report, whatever command made them: opened, grouped, and laid out as
tables.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any

from brainhive_cli.core import artifacts
from brainhive_cli.core.artifacts import Artifact
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.facts import CellFacts, Difference, RetrievalFacts, differences
from brainhive_cli.core.files import below
from brainhive_cli.core.measurements import (
    ALL,
    Measurements,
    Metric,
    add_footnotes,
    caveats_of,
    headlines,
    list_footnotes,
    mark,
    name_rows,
    scope,
    shown,
)
from brainhive_cli.core.runs import (
    ENVIRONMENT,
    Environment,
    RunFolder,
    find as find_run,
    is_run,
    newest,
    of_variant,
)
from brainhive_cli.core.tables import Table, by_subject_and_seed, mean_sd
from brainhive_cli.reports.tables import (
    MEANING,
    BestCells,
    Metrics,
    adjustment_text,
    best_of_parts,
    choose_best,
    difference_table,
    mark_of,
    metric_table,
    published_tables,
    render,
)


def find(runs: Path, reference: str | None = None) -> tuple[RunFolder, str]:
    """Find a finished run of any command by what `runs.find` takes, or one variant of
    it as RUN:VARIANT.

    A command's name stands for its newest run with metrics, None for the newest of all;
    which is said.

    Returns:
        The run, and the variant where it has no run of its own.

    Raises:
        MissingData: if there is no such run.
        RecipeError: if several have the name, or it has no such variant.
    """
    # find the run: the newest one with metrics, or the one that the reference names
    name, variant = of_variant(reference)
    if not name or (
        name in {path.name for path in runs.glob("*/")} and not is_run(runs / name)
    ):
        run = newest(
            runs,
            name or None,
            lambda run: "" if any(run.measurements().scopes.values()) else "no metrics",
            needed="metrics",
        )
    else:
        run = find_run(runs, None, name)
    if not variant:
        return run, ""

    # find the variant: a run of its own, or scopes of this run
    measured = run.measurements()
    variant_runs = measured.facts.variants
    if variant in variant_runs:
        folder = below(
            run.path.parent, variant_runs[variant].run, source="the run of a variant,"
        )
        return find_run(runs, None, str(folder)), ""
    if not measured.of_variant(variant).scopes:
        known = sorted(
            {*variant_runs, *(scope.rpartition("/")[0] for scope in measured.scopes)}
            - {""}
        )
        raise RecipeError(
            f"{run.path.name} has no variant {variant!r}",
            f"variants: {', '.join(known) or 'none'}",
        )
    return run, variant


@dataclass
class ShownRun:
    """One finished run, or a variant of it.

    Attributes:
        label: Name of the run on the page.
        folder: Folder of the run.
        variant: The one variant of a sweep that is shown; empty for all of the run.
        command: The command that made it.
        measured: Measurements of the run, or of its variant.
        source: The source that the run is about, where it compares several; else empty.
        is_control: Whether it was tested with shuffled signals or permuted labels, so
            that it is no result.
        metrics: The metrics of everything together; of one cell where there is only
            one.
        variants: The metrics of each variant of a sweep, all cells together, by its
            name with its caveats.
        cells: Metrics of each cell and subject, of the source that the run is about.
        typical_metrics: Those of everything together; where nothing is pooled, of the
            first variant or cell.
        headlines: The names of the metrics that summarise it.
        main_headline: The name of the most important metric.
        is_swept: Whether it has several variants, whose mean says nothing.
    """

    label: str
    folder: RunFolder
    variant: str = ""

    def __post_init__(self) -> None:
        """Read the measurements, and sort them by what pages and tables show."""
        measured = self.folder.measurements()
        self.measured = measured.of_variant(self.variant) if self.variant else measured
        self.command = self.folder.command
        facts = self.measured.facts
        scopes = self.measured.scopes
        self.source = str(next(iter(facts.sources), ""))
        self.is_control = (
            isinstance(facts, RetrievalFacts) and facts.control is not None
        )

        # pooled metrics, or those of the only scope; variants; cells of the first
        # source
        is_pooled = bool(self.measured.overall) or len(scopes) != 1
        self.metrics = (
            self.measured.overall if is_pooled else next(iter(scopes.values()))
        )
        self.variants = list_parts(self.measured) if facts.variants else {}
        self.cells = [
            ShownCell(name, about, scopes[name], *subject_and_seed(about, scopes[name]))
            for name, about in facts.cells.items()
            if scopes.get(name) and (about.source or self.source) == self.source
        ]

        # the first metrics that there are, from pooled ones to those of a cell
        candidates = [
            self.metrics,
            *self.variants.values(),
            *(cell.metrics for cell in self.cells),
        ]
        self.typical_metrics: Mapping[str, Metric] = next(filter(None, candidates), {})
        self.headlines = headlines(list(self.typical_metrics))
        self.main_headline = choose_headline(self.typical_metrics)

        # cells of several variants make a sweep, unless one variant is shown
        is_of_variants = (
            any(cell.about.variant for cell in self.cells) and not self.variant
        )
        self.is_swept = bool(self.variants) or is_of_variants

    @cached_property
    def artifacts(self) -> list[Artifact]:
        """Figures, tables and media that the run wrote."""
        return artifacts.read(self.folder)

    @cached_property
    def environment(self) -> Environment | None:
        """Versions and device of the computation; None if the run has no such file."""
        # the file is optional
        is_there = (self.folder.path / ENVIRONMENT).is_file()
        return self.folder.read_json(ENVIRONMENT, Environment) if is_there else None

    def parts(self, metric: str) -> dict[str, list[float]]:
        """List a metric's values by the row of a table.

        Rows are the variants of a sweep; or subjects, with the mean over seeds; or
        cells, if no cell is of a single subject and nothing is pooled.
        """
        # variants that are pooled
        if self.variants:
            return {
                name: [metrics[metric].value]
                for name, metrics in self.variants.items()
                if metric in metrics
            }

        # subjects, if there are any or everything is pooled
        if not self.is_swept:
            subject_means = {
                subject: [value] for subject, value in self.by_subject(metric).items()
            }
            if subject_means or self.metrics:
                return subject_means

        # cells, by their variant or their name
        values = defaultdict[str, list[float]](list)
        for cell in (cell for cell in self.cells if metric in cell.metrics):
            row = cell.about.variant if self.is_swept else cell.name
            values[row].append(cell.metrics[metric].value)
        return values

    def by_subject(self, metric: str) -> dict[str, float]:
        """Average a metric over the seeds of each subject."""
        # seeds of a subject are averaged, so that subjects count alike
        subject_values = defaultdict[str, list[float]](list)
        for cell in self.cells:
            if cell.subject and metric in cell.metrics:
                subject_values[cell.subject].append(cell.metrics[metric].value)
        return {subject: mean(values) for subject, values in subject_values.items()}


def choose_headline(metrics: Mapping[str, Metric]) -> str:
    """Name the most important metric: the first with chance, since smooth pictures do
    well in others.
    """
    names = headlines(list(metrics))
    return next(
        (name for name in names if metrics[name].chance is not None),
        next(iter(names), ""),
    )


def list_parts(measured: Measurements) -> dict[str, Mapping[str, Metric]]:
    """List the metrics of the variants of a sweep, by their names with their caveats;
    else of the cells.
    """
    # pooled scopes of variants, else cells, else all scopes
    names = {name: scope(name, ALL) for name in measured.facts.variants}
    names = names or {name: name for name in measured.facts.cells or measured.scopes}
    parts = {
        name: metrics
        for name, key in names.items()
        if (metrics := measured.scopes.get(key))
    }
    # names with the caveats that not all parts have
    part_names = name_rows({name: metrics.values() for name, metrics in parts.items()})
    return {part_names[name]: metrics for name, metrics in parts.items()}


@dataclass(frozen=True)
class ShownCell:
    """Cell of a run.

    Attributes:
        name: Scope of its metrics.
        about: Its facts.
        metrics: Its metrics by name.
        subject: Subject of the signals; empty if the facts have none.
        seed: Seed of the training; empty if the facts and metrics have none.
    """

    name: str
    about: CellFacts
    metrics: Mapping[str, Metric]
    subject: str
    seed: str


def subject_and_seed(
    about: CellFacts, metrics: Mapping[str, Metric]
) -> tuple[str, str]:
    """Name the subject and the training's seed of metrics; either is empty if it is not
    known.

    Args:
        about: Facts of a cell.
        metrics: Metrics of the cell, or further ones that were measured of it.
    """
    # a subject's number becomes its BIDS name
    subject = about.subject
    seeds = next(iter(metrics.values())).seeds
    seed = str(next(iter(seeds), "") if about.seed is None else about.seed)
    return (
        f"sub-{subject:02d}" if isinstance(subject, int) else str(subject or "")
    ), seed


@dataclass(frozen=True)
class RunGroup:
    """Runs that are shown together.

    Attributes:
        runs: One, or several that are compared.
        compared: Differences of the first run from each later run, metric by metric.
        not_compared: Reasons why runs were not compared.
        title: The heading; by default what the runs are.
    """

    runs: Sequence[ShownRun]
    compared: Sequence[Difference] = ()
    not_compared: Sequence[str] = ()
    title: str = ""


def tables_of(group: RunGroup) -> list[Table]:
    """Lay out all tables of a group of runs."""
    # kinds of tables for which the runs have no values are empty
    tables = (
        _lay_out_runs(group) if len(group.runs) > 1 else _lay_out_run(group.runs[0])
    )
    return [table for table in tables if table.rows]


def _lay_out_runs(group: RunGroup) -> list[Table]:
    """Lay out several runs: side by side, by subject, their differences, and those of
    their set-ups.
    """
    # one row per run, the best in bold, with signs of significance
    run_metrics = {run.label: run.metrics for run in group.runs}
    best = best_of_runs(
        group, {label: metrics for label, metrics in run_metrics.items() if metrics}
    )
    note = bold_note(best, "runs", group)
    if group.compared:
        note += f" {MEANING}: differs from {group.runs[0].label}, paired by item"
        note += f"; {adjustment_text(group.compared)}"
    marks = {(pair.second, pair.metric): mark_of(pair) for pair in group.compared}
    runs = metric_table(
        "Run by run", run_metrics, "run", best=best[0], marks=marks, note=note
    )

    # the first headline metric, one row per subject and one column per run
    name = next(iter(group.runs[0].headlines), "")
    caveats = [caveats_of(run.metrics.values()) for run in group.runs]
    run_values = {
        mark(run.label, listed): run.by_subject(name)
        for run, listed in zip(group.runs, caveats, strict=True)
    }
    subjects = list(
        dict.fromkeys(subject for values in run_values.values() for subject in values)
    )
    rows = [
        [subject, *(values.get(subject) for values in run_values.values())]
        for subject in subjects
    ]
    if len(rows) > 1:
        rows.append(
            ["mean ± sd", *(mean_sd(values.values()) for values in run_values.values())]
        )
    subject_table = Table(
        f"{shown(name)} by subject; seeds averaged",
        ["subject", *run_values],
        rows,
        note=list_footnotes(chain(*caveats)),
    )

    # the protocol of each run, where they differ, and what set-ups differ in
    first, *rest = group.runs
    protocols = {
        run.label: next(iter(run.metrics.values())).protocol
        for run in group.runs
        if run.metrics
    }
    protocol_rows = list(protocols.items()) if len({*protocols.values()}) > 1 else []
    lines = [
        [run.label, line]
        for run in rest
        for line in differences(run.measured.facts.set_up, first.measured.facts.set_up)
    ]
    return [
        runs,
        Table("Protocol of each run", ["run", "protocol"], protocol_rows),
        subject_table,
        difference_table(group.compared),
        Table(f"Set-ups: what differs from {first.label}", ["run", "in"], lines),
    ]


def _lay_out_run(run: ShownRun) -> list[Table]:
    """Lay out a single run: everything together, variants, cells, and published
    values.
    """
    # everything together: all metrics, or the sources of pictures side by side with
    # ceiling and baselines
    facts = run.measured.facts
    scopes = run.measured.scopes
    title = (
        "Measured, with ceiling, floor and baselines"
        if run.source
        else "All cells together"
    )
    columns = {
        facts.titles.get(source, source): scopes[source] for source in facts.sources
    }
    names = list(run.metrics)
    overall = metric_table(
        title, columns if run.source else {"all": run.metrics}, "from", names
    )

    # everything together, measured in further ways (`all · backward`)
    begin = f"{ALL} · "
    further = [
        metric_table(f"All cells together: {name.removeprefix(begin)}", {name: metrics})
        for name, metrics in scopes.items()
        if name.startswith(begin)
    ]

    # the variants of a sweep by metrics, the best in bold
    best = best_of_parts(facts, run.variants)
    note = bold_note(best, "variants")
    variants = metric_table(
        "By variant", run.variants, "variant", best=best[0], note=note
    )
    return [
        overall,
        *published_tables(facts.published),
        *further,
        variants,
        *_cell_tables(run),
    ]


def best_of_runs(group: RunGroup, run_metrics: Mapping[str, Metrics]) -> BestCells:
    """Choose the best of the runs of a group that can be compared."""
    # a run whose comparison was refused is no candidate
    comparable = {
        label: run_metrics[label]
        for label in list_comparable(group)
        if label in run_metrics
    }
    validation = {run.label: run.measured.facts.validation for run in group.runs}
    best, chosen = choose_best(comparable, validation)

    # a best is significantly better: the first run than all others, another one than
    # the first
    first = group.runs[0].label
    first_is_better = {
        (pair.second, pair.metric): pair.is_better
        for pair in group.compared
        if pair.is_significant
    }
    labels = {}
    for name, candidates in best.items():
        is_first = first in candidates
        compared_labels = (
            [label for label in comparable if label != first]
            if is_first
            else candidates
        )
        if all(
            first_is_better.get((label, name)) is is_first for label in compared_labels
        ):
            labels[name] = candidates
    return labels, chosen


def list_comparable(group: RunGroup) -> list[str]:
    """List the labels of the runs among which a best is chosen: all, or those that were
    compared.
    """
    # without refusals all runs are comparable
    labels = [run.label for run in group.runs]
    paired = {labels[0], *(pair.second for pair in group.compared)}
    return [label for label in labels if not group.not_compared or label in paired]


def bold_note(best: BestCells, kind: str, group: RunGroup | None = None) -> str:
    """Explain what bold marks in a table and which runs were compared, or why nothing
    is marked.
    """
    # nothing is bold without evidence
    compared = list_comparable(group) if group and group.not_compared else []
    return render("bold.txt", best=best, kind=kind, compared=compared)


def _cell_tables(run: ShownRun) -> list[Table]:
    """Lay out subjects by seeds, or cells by metrics."""
    cells = run.cells
    subjects = list(dict.fromkeys(cell.subject for cell in cells))
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    if len(cells) < 2:
        return []

    # several seeds: one table per headline, subjects by seeds
    if len(seeds) > 1 and "" not in subjects:
        note = (
            "±: standard deviation over seeds; in the last row over subjects, their "
            "seeds averaged."
        )
        caveats = caveats_of(chain(*(cell.metrics.values() for cell in cells)))
        note = add_footnotes(note, caveats)
        tables = []
        for name in run.headlines:
            values = defaultdict[str, Any](partial(defaultdict, list))
            for cell in (cell for cell in cells if name in cell.metrics):
                values[cell.subject][cell.seed].append(cell.metrics[name].value)
            title = mark(f"{shown(name)} by subject and seed", caveats)
            tables.append(by_subject_and_seed(title, values, seeds, note))
        return tables

    # one seed: one row per cell, named by its subject if no other cell has it
    has_subjects = "" not in subjects and len(subjects) == len(cells)
    heading = "subject" if has_subjects else "cell"
    rows = {cell.subject if has_subjects else cell.name: cell.metrics for cell in cells}
    return [metric_table(f"By {heading}", rows, heading, list(cells[0].metrics))]
