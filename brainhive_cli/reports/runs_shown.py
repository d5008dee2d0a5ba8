"""The runs of a report, opened: their metrics, artifacts and recipe, whatever command made them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, stdev
from typing import Any

from pydantic import ConfigDict
from typing_extensions import TypedDict

from brainhive_cli.core import artifacts
from brainhive_cli.core.artifacts import Artifact
from brainhive_cli.core.measurements import ALL, Measurements, Metric, scope
from brainhive_cli.core.metric_names import headlines
from brainhive_cli.core.runs import RunFolder


class Environment(TypedDict, total=False):
    """What a page reads of a run's environment; the rest is shown as it is."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    versions: dict[str, str]
    device: str


@dataclass(frozen=True)
class ShownRun:
    """One finished run.

    Attributes:
        label: What the page calls it.
        folder: Where it lies.
    """

    label: str
    folder: RunFolder

    @cached_property
    def found(self) -> Measurements:
        """What it measured."""
        return self.folder.measurements()

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
        path = self.folder.path / "recipe.yaml"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    @property
    def source(self) -> str:
        """The source that the run is about, where it compares several; else empty."""
        return str(next(iter(self.found.notes.get("sources", [])), ""))

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics of everything together; of one cell where there is only one."""
        if self.found.overall or len(self.found.scopes) != 1:
            return self.found.overall
        return next(iter(self.found.scopes.values()))

    @cached_property
    def variants(self) -> dict[str, Mapping[str, Metric]]:
        """The metrics of each variant of a sweep, all its cells together."""
        names = list(self.found.notes.get("variants", []))
        found = {name: self.found.scopes.get(scope(name, ALL), {}) for name in names}
        return {name: metrics for name, metrics in found.items() if metrics}

    @cached_property
    def cells(self) -> list["ShownCell"]:
        """What was measured on each cell and subject, of the source that the run is about."""
        found = []
        for name, about in self.found.notes.get("cells", {}).items():
            metrics = self.found.scopes.get(name, {})
            if metrics and about.get("source", self.source) == self.source:
                found.append(ShownCell(name, about, metrics))
        return found

    @property
    def headlines(self) -> list[str]:
        """The names of the metrics that summarise it."""
        metrics = self.metrics or next(iter(self.variants.values()), {})
        metrics = metrics or next((cell.metrics for cell in self.cells), {})
        return headlines(list(metrics))

    def by_subject(self, metric: str) -> dict[str, float]:
        """Average a metric over the seeds of each subject."""
        values: dict[str, list[float]] = {}
        for cell in self.cells:
            if metric in cell.metrics and cell.subject:
                values.setdefault(cell.subject, []).append(cell.metrics[metric].value)
        return {subject: mean(some) for subject, some in values.items()}


@dataclass(frozen=True)
class ShownCell:
    """One cell and subject: what its notes say, and what was measured."""

    name: str
    about: Mapping[str, Any]
    metrics: Mapping[str, Metric]

    @property
    def subject(self) -> str:
        """Whose signals; empty if its notes do not say."""
        found = self.about.get("subject")
        return f"sub-{found:02d}" if isinstance(found, int) else str(found or "")

    @property
    def seed(self) -> str:
        """Of the training; empty if its notes do not say."""
        found = self.about.get("seed", next(iter(next(iter(self.metrics.values())).seeds), ""))
        return str(found)


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
        p: Adjusted over metrics or runs; None where there is no test.
        test: What the p is of.
        notes: What limits it.
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
        paired = {labels[0], *(each.second for each in self.compared)}
        return [label for label in labels if not self.not_compared or label in paired]


def mean_sd(values: Iterable[float], digits: int = 3) -> str:
    """Write a mean with the standard deviation, where there are two values or more."""
    some = list(values)
    if not some:
        return "–"
    deviation = f" ± {stdev(some):.{digits}f}" if len(some) > 1 else ""
    return f"{mean(some):.{digits}f}{deviation}"
