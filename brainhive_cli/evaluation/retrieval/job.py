"""Work of eval-retrieval: the evaluated runs and their cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Self

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.core.files import Input
from brainhive_cli.core.runs import Work, rejoin_labels
from brainhive_cli.data.datasets import list_pictures, require_split
from brainhive_cli.data.stores import TargetStore
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.training.alignment import TRAINING, Cell
from brainhive_cli.training.alignment.trained import (
    TestSet,
    TrainedModel,
    TrainedModels,
    check_test_set,
    open_model,
    open_test_set,
)

if TYPE_CHECKING:
    import torch

NOT_COMPARED: Mapping[str, Any] = {
    "against": None,
    "repetitions": None,
    "subsets": None,
    "region_shares": False,
    "corrections": [],
    "baseline": "none",
}
"""Recipe keys that are reset for the runs that a run is compared with."""
CellGroup = tuple[Cell, ...]
"""Cells that are averaged, one of each run. The group has the name of the first."""


@dataclass(frozen=True)
class Job:
    """Work of eval-retrieval.

    Attributes:
        recipe: Recipe, in which references to runs do not depend on the home folder.
        runs: Evaluated runs, whose models are averaged. All have the same data set.
        against: Evaluations of the runs to compare with.
        like: Evaluation that may have the same data, whose study is then shared.
    """

    recipe: Recipe
    runs: list[TrainedModels]
    against: Sequence[Self] = ()
    like: Self | None = None

    @classmethod
    def resolve(cls, recipe: Recipe, like: Self | None = None) -> Self:
        """Find the runs, and the runs to compare with.

        Args:
            recipe: Settings of the evaluation.
            like: Evaluation whose study is shared if its data is equal, or None.
        """
        runs = find_runs(recipe)
        # the runs to compare with are measured like this run
        against = []
        references = []
        for name in _join_names(recipe, recipe.against):
            changes = {**NOT_COMPARED, "align_run": [name]}
            compared_job = cls.resolve(recipe.model_copy(update=changes))
            against.append(compared_job)
            references.append(compared_job.runs[0].reference)

        # runs have the names that fingerprints use
        changes = {
            "align_run": [run.reference for run in runs],
            "against": references or None,
        }
        return cls(recipe.model_copy(update=changes), runs, against, like)

    @cached_property
    def groups(self) -> list[CellGroup]:
        """Groups of cells that are measured, each with a cell of every run."""
        return group_cells(self.runs)

    @property
    def group_of_name(self) -> dict[str, CellGroup]:
        """Groups of cells, keyed by the name of their first cell."""
        return {group[0].name: group for group in self.groups}

    @property
    def files(self) -> dict[str, str]:
        """File of each cell in the run folder, by name of the cell."""
        return {name: f"parts/{name}.safetensors" for name in self.group_of_name}

    def open_models(self, group: CellGroup, device: torch.device) -> list[TrainedModel]:
        """Open the models of a cell group, with the head that the recipe names."""
        return [
            run.open(cell, device, self.recipe.head)
            for run, cell in zip(self.runs, group, strict=True)
        ]

    @cached_property
    def tests(self) -> TestSet:
        """Test set of all runs, which all cells share."""
        like = None if self.like is None else self.like.tests
        return open_test_set(self.runs, self.recipe.split, like)

    def inputs(self) -> Iterable[Input]:
        """List the runs, their signals and their embeddings."""
        for run in self.runs:
            yield from run.list_inputs(self.recipe.splits)

    def list_pictures(self) -> list[Input]:
        """List the pictures of the sheet. They are optional."""
        if not self.recipe.sheet_rows:
            return []
        dataset = self.runs[0].dataset
        inputs = []
        for split in self.recipe.splits:
            stored_split = dataset.holdout.name_stored_split(split)
            for picture in list_pictures(dataset, stored_split):
                inputs.append(replace(picture, is_optional=True))
        return inputs

    def check(self) -> None:
        """Check that the runs and their signals fit each other and the recipe.

        Raises:
            BrainhiveError: if runs, signals, subjects or galleries do not fit.
            RecipeError: if requested repetitions or regions are missing.
        """
        recipe = self.recipe
        trials_of_cell = check_test_set(self.tests, recipe.splits, recipe.head)
        if recipe.repetitions or recipe.region_shares:
            from brainhive_cli.evaluation.retrieval import measure

            for trials in trials_of_cell.values():
                if recipe.repetitions:
                    measure.list_repetition_counts(trials, recipe)
                if recipe.region_shares:
                    measure.mask_regions(trials)
        for compared_job in self.against:
            compared_job.check()
            self._require_same_items(compared_job)

    def _require_same_items(self, compared_job: Self) -> None:
        """Check that a run to compare with has the same subjects and gallery.

        Raises:
            BrainhiveError: if they differ.
        """
        first_run, second_run = self.runs[0], compared_job.runs[0]
        names = f"{first_run.name} and {second_run.name} were tested on different"
        first_subjects = self.tests.subjects
        second_subjects = compared_job.tests.subjects
        if first_subjects != second_subjects:
            raise BrainhiveError(
                f"{names} subjects: {first_subjects} and {second_subjects}",
                "give --subjects both have, and the same split",
            )

        # galleries with `only_shown` are known when the signals are prepared
        if not first_run.is_prepared or not second_run.is_prepared:
            return
        if self._list_candidates() != compared_job._list_candidates():
            raise BrainhiveError(f"{names} galleries", "compare on the same pictures")

    def _list_candidates(self) -> list[str]:
        """List the image ids of the gallery."""
        import torch

        from brainhive_cli.evaluation.retrieval.measure import open_gallery

        models = self.open_models(self.groups[0], torch.device("cpu"))
        recipe = self.recipe
        gallery = open_gallery(models, self.tests, recipe.splits, recipe.only_shown)
        return gallery.image_ids

    def open_stores(self) -> dict[str, TargetStore]:
        """Open the embeddings of the gallery, by split and encoder."""
        stores = {}
        for split in self.recipe.splits:
            for name, store in self.tests.open_stores(split).items():
                stores[f"{split}/{name}"] = store
        return stores

    def count_work(self) -> Work:
        """Count the subjects of all cells, the unit of work."""
        # curves change how long a subject takes
        curves = "repetitions" if self.recipe.repetitions else "no curves"
        kind = f"{self.runs[0].dataset.name}, {self.recipe.gallery}, {curves}"
        count = sum(len(cells[0].tested_on) for cells in self.groups)
        return Work(kind, count, "models to test", cells=len(self.groups))


def find_runs(recipe: Recipe) -> list[TrainedModels]:
    """Find the runs that a recipe names, or the newest run on its data set.

    Raises:
        BrainhiveError: if runs have different data sets.
        RecipeError: if the data set lacks a split of the gallery.
    """
    names: list[str | None] = [None]
    if recipe.align_run:
        names = list(_join_names(recipe, recipe.align_run))
    runs = []
    for name in names:
        run = open_model(
            name,
            recipe.paths,
            dataset=recipe.dataset,
            subjects=recipe.subjects,
            copies=recipe.copies,
            channel_mapping=recipe.channel_mapping,
        )
        runs.append(run)

    first_run = runs[0]
    for other_run in runs[1:]:
        if other_run.dataset.name != first_run.dataset.name:
            raise BrainhiveError(
                f"{first_run.folder.path} is tested on {first_run.dataset.name}, "
                f"{other_run.folder.path} on {other_run.dataset.name}",
                "name one data set for both: --dataset",
            )
    for split in recipe.splits:
        require_split(first_run.dataset, split, "gallery")
    return runs


def _join_names(recipe: Recipe, names: Sequence[str] | None) -> list[str]:
    """Join labels of trainings that the command line has split at their commas."""
    return rejoin_labels(recipe.paths.under_home("runs"), TRAINING, names or [])


def group_cells(runs: Sequence[TrainedModels]) -> list[CellGroup]:
    """Group the cells of several runs, to average their models, by tested subjects.

    Returns:
        Groups with a cell of every run, in the order of the cells of the first run.

    Raises:
        BrainhiveError: if the runs have different tested subjects or numbers of seeds.
    """
    first_run = runs[0]
    get_subjects = attrgetter("tested_on")
    first_subjects = sorted(map(get_subjects, first_run.cells))
    sorted_cells = []
    for run in runs:
        sorted_cells.append(sorted(run.cells, key=get_subjects))
        if list(map(get_subjects, sorted_cells[-1])) != first_subjects:
            raise BrainhiveError(
                f"{first_run.folder.path} and {run.folder.path} were not tested on the "
                "same subjects as often",
                "average runs of the same subjects and number of seeds",
            )
    groups = zip(*sorted_cells, strict=True)
    return sorted(groups, key=lambda group: first_run.cells.index(group[0]))
