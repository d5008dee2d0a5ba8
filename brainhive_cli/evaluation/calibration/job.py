"""A calibration, resolved: models of other people, new persons, their recordings and
the amounts of these.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.command import Input, Work
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import TRIALS_TOGETHER, extend_protocol
from brainhive_cli.data.datasets import group_rows
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.learned import LearnedPictures
from brainhive_cli.data.stores.target_store import get_stimuli_and_pixels
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.evaluation.calibration.amounts import UNITS, Unit, limit_amounts
from brainhive_cli.evaluation.calibration.recipe import PICTURES, Recipe
from brainhive_cli.measurement.units import Items
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.recipe import Recipe as Training
from brainhive_cli.training.alignment.trained import few_shot
from brainhive_cli.training.alignment.trained.few_shot import SourceModel
from brainhive_cli.training.alignment.trained.model import TrainedModel
from brainhive_cli.training.alignment.trained.run import (
    TrainedRun,
    open_model,
    refuse_sweep,
)


@dataclass(frozen=True)
class Person:
    """A new person: what may be learned from, and what is tested.

    Attributes:
        subject: Number of the person.
        trials: Those of training pictures that are not tested.
        dropped: Training pictures that were left out because they, or copies of them,
            are tested.
        tested: Test trials, not normalised.
        gallery: Embeddings [M, ...] of the tested pictures, by the fuser's key.
        rows: [M] of these pictures in the target stores, ascending.
    """

    subject: int
    trials: Trials
    dropped: int
    tested: Trials
    gallery: Mapping[str, Tensor]
    rows: Int64


@dataclass(frozen=True)
class Job:
    """Work of calibrate.

    Attributes:
        recipe: What the user wrote, with the run as a fingerprint knows it, wherever
            home lies.
        align: The run, opened on the data set of the new persons.
        training: The recipe that trained it.
        cells: One for each model and new person: the cell of the model, tested on that
            person.
        unit: Unit of the amounts.
        draws: Draws of each amount.
        needs_trials: Whether a part of a picture's trials may be learned from.
        epochs: Epochs of each training; None in closed form.
    """

    recipe: Recipe
    align: TrainedRun
    training: Training
    cells: list[Cell]
    unit: Unit
    draws: int
    needs_trials: bool
    epochs: int | None

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Find the run that a recipe names, and the people who are new to its models.

        Raises:
            RecipeError: if it is a sweep, holds out trials of seen pictures, or its
                targets have no stores.
            BrainhiveError: if every person is known to all models.
        """
        # the run, with the recipe that trained it
        subjects = recipe.subjects if recipe.dataset is not None else None
        tested = recipe.dataset, subjects, recipe.copies, recipe.channel_mapping
        align = open_model(recipe.align_run, recipe.paths, *tested)
        refuse_sweep(align)
        training = align.recipe
        if training is None:
            raise RecipeError(
                (
                    f"{align.name} is a model folder, which does not say how it was "
                    "trained"
                ),
                "name its run",
            )
        is_unusual = bool(training.train.lora.encoders or training.targets)
        if is_unusual or align.dataset.holdout.divides_train:
            raise RecipeError(
                "calibrate reads the targets of heads from stores and holds out "
                f"pictures; {align.name} has targets, train.lora or dataset.holdout",
                "another run",
            )

        # each model with each person whom it has not learned from
        cells = []
        for model in align.models:
            cell = model.cell
            everybody = model.recordings.list_subjects(recipe.subjects)
            # people of another data set are all new
            known = (
                set()
                if align.tests_new_subjects
                else {*cell.trained_on, *model.learned.subjects}
            )
            cells += [
                replace(cell, tested_on=(one,)) for one in everybody if one not in known
            ]

        # every person that the recipe names must be new to a model
        wanted = {*(recipe.subjects or ())}
        new = {cell.tested_on[0] for cell in cells}
        if not cells or wanted - new:
            absent = ", ".join(map(str, sorted(wanted - new))) or "anybody"
            raise BrainhiveError(
                (
                    f"no model of {align.folder.path} has yet to learn from subject "
                    f"{absent}"
                ),
                (
                    "a run that was trained without them: --mode inter, or joint with "
                    "--subjects"
                ),
            )

        # pictures are the default unit, and the order of recording leaves nothing to
        # draw
        unit: Unit = next((unit for unit in UNITS if getattr(recipe, unit)), "pictures")
        is_ordered = recipe.order == "recording"

        # the run is named as fingerprints name it
        cells.sort(key=lambda cell: (cell.tested_on, cell.name))
        return cls(
            recipe=recipe.model_copy(update={"align_run": align.reference}),
            align=replace(align, selected_cells=cells),
            training=training,
            cells=cells,
            unit=unit,
            draws=1 if is_ordered else recipe.draws,
            needs_trials=unit != "pictures" or is_ordered,
            epochs=None if training.backbone.is_closed_form else training.train.epochs,
        )

    def inputs(self) -> Iterable[Input]:
        """List the run, signals and stores."""
        # training pictures calibrate, test pictures are ranked
        yield from self.align.list_inputs(["train", "test"])

    def have_start(self) -> bool:
        """Whether models went on from another one, of which nobody can be left out."""
        return self.training.mode == "finetune" or any(self.training.train.starts)

    def count_choosers(self, cell: Cell) -> int:
        """Count the people of a model who choose the strength of transfer, each left
        out in turn; 0 where nothing is to be chosen.
        """
        arms = {*self.recipe.arms}
        people = len(cell.trained_on)
        is_wanted = arms & {few_shot.TRANSFER, few_shot.PERMUTED_TRANSFER}
        is_chosen = len(self.recipe.transfer.pulls) > 1 and self.epochs is not None
        can_choose = is_wanted and is_chosen and people > 1 and not self.have_start()
        return people if can_choose else 0

    def count_work(self) -> Work:
        """Count the models that are trained, those that choose the strength of transfer
        included.
        """
        arms = [arm for arm in self.recipe.arms if arm in few_shot.TRAINED_ARMS]
        # everything is learned from once, whatever the number of draws
        amounts = getattr(self.recipe, self.unit) or PICTURES
        count = len(self.cells) * len(arms) * (len(amounts) * self.draws + 1)

        # each chooser: a model without that person, and one for each strength and draw
        transfer = self.recipe.transfer
        tried = len(transfer.pulls) * (len(amounts) * transfer.draws + 1)
        count += sum(map(self.count_choosers, self.cells)) * (1 + tried)
        kind = (
            f"{self.align.dataset.name}, {self.training.backbone.kind}, "
            f"{self.epochs or 0} epochs"
        )
        return Work(kind, count, "trained models", cells=len(self.cells) * self.draws)

    @cached_property
    def people(self) -> dict[int, Person]:
        """Open the recordings of all new persons, by their numbers.

        Raises:
            BrainhiveError: if nothing is left to learn from.
        """
        # models of several seeds share the recordings of a person
        cells = {cell.tested_on: cell for cell in self.cells}
        return {subject: self._open_person(cell) for (subject,), cell in cells.items()}

    def _open_person(self, cell: Cell) -> Person:
        """Open the recordings of a new person."""
        # embeddings of the tested pictures
        member, (subject,) = TrainedModel(self.align, cell), cell.tested_on
        rows = member.find_rows("test")
        test_stores = member.open_stores("test")
        targets = Targets.from_stores(
            test_stores, Launch(0, 1, "cpu"), member.layout.encoders
        )
        gallery = targets.gather(torch.from_numpy(rows))

        # trials that are learned from: never a tested picture, whatever it is called
        trials = read_raw(member, subject, "train", with_single=self.needs_trials)
        (train, pixels), (test, known) = map(
            get_stimuli_and_pixels, (member.open_stores("train"), test_stores)
        )
        name = self.align.dataset.pictured_as
        known = None if known is None else known[rows]
        tested_pictures = LearnedPictures.from_image_ids(
            name, test.image_ids[rows], known
        )
        confirm = self.align.get_pixel_comparison("train", "test")
        is_copy = tested_pictures.find_members(name, train.image_ids, pixels, confirm)
        is_dropped = is_copy[trials.stimulus]
        trials = trials.take(~is_dropped)

        # test trials of the pictures that are ranked
        tested = read_raw(member, subject, "test")
        tested = tested.take(np.isin(tested.stimulus, rows))
        if not len(trials.stimulus):
            raise BrainhiveError(
                f"subject {subject} has no picture to learn from", "other subjects"
            )
        return Person(subject, trials, int(is_dropped.sum()), tested, gallery, rows)

    def load_base(
        self, cell: Cell, launch: Launch, left_out: TrainedRun | None = None
    ) -> SourceModel:
        """Load the model of a cell, with what goes on from it to a new person.

        Args:
            cell: The cell.
            launch: This process, and its device.
            left_out: A run of the same recipe with one model, which learned from one
                person less; its new person is that one, of the run's own data set.
        """
        # the model, and targets of the stimuli that calibrate it
        run = left_out or self.align
        reader = TrainedModel(run, run.cells[0] if left_out else cell, launch.device)
        model = reader.module
        alone = Launch(0, 1, launch.device)
        targets = Targets.from_stores(
            reader.open_stores("train"), alone, model.layout.encoders
        )
        terms = self.training.loss_terms
        train = self.training.train

        # some recordings of the people whom it learned from, for statistics of these
        if left_out is None and self.recipe.dataset is not None:
            reader = replace(
                reader, run=open_model(self.recipe.align_run, self.recipe.paths)
            )

        # fewer stimuli where single trials are read, as each has several
        most = few_shot.MAX_REFERENCES // (4 if self.needs_trials else 1)
        trained = [
            read_raw(reader, subject, "train", with_single=self.needs_trials, most=most)
            for subject in reader.cell.trained_on
        ]

        # a prior's fuser stays frozen in every training
        fuser = model.fuser if model.layout.prior else None
        return SourceModel(model, targets, terms, train, trained, fuser)

    @cached_property
    def amounts(self) -> dict[str, float]:
        """List the amounts that every person has by their names, and everything.

        Raises:
            BrainhiveError: if minutes or the order of recording are asked for and
                onsets are not known.
        """
        trials = [person.trials for person in self.people.values()]
        amounts = getattr(self.recipe, self.unit) or PICTURES
        return limit_amounts(trials, self.unit, amounts, self.recipe.order)

    @cached_property
    def items(self) -> Items:
        """List the tested pictures of each person, and which of them are alike."""
        pictures = next(iter(self.align.open_stores("test").values()))
        rows = [person.tested.stimulus for person in self.people.values()]
        return group_rows(self.align.dataset, pictures, rows)

    def describe_protocol(self, is_together: bool = False) -> str:
        """Name the way of measuring, with all that a reader must know, as of trials
        decoded together.
        """
        align, spec = self.align, self.recipe
        words = [f"calibration of {align.mode}", align.dataset.name, align.variant]
        draws = f"{self.draws} draw{'s' if self.draws > 1 else ''}"
        # the recorded order has one draw, which need not be named
        words += [draws if spec.order == "draws" else "order of recording"]
        protocol = extend_protocol(
            ", ".join(filter(None, words)), align.list_caveats("test")
        )
        return extend_protocol(protocol, [TRIALS_TOGETHER] * is_together)


def read_raw(
    member: TrainedModel,
    subject: int,
    split: str,
    with_single: bool = False,
    most: int | None = None,
) -> Trials:
    """Read a person's signals as a model takes them, but not normalised.

    Args:
        member: The model.
        subject: Whose signals.
        split: Of the data set; tested pictures that the model has seen are left out.
        with_single: Whether single trials are read, not their averages.
        most: Pictures at most, evenly spaced; default: all.
    """
    # signals stay as recorded: arms fit the normalisation to what they may learn from
    is_tested = split == "test"
    trials = member.open_trials(
        subject, split, is_tested=is_tested, is_normalised=False
    )
    step = 1 if most is None else max(1, len(trials.stimulus) // most)
    trials = trials.take(np.arange(0, len(trials.stimulus), step))
    # signals are read here, before draws choose from them
    _ = trials.singles if with_single else trials.averages
    return trials
