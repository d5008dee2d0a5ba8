"""Work of calibrate: models of other people, and recordings of new persons."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.base import Bool, BrainhiveError, Int64, RecipeError
from brainhive_cli.core.files import Input
from brainhive_cli.core.results import extend_protocol
from brainhive_cli.core.runs import Launch, Work
from brainhive_cli.data.datasets import group_rows
from brainhive_cli.data.signals import Trials
from brainhive_cli.data.stores import LearnedPictures, get_stimuli_and_pixels
from brainhive_cli.data.targets import Targets
from brainhive_cli.evaluation.calibration.amounts import UNITS, Unit, limit_amounts
from brainhive_cli.evaluation.calibration.recipe import PICTURES, Recipe
from brainhive_cli.measurement import Items
from brainhive_cli.training.alignment import Cell, Recipe as Training
from brainhive_cli.training.alignment.trained import (
    SourceModel,
    TestedPerson,
    TestJob,
    TestSet,
    few_shot,
    open_model,
    open_test_set,
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
class Job(TestJob):
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
            RecipeError: if the run is a model folder, holds out trials of
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
        for cell in align.cells:
            known_subjects = set[int]()
            if not align.tests_new_subjects:
                history = align.open(cell).history
                known_subjects = {*cell.trained_on, *history.subjects}
            recordings = align.recordings
            for subject in recordings.list_subjects(recipe.subjects):
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
            align=replace(align, cells=cells),
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
        tests = self.tests
        is_tested = self._find_tested_pictures()
        rows = tests.find_rows("test")
        people = {}
        for subject, cell in cell_of_subject.items():
            # embeddings of the tested pictures
            model = self.align.open(cell)
            targets = Targets.from_stores(
                tests.open_stores("test"), Launch(0, 1, "cpu"), model.layout.encoders
            )
            gallery = targets.gather(torch.from_numpy(rows))

            # leave out trials of tested pictures, and of pictures without embeddings
            person = tests.open_person(model, subject)
            trials = read_training(person, reads_singles=self.needs_trials)
            is_dropped = is_tested[trials.stimulus]
            trials = trials.take(~is_dropped)
            if not len(trials.stimulus):
                raise BrainhiveError(
                    f"subject {subject} has no training picture outside the test "
                    "pictures",
                    "choose other people: --subjects",
                )
            test_trials = person.raw_trials
            _ = test_trials.averages  # read once for all draws
            test_trials = test_trials.take(np.isin(test_trials.stimulus, rows))
            people[subject] = Person(
                subject, trials, int(is_dropped.sum()), test_trials, gallery, rows
            )
        return people

    def _find_tested_pictures(self) -> Bool:
        """Find the training pictures [N] that are tested, even under another name."""
        tests = self.tests
        rows = tests.find_rows("test")
        train_store, train_pixels = get_stimuli_and_pixels(tests.open_stores("train"))
        test_store, test_pixels = get_stimuli_and_pixels(tests.open_stores("test"))
        if test_pixels is not None:
            test_pixels = test_pixels[rows]
        name = tests.dataset.pictured_as
        tested_pictures = LearnedPictures.from_image_ids(
            name, test_store.image_ids[rows], test_pixels
        )
        return tested_pictures.find_members(
            name,
            train_store.image_ids,
            train_pixels,
            tests.make_comparison("train", "test"),
        )

    def load_base(
        self, cell: Cell, launch: Launch, reduced_tests: TestSet | None = None
    ) -> SourceModel:
        """Load the model of other people, from which a new person's models start.

        Args:
            cell: Cell of the model.
            launch: Process and device.
            reduced_tests: Test set of a model without one of its people, which is
                loaded instead, if any.
        """
        tests = self.tests
        if reduced_tests is not None:
            tests = reduced_tests
            cell = tests.run.cells[0]
        model = tests.run.open(cell, launch.device)
        targets = Targets.from_stores(
            tests.open_stores("train"),
            Launch(0, 1, launch.device),
            model.layout.encoders,
        )

        # recordings of the people of the model come from its own data set
        if reduced_tests is None and self.recipe.dataset is not None:
            own_run = open_model(self.recipe.align_run, self.recipe.paths)
            model = own_run.open(cell, launch.device)
            tests = open_test_set(own_run, "train")
        # pictures have several single trials, so fewer pictures are read
        max_pictures = few_shot.MAX_REFERENCE_TOKENS // (4 if self.needs_trials else 1)
        recordings = []
        for subject in cell.trained_on:
            person = tests.open_person(model, subject)
            recordings.append(read_training(person, self.needs_trials, max_pictures))

        # the fuser of a prior is not trained further
        module = model.module
        fuser = module.fuser if module.layout.prior else None
        return SourceModel(
            module,
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
        store = self.tests.open_pictures("test")
        rows = [person.tested.stimulus for person in self.people.values()]
        return group_rows(self.align.dataset, store, rows)

    def describe_protocol(self, caveats: Sequence[str]) -> str:
        """Describe the protocol of the measurement, with its caveats."""
        align = self.align
        draws = f"{self.draws} draw{'s' if self.draws > 1 else ''}"
        if self.recipe.order == "recording":
            draws = "order of recording"
        mode = f"calibration of {align.mode}"
        phrases = [mode, align.dataset.name, draws]
        description = ", ".join(filter(None, phrases))
        return extend_protocol(description, caveats)


def read_training(
    person: TestedPerson, reads_singles: bool, max_pictures: int | None = None
) -> Trials:
    """Read the training signals of a person as a model takes them, not normalised.

    Each arm (method of calibration) normalises by the recordings that it is trained on.

    Args:
        person: Person, as a model reads the signals.
        reads_singles: If True, read single trials instead of averages.
        max_pictures: Largest number of pictures, evenly spaced. None reads all.
    """
    trials = person.read("train")
    n_pictures = len(trials.stimulus)
    step = 1 if max_pictures is None else max(1, n_pictures // max_pictures)
    trials = trials.take(np.arange(0, n_pictures, step))
    # read the signals now, before draws select from them
    _ = trials.singles if reads_singles else trials.averages
    return trials
