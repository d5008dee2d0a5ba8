"""One step of each cell by shapes alone, which refuses what its training would."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brainhive_cli.core import console, parts
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch, count_processes
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.models.losses import LossContext, Mixing
from brainhive_cli.training.alignment.cells import Cell, list_subjects
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.stages import Train
from brainhive_cli.training.alignment.terms import mixing_of
from brainhive_cli.training.alignment.training.batches import (
    FLOAT32,
    Batches,
    CellData,
    Query,
    open_bank,
    select_held_out,
    select_tested,
)
from brainhive_cli.training.alignment.training.initialisation import (
    load_start,
    take_fuser,
)
from brainhive_cli.training.alignment.training.job import Job
from brainhive_cli.training.alignment.training.loop import (
    forward,
    is_closed_form,
    split_known,
)
from brainhive_cli.training.alignment.training.objective import Objective
from brainhive_cli.training.alignment.training.optimisation import Learner
from brainhive_cli.training.alignment.training.training_data import TrainingData

ALONE = Launch(0, 1, "cpu")
MAX_WEIGHTS = 200_000_000
"""Most weights of a network that is called with numbers: a step of two trials then
takes less time than the 3 s for which torch loads how to call one without.
"""
META = torch.device("meta")
"""Where tensors have a shape and no values, so that a network of any size is made and
called at once.
"""


def rehearse(job: Job) -> None:
    """Lay out each cell as the run does, and take one step of it without values.

    No signal is read. Cells whose signals are still to be prepared are left out, and so
    are cells that change their encoder, whose network would have to be loaded.

    Raises:
        BrainhiveError: as the training of the cell does.
    """
    cells = [cell for cell in job.cells if _is_prepared(job, cell)]
    subjects = list_subjects(cells, with_tested=False)
    opened: TrainingData | None = None
    laid_out, rehearsed = set[Any](), set[Any]()
    # the run itself says what there is to say
    with console.mute_messages(), console.divert_prints():
        for cell in cells:
            # cells that differ in their seed are alike
            key = cell.variant, cell.fold, cell.trained_on, cell.tested_on
            if key in laid_out:
                continue
            laid_out.add(key)
            recipe = job.variants[cell.variant]
            if opened is None or not opened.is_compatible(recipe):
                opened = TrainingData(job, recipe, job.stores, subjects, ALONE, False)
            if opened.adapted is not None:
                continue
            layout, data = opened.select_cell(cell)
            if is_closed_form(layout):
                with _values_may_lack():
                    _rehearse_closed_form(layout, data)
            else:
                _rehearse_steps(cell.variant, recipe, layout, data, rehearsed)


def _is_prepared(job: Job, cell: Cell) -> bool:
    """Return True if the signals that a cell reads have been prepared."""
    recipe = job.variants[cell.variant]
    is_tested = recipe.train.selection == "test"
    subjects = list_subjects([cell], with_tested=is_tested)
    return job.signals(recipe).are_prepared(subjects)


def _rehearse_closed_form(layout: Layout, data: CellData) -> None:
    """Build a backbone that has no steps, load what it begins with, and score it."""
    aligner = _build(layout, data)
    if parts.resolve("backbones", layout.backbone).continues:
        for part, path in data.starts.get(0, {}).items():
            load_start(_build(layout, data), path, part)

    # a classifier needs labels, and enough signals of each
    backbone: Any = aligner.backbone
    if hasattr(backbone, "number_categories"):
        for trials in data.trials:
            learned, _ = split_known(trials, data.held_out)
            embeddings = data.targets.gather(trials.stimulus[learned])
            backbone.number_categories(aligner.targets(embeddings))
    averages = open_bank(data.trials, ALONE.device, is_mapped=True)
    queries = select_held_out(data, averages)
    _score(_fill_with_zeros(layout, data), queries, data.targets)


def _rehearse_steps(
    variant: str, recipe: Recipe, layout: Layout, data: CellData, rehearsed: set[Any]
) -> None:
    """Lay out the batches of a cell, and take the first step of each stage of its loss.

    Args:
        variant: Label of the cell's recipe.
        recipe: Settings of the cell.
        layout: Architecture of its model.
        data: What it learns from.
        rehearsed: Shapes of the cells whose steps were taken before. Those of this one
            are added.
    """
    # the batches, whose signals are blank from here on
    settings = _draw_in_each_step(recipe.train)
    batches = Batches(data, settings, Launch(0, count_processes(recipe.run), "cpu"))
    batches.launch = ALONE
    rows = np.sort(batches.epoch(0, 0)[0])
    bank = batches.samples
    batches.samples = replace(bank, signals=[_blank(s.shape) for s in bank.signals])

    # cells of equal shapes share the steps
    validation = select_held_out(data, batches.averages)
    is_tested = settings.selection in ("test", "recordings")
    tested = select_tested(data, ALONE.device) if is_tested else []
    shapes = [[tuple(s.shape[1:]) for s in scored.signals] for scored, _ in tested]
    sizes = [len(part) for part in batches.samples.split(rows)]
    anyone = replace(layout.spec, subjects=(0,) * len(layout.spec.subjects))
    starts = [start for stage in data.starts.values() for start in stage.items()]
    key = variant, batches.steps, str((sizes, anyone, starts, shapes, validation == []))
    if key in rehearsed:
        return
    rehearsed.add(key)

    # the model, the loss and the stages, each of which may start from other weights
    with _values_may_lack():
        aligner = _build(layout, data)
        objective = Objective(recipe.loss_terms, layout.similarity == "centred_cosine")
        starts_of, feedback = data.starts, batches.feedback
        Learner(
            aligner, objective, settings, batches.steps, starts_of, feedback=feedback
        )
        for part, path in starts:
            load_start(_build(layout, data), path, part)

        # two trials tell as much as a batch, whose size the words of a refusal have
        network = _fill_with_zeros(layout, data)
        for context in _list_moments(recipe, batches.steps):
            try:
                _step(network, objective, batches, rows, context)
            except BrainhiveError:
                with _values_may_lack():
                    _step(aligner, objective, batches, rows, context)
                raise
        _score(network, validation, data.targets)
        _score(network, tested, data.tested_targets)


def _build(layout: Layout, data: CellData) -> Aligner:
    """Build the model of a cell without values."""
    with META:
        aligner = Aligner(layout)
    take_fuser(aligner, data)
    return aligner.to(META)


def _fill_with_zeros(layout: Layout, data: CellData) -> Aligner:
    """Build the model of a cell with weights of 0, unless it is large."""
    aligner = _build(layout, data)
    if sum(weight.numel() for weight in aligner.parameters()) > MAX_WEIGHTS:
        return aligner
    for module in aligner.modules():
        # memory of zeros takes none before it is written
        for name, weight in [*module.named_parameters(recurse=False)]:
            zeros = torch.zeros(weight.shape, dtype=weight.dtype)
            setattr(module, name, nn.Parameter(zeros, requires_grad=False))
        for name, buffer in [*module.named_buffers(recurse=False)]:
            setattr(module, name, torch.zeros(buffer.shape, dtype=buffer.dtype))
    return aligner


def _draw_in_each_step(train: Train) -> Train:
    """Draw augmentations in each step, where they would be drawn for all trials."""
    drawn = [
        part.model_copy(update={"drawn": "each_step"})
        if hasattr(part, "drawn")
        else part
        for part in train.augment.parts
    ]
    augment = train.augment.model_copy(update={"parts": drawn})
    return train.model_copy(update={"augment": augment})


def _blank(shape: Sequence[int]) -> LazyRows:
    """Make an array [N, …] whose rows are zeros, and take no memory."""
    size = tuple(shape)
    return LazyRows(
        size, FLOAT32, lambda rows: np.zeros((len(rows), *size[1:]), np.float32)
    )


def _list_moments(recipe: Recipe, steps: int) -> list[LossContext]:
    """List the first step at which each set of terms is active together."""
    epochs, terms = recipe.train.epochs, recipe.loss_terms
    moments = dict[Any, LossContext]()
    for epoch in range(epochs):
        # the weight of a wave may be 0 where an epoch begins
        for done in (0, steps // 2):
            active = [bool(term.weight_at(epoch + done / steps)) for term in terms]
            context = LossContext(None, epoch * steps + done, epoch, epochs)
            moments.setdefault(tuple(active), replace(context, steps=steps))
    return [*moments.values()]


def _step(
    aligner: Aligner,
    objective: Objective,
    batches: Batches,
    rows: Int64,
    context: LossContext,
) -> None:
    """Draw two trials of each micro-batch, and compute the loss of these; on the device
    without values, of the whole batch.
    """
    micro_batches = batches.samples.split(rows)
    few = np.concatenate([part[:2] for part in micro_batches])
    mixing = mixing_of(objective.terms, context.step / context.steps)
    drawn, embeddings, facts = batches.draw(few, 0, mixing)
    mixed, stimuli = facts.mixing, facts.stimuli

    # what is drawn of few trials has the shapes of all
    if aligner.device == META:
        drawn = [
            (_grow(signal, len(part)), _grow(subject, len(part)))
            for (signal, subject), part in zip(drawn, micro_batches, strict=True)
        ]
        count = len(rows)
        embeddings = {key: _grow(value, count) for key, value in embeddings.items()}
        stimuli = None if stimuli is None else _grow(stimuli, count)
        if mixed is not None:
            mixed = Mixing(_grow(mixed.partner, count), _grow(mixed.share, count))

    # the loss, and what chooses its next targets
    context = replace(context, mixing=mixed, stimuli=stimuli)
    predicted, made = forward(aligner.train(), drawn, embeddings, context)
    objective.to(aligner.device)(predicted, made, context)
    if batches.feedback is not None:
        objective.of_pairs(predicted, made, context)


def _grow(tensor: Tensor, count: int) -> Tensor:
    """Give what was drawn of few trials the shape of more, without values."""
    return torch.empty((count, *tensor.shape[1:]), dtype=tensor.dtype, device=META)


def _score(aligner: Aligner, queries: Sequence[Query], targets: Targets) -> None:
    """Encode signals and pictures of a test as retrieval compares them."""
    if not queries:
        return
    keys, device = aligner.layout.compared_keys, aligner.device
    aligner.eval()
    pictures = {
        key: torch.zeros((2, *shape), device=device)
        for key, shape in targets.shapes.items()
        if key in keys
    }
    with torch.inference_mode():
        aligner.encode_image(pictures)
        for bank, _ in queries:
            # subjects that the model knows, or one that is new to it
            is_known = bool((bank.subject >= 0).all())
            for number, signals in enumerate(bank.signals):
                index = torch.full((2,), number, device=device) if is_known else None
                signal = torch.zeros((2, *signals.shape[1:]), device=device)
                aligner.encode_signal(signal, index)


@contextmanager
def _values_may_lack() -> Iterator[None]:
    """Let a network stop where it asks for a value; only our own refusals count."""
    try:
        yield
    except BrainhiveError:
        raise
    except Exception:
        return  # of torch, which has no value to look at
