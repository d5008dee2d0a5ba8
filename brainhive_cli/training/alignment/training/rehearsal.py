"""Rehearsal of the first training step of each cell, without reading signals."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from brainhive_cli.core.base import Int64, console
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.runs import Launch, count_processes
from brainhive_cli.data.signals import DrawSettings
from brainhive_cli.models import LossContext
from brainhive_cli.training.alignment import (
    Aligner,
    Cell,
    Layout,
    Recipe,
    list_subjects,
)
from brainhive_cli.training.alignment.training.batches import (
    Batches,
    CellData,
    SignalBank,
    list_test_queries,
    list_validation_queries,
    open_bank,
    rank_queries,
)
from brainhive_cli.training.alignment.training.initialisation import (
    copy_fuser,
    load_start,
)
from brainhive_cli.training.alignment.training.job import Job
from brainhive_cli.training.alignment.training.loop import (
    compute_loss,
    is_closed_form,
    split_held_out,
)
from brainhive_cli.training.alignment.training.objective import (
    Objective,
    count_epochs,
)
from brainhive_cli.training.alignment.training.optimisation import Learner
from brainhive_cli.training.alignment.training.training_data import TrainingData

ALONE = Launch(0, 1, "cpu")


def rehearse(job: Job) -> None:
    """Set up each cell as its training does, and compute one step without signals.

    Cells are skipped if their signals are not prepared yet, or if they train an
    encoder, whose network would have to be loaded.

    Raises:
        BrainhiveError: as the training of the cell does.
    """
    cells = [cell for cell in job.cells if _is_prepared(job, cell)]
    subjects = list_subjects(cells, with_tested=False)
    training_data: TrainingData | None = None
    rehearsed_keys = set[Any]()
    # the training itself repeats all messages
    with console.mute_messages(), console.divert_prints():
        for cell in cells:
            # cells that only differ in their seed are set up alike
            key = cell.fold, cell.trained_on, cell.tested_on
            if key in rehearsed_keys:
                continue
            rehearsed_keys.add(key)
            if training_data is None:
                training_data = TrainingData(job, subjects, ALONE, reads=False)
            if training_data.adapted is not None:
                continue
            layout, data = training_data.select_cell(cell, job)
            with _ignore_missing_values():
                if is_closed_form(layout):
                    _rehearse_closed_form(layout, data)
                    continue

                # tensors of other subjects often have equal shapes
                batches = _make_batches(job.recipe, data)
                spec = replace(layout.spec, subjects=(0,) * len(data.trials))
                shapes: list[Any] = [spec, batches.steps, data.start_files]
                shapes += [trials.width for trials in data.test_trials]
                step_key = str(shapes)
                if step_key not in rehearsed_keys:
                    rehearsed_keys.add(step_key)
                    _rehearse_steps(job.recipe, layout, data, batches)


def _is_prepared(job: Job, cell: Cell) -> bool:
    """Return True if the signals that a cell reads have been prepared."""
    is_tested = job.recipe.train.selection == "test"
    subjects = list_subjects([cell], with_tested=is_tested)
    return job.signals.are_prepared(subjects)


def _rehearse_closed_form(layout: Layout, data: CellData) -> None:
    """Build a model in closed form, load its start, and encode a few signals."""
    aligner = _build(layout, data)
    if parts.resolve("backbones", layout.backbone).continues:
        _load_starts(layout, data)

    # a classifier needs labels, and enough signals of each
    backbone: Any = aligner.backbone
    if hasattr(backbone, "number_categories"):
        for trials in data.trials:
            training_rows, _ = split_held_out(trials, data.held_out)
            embeddings = data.targets.gather(trials.stimulus[training_rows])
            backbone.number_categories(aligner.compute_targets(embeddings))
    _rank(_fill_with_zeros(aligner), data)


def _rehearse_steps(
    recipe: Recipe, layout: Layout, data: CellData, batches: Batches
) -> None:
    """Set up the training of a cell, and compute the loss of a step of each stage."""
    aligner = _build(layout, data)
    objective = Objective(recipe.loss_terms, layout.similarity == "centred_cosine")
    Learner(
        aligner,
        objective,
        recipe.train,
        batches.steps,
        data.start_files,
        feedback=batches.feedback,
    )
    _load_starts(layout, data)

    # two trials of each subject are enough, unless they fail
    aligner = _fill_with_zeros(aligner)
    rows = np.sort(batches.split_epoch(0, 0)[0])
    few_rows = _take_few(batches.samples, rows)
    for context in _list_contexts(recipe, batches.steps):
        aligner.train()
        with torch.no_grad():
            try:
                compute_loss(aligner, objective, batches, few_rows, context)
            except Exception:
                # a part may need more trials, and an error names the size of the batch
                compute_loss(aligner, objective, batches, rows, context)
    _rank(aligner, data)


def _build(layout: Layout, data: CellData) -> Aligner:
    """Build the model of a cell on the meta device, whose weights have no values."""
    with torch.device("meta"):
        aligner = Aligner(layout)
    copy_fuser(aligner, data)
    return aligner


def _load_starts(layout: Layout, data: CellData) -> None:
    """Load the weights from which each stage starts into a new model."""
    for start_files in data.start_files.values():
        for module_name, path in start_files.items():
            load_start(_build(layout, data), path, module_name)


def _fill_with_zeros(aligner: Aligner) -> Aligner:
    """Replace the weights by zeros of NumPy, which take no memory until written."""
    return aligner._apply(
        lambda weight: torch.from_numpy(np.zeros(weight.shape, "f4")).to(weight.dtype)
    )


def _make_batches(recipe: Recipe, data: CellData) -> Batches:
    """Make the batches of a cell, with zeros as signals."""
    # no augmentation is drawn for all trials at once
    augmentations: list[Any] = []
    for augmentation in recipe.train.augment.parts:
        has_key = isinstance(augmentation, DrawSettings)
        if has_key:
            augmentation = augmentation.model_copy(update={"drawn": "each_step"})
        augmentations.append(augmentation)
    augment = recipe.train.augment.model_copy(update={"parts": augmentations})
    settings = recipe.train.model_copy(update={"augment": augment})
    batches = Batches(data, settings, Launch(0, count_processes(recipe.run), "cpu"))
    batches.launch = ALONE
    batches.samples = _clear_signals(batches.samples)
    return batches


def _clear_signals(bank: SignalBank) -> SignalBank:
    """Replace the signals of a bank by zeros, which take no memory."""
    zeros = [torch.zeros(()).expand(tuple(signal.shape)) for signal in bank.signals]
    return replace(bank, signals=zeros)


def _take_few(bank: SignalBank, rows: Int64) -> Int64:
    """Take two of the ascending rows of each subject."""
    subject_rows = np.split(rows, np.searchsorted(rows, bank.first[1:]))
    return np.concatenate([some_rows[:2] for some_rows in subject_rows])


def _list_contexts(recipe: Recipe, steps: int) -> list[LossContext]:
    """List a step, as context of the losses, for each set of active terms."""
    n_epochs = recipe.train.epochs
    contexts = dict[tuple[bool, ...], LossContext]()
    for epoch in range(n_epochs):
        # the weight of a wave may be 0 at the beginning of an epoch
        for steps_done in (0, steps // 2):
            step = epoch * steps + steps_done
            context = LossContext(None, step, epoch, n_epochs, steps=steps)
            moment = count_epochs(context)
            is_active = [bool(term.weight_at(moment)) for term in recipe.loss_terms]
            contexts.setdefault(tuple(is_active), context)
    return list(contexts.values())


def _rank(aligner: Aligner, data: CellData) -> None:
    """Rank the pictures of two signals of each subject, as after an epoch."""
    averages = open_bank(data.trials, ALONE.device, is_mapped=True)
    validation_queries = list_validation_queries(data, averages)
    test_queries = list_test_queries(data, ALONE.device)
    for bank, rows in validation_queries + test_queries:
        query = _clear_signals(bank), _take_few(bank, rows)
        targets = data.targets if bank is averages else data.test_targets
        rank_queries(aligner, [query], targets, "fp32", ALONE)


@contextmanager
def _ignore_missing_values() -> Iterator[None]:
    """Context manager that ignores that a network asks for values it does not have.

    Weights on the meta device have no values. Errors of torch name the device.
    """
    try:
        yield
    except (NotImplementedError, RuntimeError) as error:
        if "meta" not in str(error):
            raise
