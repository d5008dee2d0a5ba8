"""Runs of any command, grouped and laid out as the tables of a report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from statistics import mean

from brainhive_cli.core.base import Table, tabulate_subjects
from brainhive_cli.core.results import (
    ALL,
    BACKWARD,
    MODEL_HEADING,
    Difference,
    Measurements,
    add_footnotes,
    choose_headlines,
    list_differences,
    list_footnotes,
    list_metric_caveats,
    mark,
    metric_title,
    name_rows,
    name_seed,
)
from brainhive_cli.core.runs import (
    ENVIRONMENT_FILE,
    Artifact,
    Environment,
    RunFolder,
    artifacts,
    find as find_run,
    find_newest,
    is_run,
)
from brainhive_cli.reports.tables.tables import (
    NO_BEST,
    SIGNIFICANCE_LEGEND,
    BestLabels,
    Metrics,
    ResultRow,
    choose_best,
    describe_adjustment,
    difference_table,
    make_rows,
    published_tables,
    tabulate_rows,
)
from brainhive_cli.reports.templates import render


def find_shown_run(runs: Path, reference: str | None = None) -> RunFolder:
    """Find a finished run.

    If the newest run of a command is chosen, its name is printed.

    Args:
        runs: Folder of all runs.
        reference: Path of a run, its label, the end of its name, or the name of a
            command. A command, or None, stands for its newest run with metrics.

    Raises:
        MissingData: if there is no such run.
        RecipeError: if several runs have the name.
    """
    folder_names = {path.name for path in runs.glob("*/")}
    is_command = reference in folder_names and not is_run(runs / reference)
    if reference and not is_command:
        return find_run(runs, None, reference)
    return find_newest(
        runs, reference or None, _explain_lack, required_content="metrics"
    )


def _explain_lack(run_folder: RunFolder) -> str:
    """Return the reason why a run cannot be shown, or ""."""
    scopes = run_folder.measurements().scopes
    return "" if any(scopes.values()) else "without metrics"


@dataclass(frozen=True)
class CellRow(ResultRow):
    """Row of a cell: a model of a subject and a seed.

    Attributes:
        subject: Subject of the signals, or "".
        seed: Seed of the training, or "".
    """

    subject: str = ""
    seed: str = ""

    @property
    def seed_title(self) -> str:
        """Heading of a column for the seed."""
        return f"seed {self.seed}"


@dataclass(frozen=True)
class ShownRun:
    """Finished run, whose metrics are rows of pages and tables.

    Attributes:
        label: Name of the run on the page.
        folder: Folder of the run.
        shows_artifacts: False if a page leaves out the artifacts of the run.
    """

    label: str
    folder: RunFolder
    shows_artifacts: bool = True

    @property
    def command(self) -> str:
        """Command that made the run."""
        return self.folder.command

    @cached_property
    def measurements(self) -> Measurements:
        """Measurements of the run."""
        return self.folder.measurements()

    @cached_property
    def metrics(self) -> Metrics:
        """Metrics pooled over all cells, or the metrics of a single scope."""
        scopes = self.measurements.scopes
        if not self.measurements.overall and len(scopes) == 1:
            return next(iter(scopes.values()))
        return self.measurements.overall

    @cached_property
    def sources(self) -> list[ResultRow]:
        """Rows of the sources of pictures, of which the first is tested."""
        facts = self.measurements.facts
        scopes = self.measurements.scopes
        rows = []
        for source in facts.sources:
            rows.append(ResultRow(facts.titles.get(source, source), scopes[source]))
        return rows

    @cached_property
    def compared(self) -> list[ResultRow]:
        """Rows of the runs that a workflow compares, with their pooled metrics."""
        if not self.measurements.facts.compared:
            return []
        return list_part_rows(self.measurements)

    @cached_property
    def cells(self) -> list[CellRow]:
        """Rows of the cells with metrics, of the first source if there are several."""
        facts = self.measurements.facts
        source = next(iter(facts.sources), "")
        rows = []
        for name, cell in facts.cells.items():
            metrics = self.measurements.scopes.get(name)
            if metrics and cell.source in ("", source):
                rows.append(
                    CellRow(
                        name,
                        metrics,
                        subject=cell.subject_name,
                        seed=name_seed(cell, next(iter(metrics.values()))),
                    )
                )
        return rows

    @property
    def typical_metrics(self) -> Metrics:
        """Pooled metrics, or else metrics of the first compared run or cell."""
        rows = [self.metrics] + [row.metrics for row in self.compared + self.cells]
        return next(filter(None, rows), {})

    @property
    def headlines(self) -> list[str]:
        """Names of the metrics that summarise the run."""
        return choose_headlines(list(self.typical_metrics))

    @property
    def is_control(self) -> bool:
        """True if signals were shuffled or labels permuted."""
        return self.measurements.facts.is_control

    @property
    def name(self) -> str:
        """Label of the run, and the name of its folder if the user chose the label."""
        is_own_label = self.label == self.folder.label != ""
        return f"{self.label} ({self.folder.name})" if is_own_label else self.label

    @cached_property
    def artifacts(self) -> list[Artifact]:
        """Figures, tables and media that the run wrote, if a page shows them."""
        return artifacts.read(self.folder) if self.shows_artifacts else []

    @cached_property
    def environment(self) -> Environment | None:
        """Versions and device of the computation, or None without this file."""
        if not (self.folder.path / ENVIRONMENT_FILE).is_file():
            return None
        return self.folder.read_json(ENVIRONMENT_FILE, Environment)

    @cached_property
    def row(self) -> ResultRow:
        """Row of the whole run, with the means of its parts."""
        means: dict[str, list[float]] = {name: [] for name in self.metrics}
        for part in self.list_value_rows():
            for name, values in part.values.items():
                if name in means or not self.metrics:
                    means.setdefault(name, []).append(mean(values))
        validation = self.measurements.facts.validation
        return ResultRow(self.label, self.metrics, means, validation)

    @property
    def main_headline(self) -> str:
        """Name of the most important metric."""
        return choose_headline(self.typical_metrics)

    def list_value_rows(self) -> list[ResultRow]:
        """List the rows of a table about this run, which have values of each metric.

        - A workflow that compares runs: a row for each of them.
        - Subjects or pooled metrics exist: a row for each subject, with its
          mean over seeds.
        - Otherwise: a row for each cell.
        """
        has_subjects = bool(self.metrics) or any(cell.subject for cell in self.cells)
        values: dict[str, dict[str, list[float]]] = {}
        for row in self.compared or self.cells:
            label = row.label
            if isinstance(row, CellRow) and has_subjects:
                label = row.subject
            part = values.setdefault(label, {})
            for name, metric in row.metrics.items():
                part.setdefault(name, []).append(metric.value)
        if self.compared or not has_subjects:
            return [ResultRow(label, values=part) for label, part in values.items()]

        # average the seeds of each subject
        rows = []
        for subject, part in values.items():
            means = {name: [mean(scores)] for name, scores in part.items()}
            if subject:
                rows.append(ResultRow(subject, values=means))
        return rows

    def list_summaries(self) -> list[ResultRow]:
        """List the rows of all models together, or else of the parts of the run."""
        facts = self.measurements.facts
        pooled = set(facts.sources) or {ALL}
        metrics = {}
        for name, scope_metrics in self.measurements.scopes.items():
            if name.partition(" · ")[0] in pooled and name not in facts.cells:
                metrics[name] = scope_metrics
        if facts.cells:
            return make_rows(metrics) or list(self.cells)
        return make_rows(metrics or self.measurements.scopes)

    def list_scores(self, name: str) -> dict[str, dict[str, float]]:
        """List the values of a metric by subject and seed, averaged over folds."""
        values: dict[str, dict[str, list[float]]] = {}
        for cell in self.cells:
            if cell.subject and name in cell.metrics:
                subject_values = values.setdefault(cell.subject, {})
                seed_values = subject_values.setdefault(cell.seed_title, [])
                seed_values.append(cell.metrics[name].value)
        return {
            subject: {seed: mean(scores) for seed, scores in by_seed.items()}
            for subject, by_seed in values.items()
        }


def choose_headline(metrics: Metrics) -> str:
    """Return the name of the most important metric, or "" without metrics.

    It is the first headline with a chance level, or else the first headline.
    """
    names = choose_headlines(list(metrics))
    for name in names:
        if metrics[name].chance is not None:
            return name
    return names[0] if names else ""


def list_part_rows(measurements: Measurements) -> list[ResultRow]:
    """List the rows of the compared runs, cells or scopes of a run.

    - A workflow lists the runs that it compares, by their steps.
    - Another run lists its cells (models of a subject and a seed).
    - A run without cells lists its scopes (named groups of metrics).

    Args:
        measurements: Metrics of the run by scope, and facts about the run.

    Returns:
        Rows, whose labels have the caveats (phrases that limit a number) that some of
        the others do not have.
    """
    facts = measurements.facts
    metrics = {}
    for name in facts.compared or facts.cells or measurements.scopes:
        if measurements.scopes.get(name):
            metrics[name] = measurements.scopes[name]
    titles = name_rows({name: part.values() for name, part in metrics.items()})
    rows = []
    for name, part in metrics.items():
        validation = facts.compared.get(name, {})
        rows.append(ResultRow(titles[name], part, validation=validation))
    return rows


def list_headline_values(rows: Sequence[ResultRow]) -> tuple[str, list[float]]:
    """List the values of the most important metric of some rows.

    Returns:
        Name of the metric, or "" without metrics, and its values.
    """
    name = choose_headline(rows[0].metrics) if rows else ""
    return name, [row.metrics[name].value for row in rows if name in row.metrics]


def choose_best_part(measurements: Measurements) -> BestLabels:
    """Choose the best part of a run, or none if its parts were not compared."""
    if measurements.facts.not_compared:
        return NO_BEST
    return choose_best(list_part_rows(measurements))


@dataclass(frozen=True)
class RunGroup:
    """Runs that a report shows together.

    Attributes:
        runs: A single run, or several runs that are compared.
        differences: Differences between the first run and later runs, by metric.
        refusals: Reasons why some runs were not compared with the first run.
        title: Heading of the group, or "".
    """

    runs: Sequence[ShownRun]
    differences: Sequence[Difference] = ()
    refusals: Sequence[str] = ()
    title: str = ""

    @property
    def rows(self) -> list[ResultRow]:
        """Rows of the runs."""
        return [shown_run.row for shown_run in self.runs]

    @property
    def best(self) -> BestLabels:
        """Runs whose values are bold in a table.

        Only the first run is tested against the others. If it has the best score, it
        must be significantly better than all others. If not, all runs with the best
        score must be significantly better than the first run.
        """
        rows = self.comparable
        best = choose_best(rows)
        is_first_better = {
            (pair.second, pair.metric): pair.is_better
            for pair in self.differences
            if pair.is_significant
        }
        later_labels = [row.label for row in rows[1:] if row.metrics]
        confirmed = {}
        for name, labels in best.by_metric.items():
            is_first = self.runs[0].label in labels
            tested_labels = later_labels if is_first else labels
            results = [is_first_better.get((label, name)) for label in tested_labels]
            if all(result is is_first for result in results):
                confirmed[name] = labels
        return BestLabels(confirmed, best.criterion)

    @property
    def comparable(self) -> list[ResultRow]:
        """Rows of the first run, and of the runs that were compared with it."""
        labels = {self.runs[0].label} | {pair.second for pair in self.differences}
        return [row for row in self.rows if row.label in labels]

    def explain_bold(self) -> str:
        """Explain the bold values of a table of the runs, or why no value is bold."""
        labels = [row.label for row in self.comparable] if self.refusals else []
        return render("bold.txt", best=self.best, kind="runs", compared=labels)


def list_runs(groups: Sequence[RunGroup]) -> list[ShownRun]:
    """List the runs of all groups."""
    runs: list[ShownRun] = []
    for group in groups:
        runs += group.runs
    return runs


def lay_out_tables(group: RunGroup) -> list[Table]:
    """Lay out all tables of a group of runs, without empty tables."""
    is_single = len(group.runs) == 1
    tables = _lay_out_run(group.runs[0]) if is_single else _lay_out_runs(group)
    return [table for table in tables if table.rows]


def _lay_out_runs(group: RunGroup) -> list[Table]:
    """Lay out tables of several runs: metrics, subjects, differences and set-ups."""
    first_run, *later_runs = group.runs
    note = group.explain_bold()
    if group.differences:
        note += f" {SIGNIFICANCE_LEGEND}: differs from {first_run.label} on the same "
        note += f"items; {describe_adjustment(group.differences)}"
    run_table = tabulate_rows(
        "Run by run",
        group.rows,
        "run",
        best=group.best,
        differences=group.differences,
        note=note,
    )

    # protocol of each run, if they differ
    protocols = {
        row.label: next(iter(row.metrics.values())).protocol
        for row in group.rows
        if row.metrics
    }
    is_same_protocol = len(set(protocols.values())) < 2
    protocol_rows = [] if is_same_protocol else list(protocols.items())

    # differences from the set-up of the first run
    first_set_up = first_run.measurements.facts.set_up
    set_up_rows = []
    for shown_run in later_runs:
        set_up = shown_run.measurements.facts.set_up
        for line in list_differences(set_up, first_set_up):
            set_up_rows.append([shown_run.label, line])
    set_up_title = f"Set-up of each run compared with {first_run.label}"
    return [
        run_table,
        Table("Protocol of each run", ["run", "protocol"], protocol_rows),
        _lay_out_subjects(group),
        difference_table(group.differences),
        Table(set_up_title, ["run", "difference"], set_up_rows),
    ]


def _lay_out_subjects(group: RunGroup) -> Table:
    """Lay out the first headline metric of several runs, by subject and run."""
    name = next(iter(group.runs[0].headlines), "")
    columns = []
    scores: dict[str, dict[str, float]] = {}
    caveats: list[str] = []
    for shown_run in group.runs:
        run_caveats = list_metric_caveats(shown_run.metrics.values())
        caveats += run_caveats
        columns.append(mark(shown_run.label, run_caveats))
        for subject, by_seed in shown_run.list_scores(name).items():
            scores.setdefault(subject, {})[columns[-1]] = mean(by_seed.values())
    title = f"{metric_title(name)} by subject, averaged over seeds"
    return tabulate_subjects(title, columns, scores, list_footnotes(caveats))


def _lay_out_run(shown_run: ShownRun) -> list[Table]:
    """Lay out the tables of a single run, from pooled metrics to single cells."""
    # result of each step, in words, and the runs that are compared
    facts = shown_run.measurements.facts
    if facts.step_findings or facts.compared:
        findings = tuple(facts.step_findings.items())
        steps = Table("Steps", ("step", "result"), findings, is_list=True)
        return [steps, *_lay_out_compared(shown_run)]

    # metrics pooled over cells, or of each source of pictures
    title = "All models"
    rows = [ResultRow("all", shown_run.metrics)]
    if shown_run.sources:
        title = "All models, with noise ceiling, floor and baselines"
        rows = shown_run.sources
    scopes = shown_run.measurements.scopes
    tables = [tabulate_rows(title, rows, "source", list(shown_run.metrics))]
    tables += published_tables(facts.published, scopes)

    # further pooled scopes (groups of metrics), such as `all · backward`
    for scope_name, metrics in scopes.items():
        if scope_name.startswith(f"{ALL} · "):
            suffix = scope_name.removeprefix(f"{ALL} · ")
            title = f"All models: {suffix}"
            if suffix == BACKWARD:
                title = "Picture → signal (the reverse search), all models"
            tables.append(tabulate_rows(title, [ResultRow(scope_name, metrics)]))

    return tables + _lay_out_cells(shown_run)


def _lay_out_compared(shown_run: ShownRun) -> list[Table]:
    """Lay out the runs that a workflow compares, and their differences.

    A table has the runs of one step, one for each combination of its values.
    """
    facts = shown_run.measurements.facts
    rows_by_step: dict[str, list[ResultRow]] = {}
    for row in shown_run.compared:
        step = row.label.partition(" · ")[0]
        rows_by_step.setdefault(step, []).append(row)
    tables = []
    for step, rows in rows_by_step.items():
        best = NO_BEST if facts.not_compared else choose_best(rows)
        note = render("bold.txt", best=best, kind="variants", compared=[])
        title = f"By variant: {step}"
        tables.append(tabulate_rows(title, rows, "variant", best=best, note=note))
    return [*tables, difference_table(facts.comparisons)]


def _lay_out_cells(shown_run: ShownRun) -> list[Table]:
    """Lay out the metrics of the cells of a run, if there are several.

    If all subjects are known and there are several seeds, each headline metric has a
    table of subjects by seeds. Otherwise a table has a row for each cell.
    """
    cells = shown_run.cells
    if len(cells) < 2:
        return []
    subjects = {cell.subject for cell in cells}
    seeds = list(dict.fromkeys(cell.seed_title for cell in cells))
    if len(seeds) > 1 and "" not in subjects:
        metrics = chain.from_iterable(cell.metrics.values() for cell in cells)
        caveats = list_metric_caveats(metrics)
        note = add_footnotes(
            "±: standard deviation over seeds. In the last row: standard deviation of "
            "the means of the subjects.",
            caveats,
        )
        tables = []
        for name in shown_run.headlines:
            title = mark(f"{metric_title(name)} by subject and seed", caveats)
            scores = shown_run.list_scores(name)
            tables.append(tabulate_subjects(title, seeds, scores, note, True))
        return tables

    # a row for each cell, which has the name of the subject if that is unique
    names = list(cells[0].metrics)
    if "" not in subjects and len(subjects) == len(cells):
        rows = [replace(cell, label=cell.subject) for cell in cells]
        return [tabulate_rows("By subject", rows, "subject", names)]
    return [tabulate_rows("By model", cells, MODEL_HEADING, names)]
