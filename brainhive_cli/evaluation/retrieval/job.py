"""An evaluation, resolved: which runs and cells, compared with which others."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from brainhive_cli.core import runs
from brainhive_cli.core.errors import BrainhiveError, MissingExtra, RecipeError
from brainhive_cli.core.needs import Need
from brainhive_cli.core.results import Work
from brainhive_cli.evaluation.retrieval.concepts import read_categories
from brainhive_cli.evaluation.retrieval.rankings import Ensemble, Group, group_cells
from brainhive_cli.evaluation.retrieval.recipe import EvaluationSpec, Recipe
from brainhive_cli.training.alignment.matching_run import RunNeeds
from brainhive_cli.training.alignment.trained import AlignRun, find, refuse_sweep, rejoined


@dataclass(frozen=True)
class Job:
    """What eval-retrieval is going to do; each member is resolved once, when it is first needed.

    Attributes:
        recipe: What to evaluate.
        is_plan: Whether a run may be absent: what it will be is then read in the recipe that trains it.
    """

    recipe: Recipe
    is_plan: bool = False

    @cached_property
    def spec(self) -> EvaluationSpec:
        """What is measured; all that the functions which measure get of the recipe."""
        fields = EvaluationSpec.model_fields
        return EvaluationSpec.model_construct(**{name: getattr(self.recipe, name) for name in fields})

    def needs(self) -> Iterator[Need]:
        """List the runs, and what they need."""
        for run in self.runs:
            yield from run.needs(self.spec.splits)

    @cached_property
    def runs(self) -> list[AlignRun]:
        """The runs; several are averaged, and tested on one data set.

        Raises:
            BrainhiveError: if they are not of one data set, or one is a sweep.
            RecipeError: if the data set has no such split.
        """
        recipe = self.recipe
        names: Sequence[str | None] = rejoined(recipe.align_run, recipe.paths) if recipe.align_run else [None]
        needs = RunNeeds(recipe.paths, recipe.dataset, recipe.trained_by, recipe.head)
        given = recipe.paths, recipe.dataset, recipe.subjects, needs, self.is_plan
        runs_found = [find(name, *given) for name in names]
        for run in runs_found if len(runs_found) > 1 else ():
            refuse_sweep(run)
        first = runs_found[0]
        for other in runs_found[1:]:
            if other.dataset.name != first.dataset.name:
                raise BrainhiveError(
                    f"{first.folder.path} is tested on {first.dataset.name}, "
                    f"{other.folder.path} on {other.dataset.name}",
                    "name one data set for both: --dataset",
                )
        if unknown := [split for split in self.spec.splits if split not in first.dataset.splits]:
            raise RecipeError(
                f"gallery: {first.dataset.name} has no split {unknown[0]!r}",
                f"it has: {', '.join(first.dataset.splits)}",
            )
        return runs_found

    @cached_property
    def groups(self) -> list[Group]:
        """The cells that are measured: one of each run, whose similarities are averaged."""
        return group_cells(self.runs)

    @property
    def work(self) -> Work:
        """Count what there is to measure."""
        curves = ", ".join(self.spec.curves) or "no curves"
        kind = f"{self.runs[0].dataset.name}, {self.recipe.gallery}, {curves}"
        return Work(kind, sum(len(cells[0].tested_on) for cells in self.groups), "subjects of a cell")

    def load(self, group: Group, device: torch.device) -> Ensemble:
        """Load the models of some cells that are averaged."""
        return Ensemble.load(self.runs, group, device, self.spec.head)

    @cached_property
    def stores(self) -> list[str]:
        """The names of the stores that the gallery is read from."""
        names = [name for run in self.runs for split in self.spec.splits for name in run.stores(split)]
        return list(dict.fromkeys(names))

    def check_figures(self) -> list[str]:
        """List the curves; raise `MissingExtra` if the library that the map needs is not installed."""
        if self.recipe.embedding_map == "umap":
            try:
                import umap  # noqa: F401
            except ImportError as error:
                line = "pip install 'brainhive[umap]'"
                raise MissingExtra("embedding_map=umap needs umap-learn", line) from error
        return self.spec.curves

    @cached_property
    def categories(self) -> dict[str, str]:
        """The category of each concept that has one."""
        return read_categories(self.recipe.categories) if self.recipe.categories else {}

    @cached_property
    def variants(self) -> list["Job"]:
        """The same for each variant of a sweep; none for what is no sweep."""
        if len(self.runs) > 1:
            return []
        (name,) = self.names
        return [self._of([f"{name}:{variant}"]) for variant in self.runs[0].variants]

    @cached_property
    def against(self) -> list["Job"]:
        """The runs to compare with, each measured in the same way but for what is not compared."""
        plain: dict[str, Any] = dict.fromkeys(("against", "repetitions", "sliding", "subsets"))
        plain["region_shares"] = False
        names = rejoined(self.recipe.against or [], self.recipe.paths)
        jobs = [self._of([name], **plain) for name in names]
        for job in jobs:
            refuse_sweep(job.runs[0])
        return jobs

    @property
    def names(self) -> list[str]:
        """The runs as the fingerprint knows them, wherever home lies."""
        root = self.recipe.paths.under_home("runs") / "train-align"
        return [runs.reference(run.folder, root, run.variant) for run in self.runs]

    @property
    def label(self) -> str:
        """What its folder is called."""
        return self.runs[0].folder.path.name if self.variants else self.runs[0].label

    @property
    def pinned(self) -> Recipe:
        """The recipe whose fingerprint names the runs, and what is known by its path alone."""
        digests = {path: digest for run in self.runs for path, digest in run.digests.items()}
        if self.recipe.categories:
            content = repr(self.categories).encode()
            digests[self.recipe.categories] = hashlib.sha256(content).hexdigest()
        against = [name for job in self.against for name in job.names] or None
        return self.recipe.model_copy(update={"align_run": self.names, "against": against}).holding(digests)

    def _of(self, names: list[str], **changes: object) -> "Job":
        # what a run is compared with, or which of its variants is meant, need not be as the recipe wants it
        return Job(self.recipe.model_copy(update={"align_run": names, "trained_by": None, **changes}))
