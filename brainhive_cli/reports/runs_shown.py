"""Runs of any command, grouped and laid out as the tables of a report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from statistics import mean

from brainhive_cli.core import artifacts
from brainhive_cli.core.artifacts import Artifact
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.facts import Difference, list_differences
from brainhive_cli.core.files import resolve_below
from brainhive_cli.core.measurements import (
    ALL,
    BACKWARD,
    MODEL_HEADING,
    Measurements,
    add_footnotes,
    choose_headlines,
    list_footnotes,
    list_metric_caveats,
    mark,
    metric_title,
    name_rows,
    name_seed,
    scope,
)
from brainhive_cli.core.runs import (
    ENVIRONMENT_FILE,
    Environment,
    RunFolder,
    find as find_run,
    find_newest,
    is_run,
    split_variant,
)
from brainhive_cli.core.tables import Table, tabulate_subjects
from brainhive_cli.reports.tables import (
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
    render,
    tabulate_rows,
)


def find_shown_run(runs: Path, reference: str | None = None) -> tuple[RunFolder, str]:
    """Find a finished run, or one variant of a sweep.

    If the newest run of a command is chosen, its name is printed.

    Args:
        runs: Folder of all runs.
        reference: Path of a run, its label, the end of its name, or the name of a
            command, also with `:VARIANT`. A command, or None, stands for its newest run
            with metrics.

    Returns:
        The run, and the name of the variant. The name is "" if no variant is requested,
        or if the variant has a run of its own.

    Raises:
        MissingData: if there is no such run.
        RecipeError: if several runs have the name, or if the run has no such variant.
    """
    name, variant = split_variant(reference, runs)
    folder_names = {path.name for path in runs.glob("*/")}
    is_command = name in folder_names and not is_run(runs / name)
    if not name or is_command:
        run_folder = find_newest(
            runs, name or None, _explain_lack, required_content="metrics"
        )
    else:
        run_folder = find_run(runs, None, name)
    if not variant:
        return run_folder, ""

    # a variant of a training is a run of its own
    measurements = run_folder.measurements()
    variants = measurements.facts.variants
    if variant in variants:
        folder = resolve_below(
            run_folder.path.parent,
            variants[variant].run,
            source="the run of a variant,",
        )
        return find_run(runs, None, str(folder)), ""

    # any other variant has scopes in this run
    if not measurements.select_variant(variant).scopes:
        variant_names = set(variants)
        for scope_name in measurements.scopes:
            variant_names.add(scope_name.rpartition("/")[0])
        variant_list = ", ".join(sorted(variant_names - {""}))
        raise RecipeError(
            f"{run_folder.path.name} has no variant {variant!r}",
            f"variants: {variant_list or 'none'}",
        )
    return run_folder, variant


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
        variant: Variant of the settings in a sweep, or "".
    """

    subject: str = ""
    seed: str = ""
    variant: str = ""

    @property
    def seed_title(self) -> str:
        """Heading of a column for the seed."""
        return f"seed {self.seed}"


@dataclass(frozen=True)
class ShownRun:
    """Finished run, or one variant of it, whose metrics are rows of pages and tables.

    Attributes:
        label: Name of the run on the page.
        folder: Folder of the run.
        variant: Name of the variant that is shown, or "" for the whole run.
    """

    label: str
    folder: RunFolder
    variant: str = ""

    @property
    def command(self) -> str:
        """Command that made the run."""
        return self.folder.command

    @cached_property
    def measurements(self) -> Measurements:
        """Measurements of the run, or of its variant."""
        measurements = self.folder.measurements()
        if self.variant:
            return measurements.select_variant(self.variant)
        return measurements

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
    def variants(self) -> list[ResultRow]:
        """Rows of the variants of a sweep that have metrics pooled over their cells."""
        return (
            list_part_rows(self.measurements)
            if self.measurements.facts.variants
            else []
        )

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
                        variant=cell.variant,
                    )
                )
        return rows

    @property
    def typical_metrics(self) -> Metrics:
        """Pooled metrics, or else metrics of the first variant or cell."""
        rows = [self.metrics] + [row.metrics for row in self.variants + self.cells]
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
        """Figures, tables and media that the run wrote."""
        return artifacts.read(self.folder)

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

    @property
    def is_swept(self) -> bool:
        """True if several variants are shown, over which a mean is meaningless."""
        has_cells_of_variants = any(cell.variant for cell in self.cells)
        return bool(self.variants) or (has_cells_of_variants and not self.variant)

    def list_value_rows(self) -> list[ResultRow]:
        """List the rows of a table about this run, which have values of each metric.

        - A sweep: a row for each variant, with a value for each cell if
          nothing is pooled.
        - Subjects or pooled metrics exist: a row for each subject, with its
          mean over seeds.
        - Otherwise: a row for each cell.
        """
        has_subjects = bool(self.metrics) or any(cell.subject for cell in self.cells)
        values: dict[str, dict[str, list[float]]] = {}
        for row in self.variants or self.cells:
            label = row.label
            if isinstance(row, CellRow) and self.is_swept:
                label = row.variant
            elif isinstance(row, CellRow) and has_subjects:
                label = row.subject
            part = values.setdefault(label, {})
            for name, metric in row.metrics.items():
                part.setdefault(name, []).append(metric.value)
        if self.is_swept or not has_subjects:
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
        if facts.variants or facts.cells:
            return make_rows(metrics) or self.variants or list(self.cells)
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
    """List the rows of the variants, cells or scopes of a run.

    - A sweep lists its variants.
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
    for name in facts.variants or facts.cells or measurements.scopes:
        scope_name = scope(name, ALL) if facts.variants else name
        if measurements.scopes.get(scope_name):
            metrics[name] = measurements.scopes[scope_name]
    titles = name_rows({name: part.values() for name, part in metrics.items()})
    rows = []
    for name, part in metrics.items():
        variant = facts.variants.get(name)
        validation = variant.validation if variant else {}
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
    # result of each step, in words
    facts = shown_run.measurements.facts
    if facts.step_findings:
        findings = tuple(facts.step_findings.items())
        return [Table("Steps", ("step", "result"), findings, is_list=True)]

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

    # variants of a sweep
    best = choose_best_part(shown_run.measurements)
    note = render("bold.txt", best=best, kind="variants", compared=[])
    variants = shown_run.variants
    tables.append(
        tabulate_rows("By variant", variants, "variant", best=best, note=note)
    )
    return tables + _lay_out_cells(shown_run)


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
