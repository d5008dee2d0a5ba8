"""The runs of a report, opened: their metrics, artifacts and recipe, whatever command made them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

from pydantic import ConfigDict
from typing_extensions import TypedDict

from brainhive_cli.core import artifacts
from brainhive_cli.core.artifacts import Artifact
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.files import below
from brainhive_cli.core.measurements import ALL, Measurements, Metric, scope, stamp_rows
from brainhive_cli.core.runs import LARGEST_RECIPE, RunFolder, is_run, newest
from brainhive_cli.core.runs import find as find_run
from brainhive_cli.core.sweep import of_variant
from brainhive_cli.measurement.metric_names import headlines


class Environment(TypedDict, total=False):
    """What a page reads of a run's environment; the rest is shown as it is."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    versions: dict[str, str]
    device: str


def find(runs: Path, reference: str | None = None) -> tuple[RunFolder, str]:
    """Find a finished run of any command by what `runs.find` takes, or one variant of it as RUN:VARIANT.

    A command's name stands for its newest run with metrics, None for the newest of all; which is said.

    Returns:
        The run, and the variant where it has no run of its own.

    Raises:
        MissingData: if there is no such run.
        RecipeError: if several have the name, or it has no such variant.
    """

    def lacks(run: RunFolder) -> str:
        return "" if any(run.measurements().scopes.values()) else "no metrics"

    name, variant = of_variant(reference)
    if not name or (name in {path.name for path in runs.glob("*/")} and not is_run(runs / name)):
        run = newest(runs, name or None, lacks, needed="metrics", choose="")
    else:
        run = find_run(runs, None, name)
    if not variant:
        return run, ""
    measured = run.measurements()
    run_by_variant = measured.notes.get("variants", {})
    if isinstance(run_by_variant, Mapping) and variant in run_by_variant:
        folder = below(run.path.parent, run_by_variant[variant]["run"], source="the run of a variant,")
        return find_run(runs, None, str(folder)), ""
    if not measured.of_variant(variant).scopes:
        known = list(run_by_variant) or sorted({scope.rpartition("/")[0] for scope in measured.scopes} - {""})
        hint = f"it has: {', '.join(known)}" if known else "it is no sweep"
        raise RecipeError(f"{run.path.name} has no variant {variant!r}", hint)
    return run, variant


@dataclass(frozen=True)
class ShownRun:
    """One finished run, or a variant of it.

    Attributes:
        label: What the page calls it.
        folder: Where it lies.
        variant: The one variant of a sweep that is shown; empty for all of the run.
    """

    label: str
    folder: RunFolder
    variant: str = ""

    @cached_property
    def measured(self) -> Measurements:
        """What it measured."""
        measured = self.folder.measurements()
        return measured.of_variant(self.variant) if self.variant else measured

    @cached_property
    def artifacts(self) -> list[Artifact]:
        """What it shows besides."""
        return artifacts.read(self.folder)

    @property
    def command(self) -> str:
        """The name of the folder that holds the runs of its kind."""
        return self.folder.path.parent.name

    @cached_property
    def environment(self) -> "Environment":
        """What it was computed with; empty if nothing says it."""
        is_there = (self.folder.path / "environment.json").is_file()
        return self.folder.read_json("environment.json", Environment) if is_there else {}

    @property
    def recipe_text(self) -> str:
        """The resolved recipe as it lies in the run."""
        return self.folder.read_text("recipe.yaml", LARGEST_RECIPE)

    @property
    def source(self) -> str:
        """The source that the run is about, where it compares several; else empty."""
        return str(next(iter(self.measured.notes.get("sources", [])), ""))

    @property
    def scope(self) -> str:
        """What its claims are about, as "these 2 concepts"; empty where it is units in general."""
        return str(self.measured.notes.get("scope", ""))

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics of everything together; of one cell where there is only one."""
        if self.measured.overall or len(self.measured.scopes) != 1:
            return self.measured.overall
        return next(iter(self.measured.scopes.values()))

    @cached_property
    def variants(self) -> dict[str, Mapping[str, Metric]]:
        """The metrics of each variant of a sweep, all its cells together, by its stamped name."""
        names = list(self.measured.notes.get("variants", []))
        by_name = {name: self.measured.scopes.get(scope(name, ALL), {}) for name in names}
        stamps = stamp_rows({name: metrics.values() for name, metrics in by_name.items() if metrics})
        return {stamped: by_name[name] for name, stamped in stamps.items()}

    @property
    def validation_of_variants(self) -> dict[str, Mapping[str, Any]]:
        """What the training of each variant measured on validation, if it did."""
        variants = self.measured.notes.get("variants", {})
        return {name: about.get("validation", {}) for name, about in variants.items()}

    @cached_property
    def cells(self) -> list["ShownCell"]:
        """What was measured on each cell and subject, of the source that the run is about."""
        scopes, notes = self.measured.scopes, self.measured.notes.get("cells", {})
        cells = [ShownCell(name, about, scopes[name]) for name, about in notes.items() if scopes.get(name)]
        return [cell for cell in cells if cell.about.get("source", self.source) == self.source]

    @property
    def typical_metrics(self) -> Mapping[str, Metric]:
        """The metrics of everything together; where nothing is pooled, of the first variant or cell."""
        metrics = self.metrics or next(iter(self.variants.values()), {})
        return metrics or next((cell.metrics for cell in self.cells), {})

    @property
    def headlines(self) -> list[str]:
        """The names of the metrics that summarise it."""
        return headlines(list(self.typical_metrics))

    @property
    def is_swept(self) -> bool:
        """Whether it has several variants, whose mean says nothing."""
        is_of_variants = any(cell.about.get("variant") for cell in self.cells)
        return bool(self.variants) or (is_of_variants and not self.variant)

    def parts(self, metric: str) -> dict[str, list[float]]:
        """List a metric's values by what a table has a row for.

        The variants of a sweep; or subjects, with the mean over seeds; or cells, where these are of no one
        subject and nothing is pooled.
        """
        if self.variants:
            return {name: [some[metric].value] for name, some in self.variants.items() if metric in some}
        if self.is_swept:
            return self._values(metric, lambda cell: str(cell.about.get("variant")))
        by_subject = {subject: [value] for subject, value in self.by_subject(metric).items()}
        if by_subject or self.metrics:
            return by_subject
        return self._values(metric, lambda cell: cell.name)

    def by_subject(self, metric: str) -> dict[str, float]:
        """Average a metric over the seeds of each subject."""
        values = self._values(metric, lambda cell: cell.subject)
        return {subject: mean(some) for subject, some in values.items() if subject}

    def _values(self, metric: str, key: "Callable[[ShownCell], str]") -> dict[str, list[float]]:
        """List a metric's values in the cells that have it, by a key of these."""
        values: dict[str, list[float]] = {}
        for cell in (cell for cell in self.cells if metric in cell.metrics):
            values.setdefault(key(cell), []).append(cell.metrics[metric].value)
        return values


@dataclass(frozen=True)
class ShownCell:
    """One cell and subject: what its notes say, and what was measured."""

    name: str
    about: Mapping[str, Any]
    metrics: Mapping[str, Metric]

    @property
    def subject(self) -> str:
        """Whose signals; empty if its notes do not say."""
        subject = self.about.get("subject")
        return f"sub-{subject:02d}" if isinstance(subject, int) else str(subject or "")

    @property
    def seed(self) -> str:
        """Of the training; empty if its notes do not say."""
        seed = self.about.get("seed", next(iter(next(iter(self.metrics.values())).seeds), ""))
        return str(seed)


@dataclass(frozen=True)
class Compared:
    """By how much one run differs from another in one metric, item by item.

    Attributes:
        first: Label of the one.
        second: Label of the other.
        metric: Name of the metric.
        difference: First less second.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n: Items.
        p: Adjusted over all metrics and runs that are compared; None where there is no test.
        test: What the p is of.
        notes: What limits it.
        adjusted_over: The number of `tests`, and `of` what these are.
        scope: What it is about, as "these 2 concepts"; empty where that is units in general.
    """

    first: str
    second: str
    metric: str
    difference: float
    low: float | None
    high: float | None
    n: int
    p: float | None
    test: str
    notes: tuple[str, ...] = ()
    adjusted_over: Mapping[str, Any] = field(default_factory=dict)
    scope: str = ""


@dataclass(frozen=True)
class RunGroup:
    """Runs that are shown together.

    Attributes:
        runs: One, or several that are compared.
        compared: The first with each other one, metric by metric.
        not_compared: Why some could not be.
        title: The heading; by default what the runs are.
    """

    runs: Sequence[ShownRun]
    compared: Sequence[Compared] = ()
    not_compared: Sequence[str] = ()
    title: str = ""

    @property
    def comparable(self) -> list[str]:
        """Labels of the runs among which one may be the best: where some were not compared, the others."""
        labels = [run.label for run in self.runs]
        paired = {labels[0], *(pair.second for pair in self.compared)}
        return [label for label in labels if not self.not_compared or label in paired]
