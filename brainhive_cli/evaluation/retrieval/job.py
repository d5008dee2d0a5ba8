"""An evaluation, resolved: which runs and cells, which variants of a sweep, compared
with which runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from brainhive_cli.core.command import Input, Work
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.data.datasets import list_pictures, require_split
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.references import rejoin_variant_names
from brainhive_cli.training.alignment.trained.model import TrainedModel
from brainhive_cli.training.alignment.trained.run import (
    TrainedRun,
    open_model,
    refuse_sweep,
)

if TYPE_CHECKING:
    import torch

NOT_COMPARED: Mapping[str, Any] = {
    "against": None,
    "compare": None,
    "repetitions": None,
    "subsets": None,
    "region_shares": False,
    "corrections": [],
    "baseline": "none",
}
"""Keys that are not measured of the runs that a run is compared with."""
CellGroup = tuple[Cell, ...]
"""Cells that are averaged, one of each run; the first one's name stands for all."""


@dataclass(frozen=True)
class Job:
    """Work of eval-retrieval.

    Attributes:
        recipe: What the user wrote, with the runs as a fingerprint knows them, wherever
            home lies.
        runs: The runs; several are averaged, and tested on one data set.
        against: The runs to compare with, each measured in the same way but for what is
            not compared.
        variants: Of a sweep, the same for each variant; empty for what is no sweep.
    """

    recipe: Recipe
    runs: list[TrainedRun]
    against: Sequence[Self] = ()
    variants: Sequence[Self] = ()

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Find the runs and their cells, the runs to compare with, and the variants of
        a sweep.

        Raises:
            RecipeError: if a run to compare with is a sweep, or `compare` names no
                variant.
        """
        # a sweep may be compared with one of its variants
        runs = find_runs(recipe)
        known = runs[0].variants
        if recipe.compare not in (None, *known):
            problem = f"compare is {recipe.compare!r}, no variant of {runs[0].name}"
            raise RecipeError(
                problem, ", ".join(known) or "leave compare out: it is of a sweep"
            )

        # the runs to compare with, none of which may be a sweep
        against = []
        for name in rejoin_variant_names(recipe.against or [], recipe.paths):
            # curves, corrections and baselines are not compared, so they are not
            # measured
            against.append(
                cls.resolve(
                    recipe.model_copy(update={**NOT_COMPARED, "align_run": [name]})
                )
            )
            refuse_sweep(against[-1].runs[0])

        # all runs are named as fingerprints name them; each variant of a sweep is a job
        # of its own
        references = [run.reference for other in against for run in other.runs] or None
        references_by_key = {
            "align_run": [run.reference for run in runs],
            "against": references,
        }
        job = cls(recipe.model_copy(update=references_by_key), runs, against)
        variants = []
        for run in map(runs[0].of_variant, runs[0].variants):
            update = {"align_run": [run.reference], "compare": None}
            variants.append(
                replace(job, recipe=job.recipe.model_copy(update=update), runs=[run])
            )
        return replace(job, variants=variants)

    @cached_property
    def groups(self) -> list[CellGroup]:
        """The cells that are measured: one of each run, whose similarities are
        averaged.
        """
        return group_cells(self.runs)

    def open_models(self, group: CellGroup, device: torch.device) -> list[TrainedModel]:
        """Open the models of a group, which are compared by the head that the recipe
        names.
        """
        # models of one group differ in their run, not in the person tested
        pairs = zip(self.runs, group, strict=True)
        return [
            TrainedModel(run, cell, device, self.recipe.head) for run, cell in pairs
        ]

    def list_pairs(self) -> list[tuple[str, str]]:
        """List the variants of a sweep that are compared with each other, by their
        labels.
        """
        runs = [variant.runs[0] for variant in self.variants]
        validations = {run.variant: run.read_validation() for run in runs}
        chosen = self.recipe.compare
        if chosen is None:
            # the best validation; those on other pictures than the first one's cannot
            # be ranked
            measured_on = validations[runs[0].variant].get("measured_on")
            values = {
                label: validation.get("value", -1.0)
                for label, validation in validations.items()
                if validation.get("measured_on") == measured_on
            }
            chosen = max(values, key=values.__getitem__)
        return [(chosen, other) for other in validations if other != chosen]

    def inputs(self) -> Iterable[Input]:
        """List the runs, and what they are tested with."""
        for run in self.runs:
            yield from run.inputs(self.recipe.splits)

    def list_pictures(self) -> list[Input]:
        """List the pictures of the gallery, without which the sheet is left out."""
        dataset = self.runs[0].dataset
        listed = list[Input]()
        for split in self.recipe.splits if self.recipe.sheet_rows else ():
            listed += list_pictures(dataset, dataset.holdout.name_stored_split(split))
        return [replace(picture, is_optional=True) for picture in listed]

    def check(self) -> None:
        """Refuse runs that do not fit each other, their signals, or what is measured;
        raises as `TrainedRun.check` does.
        """
        # variants of a sweep are measured one by one
        for variant in self.variants:
            variant.check()
        if self.variants:
            return
        recipe = self.recipe
        opened = [run.check(recipe.splits, recipe.head) for run in self.runs]
        if recipe.repetitions or recipe.region_shares:
            from brainhive_cli.evaluation.retrieval.measure import check_measures

            for trials in opened[0].values():
                check_measures(recipe, trials)
        for other in self.against:
            other.check()
            self._refuse_other_items(other)

    def _refuse_other_items(self, other: Self) -> None:
        """Refuse a run to compare with that is tested on other people or pictures."""
        first, second = self.runs[0], other.runs[0]
        names = f"{first.name} and {second.name} were tested on different"
        people = [
            {subject for cell in run.cells for subject in cell.tested_on}
            for run in (first, second)
        ]
        if people[0] != people[1]:
            raise BrainhiveError(
                f"{names} subjects: {sorted(people[0])} and {sorted(people[1])}",
                "give --subjects both have, and the same split",
            )
        # the candidates may depend on what was shown
        if not (first.is_prepared and second.is_prepared):
            return
        import torch

        from brainhive_cli.evaluation.retrieval.measure import open_gallery

        galleries = [
            open_gallery(
                job.open_models(job.groups[0], torch.device("cpu")),
                job.recipe.splits,
                job.recipe.only_shown,
            )
            for job in (self, other)
        ]
        if galleries[0].image_ids != galleries[1].image_ids:
            raise BrainhiveError(f"{names} galleries", "compare on the same pictures")

    def open_stores(self) -> dict[str, TargetStore]:
        """Open the embeddings of the candidates, by split and encoder."""
        return {
            f"{split}/{name}": store
            for run in self.runs
            for split in self.recipe.splits
            for name, store in run.stores(split).items()
        }

    def count_work(self) -> Work:
        """Count what there is to measure."""
        # curves change how long a subject takes
        curves = "repetitions" if self.recipe.repetitions else "no curves"
        kind = f"{self.runs[0].dataset.name}, {self.recipe.gallery}, {curves}"
        count = sum(len(cells[0].tested_on) for cells in self.groups)
        return Work(kind, count, "subjects of a cell", cells=len(self.groups))


def find_runs(recipe: Recipe) -> list[TrainedRun]:
    """Find the runs that a recipe names, or the newest on its data set; see
    `Job.resolve`.

    Raises:
        BrainhiveError: if they are not of one data set, or one of several is a sweep.
        RecipeError: if the data set has no such split.
    """
    names = (
        rejoin_variant_names(recipe.align_run, recipe.paths)
        if recipe.align_run
        else [None]
    )
    # all runs read signals in the same way
    how = (
        recipe.paths,
        recipe.dataset,
        recipe.subjects,
        recipe.copies,
        recipe.channel_mapping,
    )
    runs = [open_model(name, *how) for name in names]

    # several are tested on one data set, and none is a sweep
    first, *rest = runs
    for run in runs if rest else ():
        refuse_sweep(run)
    for other in rest:
        if other.dataset.name != first.dataset.name:
            raise BrainhiveError(
                f"{first.folder.path} is tested on {first.dataset.name}, "
                f"{other.folder.path} on {other.dataset.name}",
                "name one data set for both: --dataset",
            )
    for split in recipe.splits:
        require_split(first.dataset, split, "gallery")
    return runs


def group_cells(runs: Sequence[TrainedRun]) -> list[CellGroup]:
    """Match the cells of several runs: those tested on the same subjects, in the order
    of their seeds.

    Raises:
        BrainhiveError: if the runs do not have the same cells; it names two.
    """
    # cells in the order of the subjects that they are tested on, who are those of the
    # first run
    ordered = [sorted(run.cells, key=lambda cell: cell.tested_on) for run in runs]
    for run, cells in zip(runs, ordered, strict=True):
        if [cell.tested_on for cell in cells] != [
            cell.tested_on for cell in ordered[0]
        ]:
            problem = (
                f"{runs[0].folder.path} and {run.folder.path} were not tested on the "
                "same subjects as often"
            )
            raise BrainhiveError(
                problem, "average runs of the same subjects and number of seeds"
            )
    return sorted(
        zip(*ordered, strict=True), key=lambda group: runs[0].cells.index(group[0])
    )
