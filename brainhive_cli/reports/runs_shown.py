"""The runs of a report, opened: their metrics, artifacts and recipe, whatever command
made them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean

from brainhive_cli.core import artifacts
from brainhive_cli.core.artifacts import Artifact
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.facts import Cell, Difference, RetrievalFacts
from brainhive_cli.core.files import below
from brainhive_cli.core.measurements import ALL, Measurements, Metric, name_rows, scope
from brainhive_cli.core.runs import ENVIRONMENT, Environment, RunFolder, is_run, newest
from brainhive_cli.core.runs import find as find_run
from brainhive_cli.core.sweep import of_variant
from brainhive_cli.measurement.metric_names import headlines


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
        self.command, facts, scopes = (
            self.folder.command,
            self.measured.facts,
            self.measured.scopes,
        )
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
        values: dict[str, list[float]] = {}
        for cell in (cell for cell in self.cells if metric in cell.metrics):
            row = cell.about.variant if self.is_swept else cell.name
            values.setdefault(row, []).append(cell.metrics[metric].value)
        return values

    def by_subject(self, metric: str) -> dict[str, float]:
        """Average a metric over the seeds of each subject."""
        # seeds of a subject are averaged, so that subjects count alike
        subject_values: dict[str, list[float]] = {}
        for cell in (
            cell for cell in self.cells if cell.subject and metric in cell.metrics
        ):
            subject_values.setdefault(cell.subject, []).append(
                cell.metrics[metric].value
            )
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
    about: Cell
    metrics: Mapping[str, Metric]
    subject: str
    seed: str


def subject_and_seed(about: Cell, metrics: Mapping[str, Metric]) -> tuple[str, str]:
    """Name the subject and the training's seed of metrics; either is empty if it is not
    known.

    Args:
        about: Facts of a cell.
        metrics: Metrics of the cell, or further ones that were measured of it.
    """
    # a subject's number becomes its BIDS name
    subject, seeds = about.subject, next(iter(metrics.values())).seeds
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
