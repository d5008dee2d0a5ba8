"""An evaluation, resolved: which runs and cells, which variants of a sweep, compared with which runs."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Self

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.inputs import Input
from brainhive_cli.core.results import Work
from brainhive_cli.data.datasets import require_split
from brainhive_cli.evaluation.retrieval.concepts import read_categories
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.references import rejoined
from brainhive_cli.training.alignment.trained import TrainedRun, open_model, refuse_sweep

NOT_COMPARED: Mapping[str, Any] = {
    "against": None,
    "compare": None,
    "repetitions": None,
    "sliding": None,
    "subsets": None,
    "region_shares": False,
    "corrections": [],
    "baseline": "none",
}
"""Keys that are not measured of the runs that a run is compared with."""
Group = tuple[Cell, ...]
"""Cells that are averaged, one of each run; the first one's name stands for all."""
PAIRS = "pairs"
"""In place of the label of a variant: all variants are compared with each other."""


@dataclass(frozen=True)
class Job:
    """Work of eval-retrieval.

    Attributes:
        recipe: What the user wrote, with the runs as a fingerprint knows them, wherever home lies.
        runs: The runs; several are averaged, and tested on one data set.
        groups: The cells that are measured: one of each run, whose similarities are averaged.
        categories: The category of each concept that has one.
        against: The runs to compare with, each measured in the same way but for what is not compared.
        variants: Of a sweep, the same for each variant; empty for what is no sweep.
    """

    recipe: Recipe
    runs: list[TrainedRun]
    groups: list[Group]
    categories: Mapping[str, str] = field(default_factory=dict)
    against: Sequence[Self] = ()
    variants: Sequence[Self] = ()

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Find the runs and their cells."""
        # the runs, named as fingerprints name them
        runs = find_runs(recipe)
        references = [run.reference for run in runs]
        job = cls(recipe.model_copy(update={"align_run": references}), runs, group_cells(runs))

        # a sweep may be compared with one of its variants
        labels = runs[0].variants if len(runs) == 1 else []
        if recipe.compare not in (None, *([PAIRS, *labels] if labels else [])):
            known = ", ".join([PAIRS, *labels]) if labels else "leave compare out: it is of a sweep"
            raise RecipeError(f"compare is {recipe.compare!r}, no variant of {runs[0].name}", known)
        return job

    def open(self) -> Self:
        """Read categories, and find the runs to compare with and the variants of a sweep.

        Raises:
            RecipeError: if one to compare with is a sweep.
        """
        categories = read_categories(self.recipe.categories) if self.recipe.categories else {}
        against = []
        for name in rejoined(self.recipe.against or [], self.recipe.paths):
            update = {**NOT_COMPARED, "align_run": [name]}
            against.append(self.resolve(self.recipe.model_copy(update=update)).open())
            refuse_sweep(against[-1].runs[0])
        references = [name for other in against for name in other.recipe.align_run or ()]
        recipe = self.recipe.model_copy(update={"against": references or None})
        job = replace(self, recipe=recipe, categories=categories, against=against)

        # each variant of a sweep is a job of its own
        sweep, variants = self.runs[0], []
        for label in sweep.variants if len(self.runs) == 1 else ():
            narrowed = [sweep.of_variant(label)]
            update = {"align_run": [f"{(recipe.align_run or [''])[0]}:{label}"], "compare": None}
            renamed = recipe.model_copy(update=update)
            variants.append(replace(job, recipe=renamed, runs=narrowed, groups=group_cells(narrowed)))
        return replace(job, variants=variants)

    def list_pairs(self) -> list[tuple[str, str]]:
        """List the variants of a sweep that are compared with each other, by their labels."""
        labels, chosen = [variant.runs[0].variant for variant in self.variants], self.recipe.compare
        if chosen == PAIRS:
            return [*combinations(labels, 2)]
        if chosen is None:
            by_label = {variant.runs[0].variant: variant.runs[0].validation for variant in self.variants}
            # variants that were validated on other pictures do not compare: then the first one stands
            first = by_label[labels[0]].get("measured_on")
            comparable = [
                label for label in labels if first and by_label[label].get("measured_on") == first
            ] or labels[:1]
            chosen = max(comparable, key=lambda label: by_label[label].get("value", -1.0))
        return [(chosen, other) for other in labels if other != chosen]

    @property
    def compares_plainly(self) -> bool:
        """Whether plain baselines are fitted: where trials are held out, without a control."""
        is_wanted = self.recipe.baseline != "none" and self.recipe.control == "none"
        return self.runs[0].dataset.holdout.divides_train and is_wanted and self.recipe.split == "test"

    def inputs(self) -> Iterator[Input]:
        """List the runs, what they are tested with, and the categories."""
        if name := self.recipe.categories:
            yield Input(name, digest=hashlib.sha256(repr(self.categories).encode()).hexdigest())
        for run in self.runs:
            yield from run.inputs(self.recipe.splits)

    def check(self) -> None:
        """Open the embeddings of the gallery; raises as `TrainedRun.stores` does."""
        for run in self.runs:
            for split in self.recipe.splits:
                run.stores(split)

    @property
    def work(self) -> Work:
        """Count what there is to measure."""
        curves = ", ".join(self.recipe.curves) or "no curves"
        kind = f"{self.runs[0].dataset.name}, {self.recipe.gallery}, {curves}"
        count = sum(len(cells[0].tested_on) for cells in self.groups)
        return Work(kind, count, "subjects of a cell", cells=len(self.groups))


def find_runs(recipe: Recipe) -> list[TrainedRun]:
    """Find the runs that a recipe names, or the newest on its data set; see `Job.resolve`.

    Raises:
        BrainhiveError: if they are not of one data set, or one of several is a sweep.
        RecipeError: if the data set has no such split.
    """
    names = rejoined(recipe.align_run, recipe.paths) if recipe.align_run else [None]
    runs = []
    for name in names:
        run = open_model(name, recipe.paths, recipe.dataset, recipe.subjects)
        copies, mapping = recipe.copies == "allow", recipe.channel_mapping
        runs.append(replace(run, allows_copies=copies, channel_mapping=mapping))
    first = runs[0]
    for run in runs if len(runs) > 1 else ():
        refuse_sweep(run)
    for other in runs:
        if other.dataset.name != first.dataset.name:
            raise BrainhiveError(
                f"{first.folder.path} is tested on {first.dataset.name}, "
                f"{other.folder.path} on {other.dataset.name}",
                "name one data set for both: --dataset",
            )
    for split in recipe.splits:
        require_split(first.dataset, split, "gallery")
    return runs


def group_cells(runs: Sequence[TrainedRun]) -> list[Group]:
    """Match the cells of several runs: those tested on the same subjects, in the order of their seeds.

    Raises:
        BrainhiveError: if the runs do not have the same cells; it names two.
    """
    # cells of each run by the subjects tested on, and the number of cells before it that are tested on them
    keyed = []
    for run in runs:
        cells: dict[tuple[tuple[int, ...], int], Cell] = {}
        for cell in run.cells:
            before = sum(tested_on == cell.tested_on for tested_on, _ in cells)
            cells[cell.tested_on, before] = cell
        keyed.append(cells)

        # every run has the keys of the first
        if cells.keys() != keyed[0].keys():
            one, other = (
                f"{differing.folder.path} ({', '.join(cell.name for cell in differing.cells)})"
                for differing in (runs[0], run)
            )
            raise BrainhiveError(
                f"{one} and {other} were not tested on the same subjects as often",
                "average runs of the same subjects and number of seeds",
            )
    return [tuple(cells[key] for cells in keyed) for key in keyed[0]]
