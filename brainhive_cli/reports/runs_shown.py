"""Runs of any command, grouped and laid out as the tables of a report."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any

from brainhive_cli.core import artifacts
from brainhive_cli.core.artifacts import Artifact
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.facts import (
    CellFacts,
    Difference,
    RetrievalFacts,
    WorkflowFacts,
    list_differences,
)
from brainhive_cli.core.files import resolve_below
from brainhive_cli.core.measurements import (
    ALL,
    BACKWARD,
    MODEL_HEADING,
    Measurements,
    Metric,
    add_footnotes,
    choose_headlines,
    list_footnotes,
    list_metric_caveats,
    mark,
    metric_title,
    name_rows,
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
from brainhive_cli.core.tables import Table, format_mean_sd, make_subject_seed_table
from brainhive_cli.reports.tables import (
    SIGNIFICANCE_LEGEND,
    BestLabels,
    Metrics,
    choose_best,
    choose_best_part,
    describe_adjustment,
    difference_table,
    get_significance_sign,
    metric_table,
    published_tables,
    render,
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


@dataclass
class ShownRun:
    """Finished run, or one variant of it, with its metrics sorted for pages and tables.

    A cell is a model of a subject and a seed.

    Attributes:
        label: Name of the run on the page.
        folder: Folder of the run.
        variant: Name of the variant that is shown, or "" for the whole run.
        command: Command that made the run.
        measurements: Measurements of the run, or of its variant.
        source: First source of the tested pictures, such as `brain`, or "".
        is_control: True if signals were shuffled or labels permuted.
        metrics: Metrics pooled over all cells, or the metrics of a single scope.
        variants: Pooled metrics of each variant of a sweep, by name with caveats.
        cells: Cells with metrics, of `source` if the run compares sources.
        typical_metrics: Pooled metrics, or else metrics of the first variant or cell.
        headlines: Names of the metrics that summarise the run.
        main_headline: Name of the most important metric.
        is_swept: True if several variants are shown, over which a mean is meaningless.
    """

    label: str
    folder: RunFolder
    variant: str = ""

    def __post_init__(self) -> None:
        """Read the measurements, and sort the metrics by variant and cell."""
        self.measurements = self.folder.measurements()
        if self.variant:
            self.measurements = self.measurements.select_variant(self.variant)
        self.command = self.folder.command
        facts = self.measurements.facts
        scopes = self.measurements.scopes
        self.source = str(next(iter(facts.sources), ""))
        self.is_control = (
            isinstance(facts, RetrievalFacts) and facts.control is not None
        )

        # a run with a single scope has no pooled metrics
        self.metrics = self.measurements.overall
        if not self.metrics and len(scopes) == 1:
            self.metrics = next(iter(scopes.values()))
        self.variants = list_part_metrics(self.measurements) if facts.variants else {}

        # select the cells that have metrics, of the first source
        self.cells = []
        candidates = [self.metrics] + list(self.variants.values())
        for name, cell_facts in facts.cells.items():
            metrics = scopes.get(name)
            if not metrics or cell_facts.source not in ("", self.source):
                continue
            subject, seed = name_subject_and_seed(cell_facts, metrics)
            self.cells.append(ShownCell(name, cell_facts, metrics, subject, seed))
            candidates.append(metrics)

        self.typical_metrics: Mapping[str, Metric] = next(filter(None, candidates), {})
        self.headlines = choose_headlines(list(self.typical_metrics))
        self.main_headline = choose_headline(self.typical_metrics)

        has_cells_of_variants = any(cell.facts.variant for cell in self.cells)
        self.is_swept = bool(self.variants) or (
            has_cells_of_variants and not self.variant
        )

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

    def values_by_row(self, metric_name: str) -> dict[str, list[float]]:
        """List the values of a metric for each row of a table about this run.

        - A sweep: a row for each variant, with a value for each cell if
          nothing is pooled.
        - Subjects or pooled metrics exist: a row for each subject, with its
          mean over seeds.
        - Otherwise: a row for each cell.

        Returns:
            Values by the name of the row.
        """
        values = defaultdict[str, list[float]](list)
        if self.variants:
            for name, metrics in self.variants.items():
                if metric_name in metrics:
                    values[name].append(metrics[metric_name].value)
            return values

        if not self.is_swept:
            means = self.subject_means(metric_name)
            if means or self.metrics:
                return {subject: [value] for subject, value in means.items()}

        for cell in self.cells:
            if metric_name in cell.metrics:
                row = cell.facts.variant if self.is_swept else cell.name
                values[row].append(cell.metrics[metric_name].value)
        return values

    def subject_means(self, metric_name: str) -> dict[str, float]:
        """Compute the mean of a metric over the seeds of each subject."""
        subject_values = defaultdict[str, list[float]](list)
        for cell in self.cells:
            if cell.subject and metric_name in cell.metrics:
                subject_values[cell.subject].append(cell.metrics[metric_name].value)
        return {subject: mean(values) for subject, values in subject_values.items()}


def choose_headline(metrics: Mapping[str, Metric]) -> str:
    """Return the name of the most important metric, or "" without metrics.

    It is the first headline with a chance level, or else the first headline.
    """
    names = choose_headlines(list(metrics))
    for name in names:
        if metrics[name].chance is not None:
            return name
    return names[0] if names else ""


def list_part_metrics(measurements: Measurements) -> dict[str, Mapping[str, Metric]]:
    """List the metrics of each variant, cell or scope of a run.

    - A sweep lists its variants.
    - Another run lists its cells (models of a subject and a seed).
    - A run without cells lists its scopes (named groups of metrics).

    Args:
        measurements: Metrics of the run by scope, and facts about the run.

    Returns:
        Metrics by name, with caveats (phrases that limit a number) that some of the
        others do not have.
    """
    facts = measurements.facts
    part_metrics = {}
    metric_lists = {}
    for name in facts.variants or facts.cells or measurements.scopes:
        scope_name = scope(name, ALL) if facts.variants else name
        metrics = measurements.scopes.get(scope_name)
        if metrics:
            part_metrics[name] = metrics
            metric_lists[name] = metrics.values()
    titles = name_rows(metric_lists)
    return {titles[name]: metrics for name, metrics in part_metrics.items()}


@dataclass(frozen=True)
class ShownCell:
    """Cell of a run: a model of a subject and a seed.

    Attributes:
        name: Name of the cell, which is also the scope of its metrics.
        facts: Facts of the cell.
        metrics: Metrics of the cell by name.
        subject: Subject of the signals, or "".
        seed: Seed of the training, or "".
    """

    name: str
    facts: CellFacts
    metrics: Mapping[str, Metric]
    subject: str
    seed: str


def name_subject_and_seed(
    cell_facts: CellFacts, metrics: Mapping[str, Metric]
) -> tuple[str, str]:
    """Return the subject and the seed of a cell (a trained model) as texts.

    Args:
        cell_facts: Facts about the cell.
        metrics: Metrics of the cell by name, which give a seed that `cell_facts` lacks.

    Returns:
        Subject, such as "sub-01", and seed. Each is "" if it is not known.
    """
    subject = str(cell_facts.subject or "")
    if isinstance(cell_facts.subject, int):
        subject = f"sub-{cell_facts.subject:02d}"
    if cell_facts.seed is not None:
        return subject, str(cell_facts.seed)
    seeds = next(iter(metrics.values())).seeds
    return subject, str(seeds[0]) if seeds else ""


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
    def metrics(self) -> dict[str, Metrics]:
        """Metrics of each run by its label."""
        return {shown_run.label: shown_run.metrics for shown_run in self.runs}

    @property
    def signs(self) -> dict[tuple[str, str], str]:
        """Signs of significance by the label of the second run and the metric."""
        return {
            (pair.second, pair.metric): get_significance_sign(pair)
            for pair in self.differences
        }


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
    # metrics of each run
    run_metrics = group.metrics
    runs_with_metrics = {
        label: metrics for label, metrics in run_metrics.items() if metrics
    }
    best = choose_best_run(group, runs_with_metrics)
    first_run = group.runs[0]
    note = explain_bold(best, "runs", group)
    if group.differences:
        note += f" {SIGNIFICANCE_LEGEND}: differs from {first_run.label} on the same "
        note += f"items; {describe_adjustment(group.differences)}"
    run_table = metric_table(
        "Run by run",
        run_metrics,
        "run",
        best=best.by_metric,
        signs=group.signs,
        note=note,
    )

    # protocol of each run, if they differ
    protocols = {
        label: next(iter(metrics.values())).protocol
        for label, metrics in runs_with_metrics.items()
    }
    is_same_protocol = len(set(protocols.values())) < 2
    protocol_rows = [] if is_same_protocol else list(protocols.items())

    # differences from the set-up of the first run
    first_set_up = first_run.measurements.facts.set_up
    set_up_rows = []
    for shown_run in group.runs[1:]:
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
    columns = ["subject"]
    run_means = []  # by subject, for each run
    caveats: list[str] = []
    for shown_run in group.runs:
        run_caveats = list_metric_caveats(shown_run.metrics.values())
        columns.append(mark(shown_run.label, run_caveats))
        run_means.append(shown_run.subject_means(name))
        caveats += run_caveats

    rows: list[list[Any]] = []
    for subject in dict.fromkeys(chain(*run_means)):
        rows.append([subject] + [means.get(subject) for means in run_means])
    if len(rows) > 1:
        spreads = [format_mean_sd(means.values()) for means in run_means]
        rows.append(["mean ± sd"] + spreads)
    title = f"{metric_title(name)} by subject, averaged over seeds"
    return Table(title, columns, rows, note=list_footnotes(caveats))


def _lay_out_run(shown_run: ShownRun) -> list[Table]:
    """Lay out the tables of a single run, from pooled metrics to single cells."""
    # result of each step, in words
    facts = shown_run.measurements.facts
    if isinstance(facts, WorkflowFacts) and shown_run.command == "workflow":
        columns = ("step", "result")
        return [Table("Steps", columns, tuple(facts.findings.items()), is_list=True)]

    # metrics pooled over cells, or of each source of pictures
    scopes = shown_run.measurements.scopes
    title = "All models"
    pooled_metrics: dict[str, Metrics] = {"all": shown_run.metrics}
    if shown_run.source:
        title = "All models, with noise ceiling, floor and baselines"
        pooled_metrics = {
            facts.titles.get(source, source): scopes[source] for source in facts.sources
        }
    tables = [metric_table(title, pooled_metrics, "source", list(shown_run.metrics))]
    tables += published_tables(facts.published, scopes)

    # further pooled scopes (groups of metrics), such as `all · backward`
    for scope_name, metrics in scopes.items():
        if scope_name.startswith(f"{ALL} · "):
            suffix = scope_name.removeprefix(f"{ALL} · ")
            title = f"All models: {suffix}"
            if suffix == BACKWARD:
                title = "Picture → signal (the reverse search), all models"
            tables.append(metric_table(title, {scope_name: metrics}))

    # variants of a sweep
    best = choose_best_part(facts, shown_run.variants)
    variant_table = metric_table(
        "By variant",
        shown_run.variants,
        "variant",
        best=best.by_metric,
        note=explain_bold(best, "variants"),
    )
    return tables + [variant_table] + _lay_out_cells(shown_run)


def choose_best_run(group: RunGroup, run_metrics: Mapping[str, Metrics]) -> BestLabels:
    """Choose the runs of a group whose values are bold in a table.

    Only the first run is tested against the others. If it has the best score, it must
    be significantly better than all others. If not, all runs with the best score must
    be significantly better than the first run.

    Args:
        group: The runs, and their differences.
        run_metrics: Metrics by the label of the run.

    Returns:
        Best runs by metric, if tests confirm them, and the phrase for their choice.
    """
    comparable = {
        label: run_metrics[label]
        for label in list_comparable(group)
        if label in run_metrics
    }
    validation = {
        shown_run.label: shown_run.measurements.facts.validation
        for shown_run in group.runs
    }
    best = choose_best(comparable, validation)

    # later runs and metrics in which the first run is significantly better or worse
    first_label = group.runs[0].label
    significant = [pair for pair in group.differences if pair.is_significant]
    first_wins = {(pair.second, pair.metric) for pair in significant if pair.is_better}
    first_losses = {(pair.second, pair.metric) for pair in significant} - first_wins

    # keep the best labels that the results confirm
    significant_labels = {}
    for name, labels in best.by_metric.items():
        is_first = first_label in labels
        results = first_wins if is_first else first_losses
        later_labels = comparable.keys() - {first_label} if is_first else labels
        if all((label, name) in results for label in later_labels):
            significant_labels[name] = labels
    return BestLabels(significant_labels, best.criterion)


def list_comparable(group: RunGroup) -> list[str]:
    """List the labels of the runs among which the best can be chosen.

    If comparisons were refused, these are the first run and the runs compared with it.
    """
    labels = list(group.metrics)
    if not group.refusals:
        return labels
    paired_labels = {labels[0]} | {pair.second for pair in group.differences}
    return [label for label in labels if label in paired_labels]


def explain_bold(best: BestLabels, kind: str, group: RunGroup | None = None) -> str:
    """Explain the bold values of a table, or why no value is bold.

    Args:
        best: The labels whose values are bold.
        kind: Name of the rows in the plural, such as `runs`.
        group: Group of runs, if rows are runs.
    """
    labels = list_comparable(group) if group and group.refusals else []
    return render("bold.txt", best=best, kind=kind, compared=labels)


def _lay_out_cells(shown_run: ShownRun) -> list[Table]:
    """Lay out the metrics of the cells of a run, if there are several.

    If all subjects are known and there are several seeds, each headline metric has a
    table of subjects by seeds. Otherwise a table has a row for each cell.
    """
    cells = shown_run.cells
    if len(cells) < 2:
        return []
    subject_rows = {}
    model_rows = {}
    all_metrics: list[Metric] = []
    for cell in cells:
        subject_rows[cell.subject] = cell.metrics
        model_rows[cell.name] = cell.metrics
        all_metrics += cell.metrics.values()
    seeds = list(dict.fromkeys(cell.seed for cell in cells))

    if len(seeds) > 1 and "" not in subject_rows:
        caveats = list_metric_caveats(all_metrics)
        note = add_footnotes(
            "±: standard deviation over seeds. In the last row: standard deviation of "
            "the means of the subjects.",
            caveats,
        )
        tables = []
        for name in shown_run.headlines:
            values: dict[str, dict[str, list[float]]] = {}
            for cell in cells:
                if name in cell.metrics:
                    subject_values = values.setdefault(cell.subject, {})
                    seed_values = subject_values.setdefault(cell.seed, [])
                    seed_values.append(cell.metrics[name].value)
            title = mark(f"{metric_title(name)} by subject and seed", caveats)
            tables.append(make_subject_seed_table(title, values, seeds, note))
        return tables

    # a row for each cell, which has the name of the subject if that is unique
    names = list(cells[0].metrics)
    if "" not in subject_rows and len(subject_rows) == len(cells):
        return [metric_table("By subject", subject_rows, "subject", names)]
    return [metric_table("By model", model_rows, MODEL_HEADING, names)]
