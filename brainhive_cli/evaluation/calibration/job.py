"""Work of calibrate: models of other people, and recordings of new persons."""

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
    """Recordings of a new person.

    Attributes:
        subject: Number of the person.
        trials: Trials that may be used for training. They show no tested picture.
        dropped: Number of training pictures that were left out, because they or copies
            of them are tested.
        tested: Test trials, not normalised.
        gallery: Embeddings [M, ...] of the tested pictures, by encoder.
        rows: Row [M] of these pictures in the target stores, ascending.
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
        recipe: Recipe, in which the reference to the run does not depend on the home
            folder.
        align: Run of the models, opened on the data set of the new persons.
        training: Recipe of the training of the models.
        cells: Cell of each model with each new person, who is the tested subject.
        unit: Unit of the amounts.
        draws: Number of draws of each amount.
        needs_trials: True if single trials of a picture may be used for training.
        epochs: Epochs of each training, or None in closed form.
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
        """Find the run of a recipe, and the people who are new to its models.

        Raises:
            RecipeError: if the run is a sweep or a model folder, holds out trials of
                seen pictures, or has targets without stores.
            BrainhiveError: if a requested person, or everybody, is known to all models.
        """
        align = open_model(
            recipe.align_run,
            recipe.paths,
            dataset=recipe.dataset,
            subjects=recipe.subjects if recipe.dataset is not None else None,
            copies=recipe.copies,
            channel_mapping=recipe.channel_mapping,
        )
        refuse_sweep(align)
        training = align.recipe
        if training is None:
            raise RecipeError(
                f"{align.name} is a model folder without the recipe of its training",
                "name the run that trained it: --run RUN",
            )
        has_other_targets = training.train.lora.encoders or training.targets
        if has_other_targets or align.dataset.holdout.divides_train:
            raise RecipeError(
                "calibrate reads the targets of heads from stores and holds out "
                f"pictures; {align.name} has targets, train.lora or dataset.holdout",
                "name another run",
            )

        # combine each model with the people it was not trained on
        cells = []
        new_subjects = set[int]()
        for model in align.models:
            cell = model.cell
            known_subjects = set[int]()
            if not align.tests_new_subjects:
                known_subjects = {*cell.trained_on, *model.learned.subjects}
            for subject in model.recordings.list_subjects(recipe.subjects):
                if subject not in known_subjects:
                    cells.append(replace(cell, tested_on=(subject,)))
                    new_subjects.add(subject)
        cells.sort(key=lambda cell: (cell.tested_on, cell.name))

        # every requested person must be new to a model
        known_requests = sorted(set(recipe.subjects or ()) - new_subjects)
        if not cells or known_requests:
            names = "all people of the data set"
            if known_requests:
                names = f"subject {', '.join(map(str, known_requests))}"
            raise BrainhiveError(
                f"all models of {align.folder.path} were trained on {names}",
                "train models without them: brainhive train-align --mode inter, or "
                "--mode joint --subjects OTHERS",
            )

        # pictures are the default unit, and the recorded order is a single draw
        unit: Unit = "pictures"
        for name in UNITS:
            if recipe.list_amounts(name):
                unit = name
        is_ordered = recipe.order == "recording"
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
        """List the run, the signals and the embeddings."""
        yield from self.align.list_inputs(["train", "test"])

    def has_start(self) -> bool:
        """Return True if the models were trained from others, which know everybody."""
        return self.training.mode == "finetune" or any(self.training.train.starts)

    def count_choosers(self, cell: Cell) -> int:
        """Count the people by whose accuracy the strength of transfer is chosen.

        The strength pulls the model of a new person towards the model of other people.

        Returns:
            The number of people, or 0 if the strength need not or cannot be chosen.
        """
        n_people = len(cell.trained_on)
        arms = self.recipe.arms
        has_transfer = few_shot.TRANSFER in arms or few_shot.PERMUTED_TRANSFER in arms
        has_choice = len(self.recipe.transfer.pulls) > 1 and self.epochs is not None
        can_choose = n_people > 1 and not self.has_start()
        return n_people if has_transfer and has_choice and can_choose else 0

    def count_work(self) -> Work:
        """Count the trained models, with the models that choose the strength."""
        recipe = self.recipe
        n_arms = sum(arm in few_shot.TRAINED_ARMS for arm in recipe.arms)
        # all recordings are used in a single draw
        n_amounts = len(recipe.list_amounts(self.unit) or PICTURES)
        count = len(self.cells) * n_arms * (n_amounts * self.draws + 1)

        # choosing needs a model without each person, and one per strength and draw
        transfer = recipe.transfer
        n_models = len(transfer.pulls) * (n_amounts * transfer.draws + 1)
        n_choosers = sum(map(self.count_choosers, self.cells))
        count += n_choosers * (1 + n_models)
        kind = (
            f"{self.align.dataset.name}, {self.training.backbone.kind}, "
            f"{self.epochs or 0} epochs"
        )
        return Work(kind, count, "trained models", cells=len(self.cells) * self.draws)

    @cached_property
    def people(self) -> dict[int, Person]:
        """Recordings of all new persons, by their numbers.

        Raises:
            BrainhiveError: if a person has no picture to train on.
        """
        # models of several seeds share the recordings of a person
        cell_of_subject = {cell.tested_on[0]: cell for cell in self.cells}
        return {
            subject: self._open_person(cell)
            for subject, cell in cell_of_subject.items()
        }

    def _open_person(self, cell: Cell) -> Person:
        """Open the recordings of the new person of a cell."""
        # embeddings of the tested pictures
        reader = TrainedModel(self.align, cell)
        subject = cell.tested_on[0]
        rows = reader.find_rows("test")
        test_stores = reader.open_stores("test")
        targets = Targets.from_stores(
            test_stores, Launch(0, 1, "cpu"), reader.layout.encoders
        )
        gallery = targets.gather(torch.from_numpy(rows))

        # leave out trials of tested pictures, even under another name
        trials = read_raw(reader, subject, "train", reads_singles=self.needs_trials)
        train_store, train_pixels = get_stimuli_and_pixels(reader.open_stores("train"))
        test_store, test_pixels = get_stimuli_and_pixels(test_stores)
        if test_pixels is not None:
            test_pixels = test_pixels[rows]
        name = self.align.dataset.pictured_as
        tested_pictures = LearnedPictures.from_image_ids(
            name, test_store.image_ids[rows], test_pixels
        )
        is_tested = tested_pictures.find_members(
            name,
            train_store.image_ids,
            train_pixels,
            self.align.get_pixel_comparison("train", "test"),
        )
        is_dropped = is_tested[trials.stimulus]
        trials = trials.take(~is_dropped)

        # keep the test trials of pictures with embeddings
        test_trials = read_raw(reader, subject, "test")
        test_trials = test_trials.take(np.isin(test_trials.stimulus, rows))
        if not len(trials.stimulus):
            raise BrainhiveError(
                f"subject {subject} has no training picture outside the test pictures",
                "choose other people: --subjects",
            )
        return Person(
            subject, trials, int(is_dropped.sum()), test_trials, gallery, rows
        )

    def load_base(
        self, cell: Cell, launch: Launch, reduced_run: TrainedRun | None = None
    ) -> SourceModel:
        """Load the model of other people, from which a new person's models start.

        Args:
            cell: Cell of the model.
            launch: Process and device.
            reduced_run: Run of a model without one of its people, which is loaded
                instead, if any.
        """
        if reduced_run is None:
            reader = TrainedModel(self.align, cell, launch.device)
        else:
            reader = TrainedModel(reduced_run, reduced_run.cells[0], launch.device)
        model = reader.module
        targets = Targets.from_stores(
            reader.open_stores("train"),
            Launch(0, 1, launch.device),
            model.layout.encoders,
        )

        # recordings of the people of the model come from its own data set
        if reduced_run is None and self.recipe.dataset is not None:
            run = open_model(self.recipe.align_run, self.recipe.paths)
            reader = replace(reader, run=run)
        # pictures have several single trials, so fewer pictures are read
        max_pictures = few_shot.MAX_REFERENCE_TOKENS // (4 if self.needs_trials else 1)
        recordings = []
        for subject in reader.cell.trained_on:
            trials = read_raw(
                reader,
                subject,
                "train",
                reads_singles=self.needs_trials,
                max_pictures=max_pictures,
            )
            recordings.append(trials)

        # the fuser of a prior is not trained further
        fuser = model.fuser if model.layout.prior else None
        return SourceModel(
            model,
            targets,
            self.training.loss_terms,
            self.training.train,
            recordings,
            fuser,
        )

    @cached_property
    def amounts(self) -> dict[str, float]:
        """Amounts that every person has, by name, ascending.

        Raises:
            BrainhiveError: if onsets are needed and unknown.
        """
        trials = [person.trials for person in self.people.values()]
        amounts = self.recipe.list_amounts(self.unit) or PICTURES
        return limit_amounts(trials, self.unit, amounts, self.recipe.order)

    @cached_property
    def items(self) -> Items:
        """Tested pictures of each person, with their units."""
        store = next(iter(self.align.open_stores("test").values()))
        rows = [person.tested.stimulus for person in self.people.values()]
        return group_rows(self.align.dataset, store, rows)

    def describe_protocol(self, is_together: bool = False) -> str:
        """Describe the protocol of the measurement, with its caveats.

        Args:
            is_together: If True, the token of a test trial depends on the others.
        """
        align = self.align
        draws = f"{self.draws} draw{'s' if self.draws > 1 else ''}"
        if self.recipe.order == "recording":
            draws = "order of recording"
        mode = f"calibration of {align.mode}"
        phrases = [mode, align.dataset.name, align.variant, draws]
        description = ", ".join(filter(None, phrases))
        protocol = extend_protocol(description, align.list_caveats("test"))
        return extend_protocol(protocol, [TRIALS_TOGETHER] if is_together else [])


def read_raw(
    reader: TrainedModel,
    subject: int,
    split: str,
    reads_singles: bool = False,
    max_pictures: int | None = None,
) -> Trials:
    """Read the signals of a person as a model takes them, but not normalised.

    Each arm (method of calibration) normalises by the recordings that it is trained on.

    Args:
        reader: Model that selects the signals.
        subject: Number of the person.
        split: Split of the data set. Test pictures that the model has seen are left
            out.
        reads_singles: If True, read single trials instead of averages.
        max_pictures: Largest number of pictures, evenly spaced. None reads all.
    """
    trials = reader.open_trials(
        subject, split, is_tested=split == "test", is_normalised=False
    )
    n_pictures = len(trials.stimulus)
    step = 1 if max_pictures is None else max(1, n_pictures // max_pictures)
    trials = trials.take(np.arange(0, n_pictures, step))
    # read the signals now, before draws select from them
    _ = trials.singles if reads_singles else trials.averages
    return trials
