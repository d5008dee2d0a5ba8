"""Rehearsal of the first training step of each cell, without reading signals."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brainhive_cli.core import console, parts
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch, count_processes
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.signals.augmentations import DrawSettings
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.models.losses import LossContext, Mixing
from brainhive_cli.training.alignment.cells import Cell, list_subjects
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.stages import Train
from brainhive_cli.training.alignment.terms import find_mixing
from brainhive_cli.training.alignment.training.batches import (
    FLOAT32,
    Batches,
    CellData,
    Query,
    list_test_queries,
    list_validation_queries,
    open_bank,
)
from brainhive_cli.training.alignment.training.initialisation import (
    copy_fuser,
    load_start,
)
from brainhive_cli.training.alignment.training.job import Job
from brainhive_cli.training.alignment.training.loop import (
    forward,
    is_closed_form,
    split_held_out,
)
from brainhive_cli.training.alignment.training.objective import Objective
from brainhive_cli.training.alignment.training.optimisation import Learner
from brainhive_cli.training.alignment.training.training_data import TrainingData

ALONE = Launch(0, 1, "cpu")
MAX_WEIGHTS = 200_000_000
"""Largest number of weights with which a step is computed on the CPU. A step of two
trials then takes less than the 3 s in which torch loads its meta functions.
"""
META = torch.device("meta")
"""Device of tensors with a shape but no values, which take no memory and no time."""


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
    set_up_keys = set[Any]()
    step_keys = set[Any]()
    # the training itself repeats all messages
    with console.mute_messages(), console.divert_prints():
        for cell in cells:
            # cells that only differ in their seed are set up alike
            key = cell.variant, cell.fold, cell.trained_on, cell.tested_on
            if key in set_up_keys:
                continue
            set_up_keys.add(key)
            recipe = job.variants[cell.variant]
            if training_data is None or not training_data.is_compatible(recipe):
                training_data = TrainingData(
                    job, recipe, job.stores, subjects, ALONE, reads=False
                )
            if training_data.adapted is not None:
                continue
            layout, data = training_data.select_cell(cell)
            if is_closed_form(layout):
                with _ignore_missing_values():
                    _rehearse_closed_form(layout, data)
            else:
                _rehearse_steps(cell.variant, recipe, layout, data, step_keys)


def _is_prepared(job: Job, cell: Cell) -> bool:
    """Return True if the signals that a cell reads have been prepared."""
    recipe = job.variants[cell.variant]
    is_tested = recipe.train.selection == "test"
    subjects = list_subjects([cell], with_tested=is_tested)
    return job.signals(recipe).are_prepared(subjects)


def _rehearse_closed_form(layout: Layout, data: CellData) -> None:
    """Build a model in closed form, load its start, and encode a few signals."""
    aligner = _build(layout, data)
    if parts.resolve("backbones", layout.backbone).continues:
        for module_name, path in data.start_files.get(0, {}).items():
            load_start(_build(layout, data), path, module_name)

    # a classifier needs labels, and enough signals of each
    backbone: Any = aligner.backbone
    if hasattr(backbone, "number_categories"):
        for trials in data.trials:
            training_rows, _ = split_held_out(trials, data.held_out)
            embeddings = data.targets.gather(trials.stimulus[training_rows])
            backbone.number_categories(aligner.compute_targets(embeddings))
    averages = open_bank(data.trials, ALONE.device, is_mapped=True)
    queries = list_validation_queries(data, averages)
    _score(_build_with_zeros(layout, data), queries, data.targets)


def _rehearse_steps(
    variant: str, recipe: Recipe, layout: Layout, data: CellData, step_keys: set[Any]
) -> None:
    """Set up the training of a cell, and compute the loss of a step of each stage.

    Args:
        step_keys: Keys of rehearsed steps, equal for tensors of equal shapes. The key
            of this cell is added.
    """
    # set up the batches, and replace their signals by zeros
    settings = _draw_in_each_step(recipe.train)
    batches = Batches(data, settings, Launch(0, count_processes(recipe.run), "cpu"))
    batches.launch = ALONE
    rows = np.sort(batches.split_epoch(0, 0)[0])
    zeros = [_make_zeros(signal.shape) for signal in batches.samples.signals]
    batches.samples = replace(batches.samples, signals=zeros)
    validation_queries = list_validation_queries(data, batches.averages)
    test_queries = []
    if settings.selection in ("test", "recordings"):
        test_queries = list_test_queries(data, ALONE.device)

    # skip a cell whose tensors have the shapes of an earlier cell
    test_shapes = []
    for bank, _ in test_queries:
        test_shapes.append([tuple(signal.shape[1:]) for signal in bank.signals])
    group_sizes = list(map(len, batches.samples.split(rows)))
    anonymous_spec = replace(layout.spec, subjects=(0,) * len(layout.spec.subjects))
    starts: list[tuple[str, Path]] = []
    for stage_starts in data.start_files.values():
        starts += stage_starts.items()
    shapes = group_sizes, anonymous_spec, starts, test_shapes, validation_queries == []
    key = variant, batches.steps, str(shapes)
    if key in step_keys:
        return
    step_keys.add(key)

    # set up the model, the loss and the stages, which may start from other weights
    with _ignore_missing_values():
        aligner = _build(layout, data)
        objective = Objective(recipe.loss_terms, layout.similarity == "centred_cosine")
        Learner(
            aligner,
            objective,
            settings,
            batches.steps,
            data.start_files,
            feedback=batches.feedback,
        )
        for module_name, path in starts:
            load_start(_build(layout, data), path, module_name)

        # two trials are enough, but an error names the size of the whole batch
        network = _build_with_zeros(layout, data)
        for context in _list_contexts(recipe, batches.steps):
            try:
                _compute_step(network, objective, batches, rows, context)
            except BrainhiveError:
                with _ignore_missing_values():
                    _compute_step(aligner, objective, batches, rows, context)
                raise
        _score(network, validation_queries, data.targets)
        _score(network, test_queries, data.test_targets)


def _build(layout: Layout, data: CellData) -> Aligner:
    """Build the model of a cell on the meta device."""
    with META:
        aligner = Aligner(layout)
    copy_fuser(aligner, data)
    return aligner.to(META)


def _build_with_zeros(layout: Layout, data: CellData) -> Aligner:
    """Build the model of a cell with zeros as weights, if it is not too large."""
    aligner = _build(layout, data)
    if sum(weight.numel() for weight in aligner.parameters()) > MAX_WEIGHTS:
        return aligner
    for module in aligner.modules():
        # zeros take no memory before they are written
        for name, weight in list(module.named_parameters(recurse=False)):
            zeros = torch.zeros(weight.shape, dtype=weight.dtype)
            setattr(module, name, nn.Parameter(zeros, requires_grad=False))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.zeros(buffer.shape, dtype=buffer.dtype))
    return aligner


def _draw_in_each_step(train: Train) -> Train:
    """Change the settings so that no augmentation is drawn for all trials at once."""
    augmentations: list[Any] = []
    for augmentation in train.augment.parts:
        has_key = isinstance(augmentation, DrawSettings)
        if has_key:
            augmentation = augmentation.model_copy(update={"drawn": "each_step"})
        augmentations.append(augmentation)
    augment = train.augment.model_copy(update={"parts": augmentations})
    return train.model_copy(update={"augment": augment})


def _make_zeros(shape: Sequence[int]) -> LazyRows:
    """Make an array [N, ...] of zeros that takes no memory."""
    size = tuple(shape)
    return LazyRows(
        size, FLOAT32, lambda rows: np.zeros((len(rows),) + size[1:], np.float32)
    )


def _list_contexts(recipe: Recipe, steps: int) -> list[LossContext]:
    """List a step, as context of the losses, for each set of active terms."""
    n_epochs = recipe.train.epochs
    contexts = dict[tuple[bool, ...], LossContext]()
    for epoch in range(n_epochs):
        # the weight of a wave may be 0 at the beginning of an epoch
        for steps_done in (0, steps // 2):
            moment = epoch + steps_done / steps
            is_active = [bool(term.weight_at(moment)) for term in recipe.loss_terms]
            context = LossContext(None, epoch * steps + steps_done, epoch, n_epochs)
            contexts.setdefault(tuple(is_active), replace(context, steps=steps))
    return list(contexts.values())


def _compute_step(
    aligner: Aligner,
    objective: Objective,
    batches: Batches,
    rows: Int64,
    context: LossContext,
) -> None:
    """Compute the loss of two trials of each micro-batch, to find errors.

    On the meta device, the tensors have the shapes of the whole batch, whose ascending
    rows are `rows` [B].
    """
    groups = batches.samples.split(rows)
    few_rows = np.concatenate([group[:2] for group in groups])
    mixing = find_mixing(objective.terms, context.step / context.steps)
    micro_batches, embeddings, batch_context = batches.draw(few_rows, 0, mixing)
    mixing_of_batch = batch_context.mixing
    stimuli = batch_context.stimuli

    # give the tensors of two trials the shapes of the whole batch
    if aligner.device == META:
        n_rows = len(rows)
        large_batches = []
        for (signal, subject), group in zip(micro_batches, groups, strict=True):
            large_batches.append(
                (_resize(signal, len(group)), _resize(subject, len(group)))
            )
        micro_batches = large_batches
        embeddings = {key: _resize(value, n_rows) for key, value in embeddings.items()}
        if stimuli is not None:
            stimuli = _resize(stimuli, n_rows)
        if mixing_of_batch is not None:
            mixing_of_batch = Mixing(
                _resize(mixing_of_batch.partner, n_rows),
                _resize(mixing_of_batch.share, n_rows),
            )

    # compute the loss, and the similarities that choose the next targets
    context = replace(context, mixing=mixing_of_batch, stimuli=stimuli)
    predicted, targets = forward(aligner.train(), micro_batches, embeddings, context)
    objective.to(aligner.device)(predicted, targets, context)
    if batches.feedback is not None:
        objective.compare_pairs(predicted, targets, context)


def _resize(tensor: Tensor, n_rows: int) -> Tensor:
    """Make a tensor [n_rows, ...] on the meta device."""
    shape = (n_rows,) + tensor.shape[1:]
    return torch.empty(shape, dtype=tensor.dtype, device=META)


def _score(aligner: Aligner, queries: Sequence[Query], targets: Targets) -> None:
    """Encode two signals of each subject and two pictures as validation does."""
    if not queries:
        return
    device = aligner.device
    aligner.eval()
    embeddings = {}
    for key, shape in targets.shapes.items():
        if key in aligner.layout.compared_keys:
            embeddings[key] = torch.zeros((2,) + shape, device=device)
    with torch.inference_mode():
        aligner.encode_image(embeddings)
        for bank, _ in queries:
            # a subject that is new to the model has no index
            has_known_subjects = bool((bank.subject >= 0).all())
            for subject, signals in enumerate(bank.signals):
                index = None
                if has_known_subjects:
                    index = torch.full((2,), subject, device=device)
                signal_shape = (2,) + tuple(signals.shape[1:])
                signal = torch.zeros(signal_shape, device=device)
                aligner.encode_signal(signal, index)


@contextmanager
def _ignore_missing_values() -> Iterator[None]:
    """Context manager that ignores errors of torch on the meta device.

    A network may ask for values that the device lacks. A `BrainhiveError` passes.
    """
    try:
        yield
    except BrainhiveError:
        raise
    except Exception:
        return
