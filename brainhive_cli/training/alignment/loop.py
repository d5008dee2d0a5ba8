"""The training of one cell: the loop and what is written at its end."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from brainhive_cli.core import interruption
from brainhive_cli.core.caveats import extend_protocol
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements, by_name
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.core.seeds import derive_seed, seed_torch
from brainhive_cli.data.signal_bank import averages_of
from brainhive_cli.measurement.retrieval import summarise
from brainhive_cli.models.losses import LossContext
from brainhive_cli.training.alignment.batch_norm import at_least_two, normalise_together
from brainhive_cli.training.alignment.batches import Batch, Batches, CellData
from brainhive_cli.training.alignment.closed_form import fit, is_closed_form
from brainhive_cli.training.alignment.initialisation import initial_aligner, learned_by
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.memory import keep_freed_memory
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.objective import Objective
from brainhive_cli.training.alignment.row_noise import by_row
from brainhive_cli.training.alignment.settings import Train
from brainhive_cli.training.alignment.stages import Stages
from brainhive_cli.training.alignment.state import State
from brainhive_cli.training.alignment.terms import Term
from brainhive_cli.training.alignment.validation import Queries, held_out, ranks_of, tested, top1

CHECKPOINT_S = 60.0
"""Least time between two checkpoints of a cell; shorter cells start again."""
Tensors = dict[str, Tensor]
OnEpoch = Callable[[dict[str, Any]], None]
"""Is called after each epoch with cell, epoch, epochs, loss, validation_top1, samples_per_s."""


def train_cell(
    name: str,
    seed: int,
    layout: Layout,
    data: CellData,
    terms: Sequence[Term],
    train: Train,
    folder: RunFolder,
    launch: Launch,
    on_epoch: OnEpoch | None = None,
) -> None:
    """Train one cell to its end, continuing from its checkpoint, and write model and metrics.

    Args:
        name: The cell's, in file names and events.
        seed: Decides all that is random in training.
        layout: Architecture of the aligner.
        data: What it learns from.
        terms: The loss.
        train: Optimisation and selection.
        folder: Where model, metrics and checkpoint go.
        launch: The processes that share each batch.
        on_epoch: Called after each epoch, in the main process; default: the run's log.
    """
    if is_closed_form(layout):
        if launch.is_main:
            _finish_fitted(folder, name, seed, fit(seed, layout, data, train, launch), data, launch)
        return
    keep_freed_memory()
    aligner = initial_aligner(seed, layout, data, train.init).to(launch.device)
    aligner.learned = learned_by(data, train)
    aligner = normalise_together(aligner, launch)
    objective = Objective(terms, layout.similarity == "centred_cosine").to(launch.device)
    batches = Batches(data, train, 0.0, launch)
    stages = Stages(aligner, objective, train, batches.steps, data.starts)
    validation = held_out(data, batches.averages)
    test = tested(data, launch.device) if train.selection == "test" else []
    checkpoint = folder.checkpoint(name)
    (state, saved), saved_s = State.load(checkpoint, launch), time.monotonic()
    learner = stages.enter(state.epoch, saved)
    while state.epoch < train.epochs and not state.has_stalled(train.patience):
        if state.epoch == learner.stop:
            learner = stages.enter(state.epoch)
        todo, start_s = batches.epoch(seed, state.epoch)[state.step :], time.monotonic()
        learner.train()
        for rows in todo:
            interruption.check()
            # what is random in a step depends on no step before it, so that training can continue at any
            step_seed = derive_seed(seed, state.epoch, state.step)
            seed_torch(derive_seed(step_seed, launch.rank), launch.device)
            moment = state.epoch + state.step / batches.steps
            batches.mix_alpha, batches.mix_share = objective.mixing(moment)
            batch = batches.draw(rows, step_seed)
            done = state.epoch * batches.steps + state.step
            context = LossContext(batch.mixing, done, state.epoch, train.epochs, steps=batches.steps)
            noise = by_row(launch, len(rows), len(batch.parts), derive_seed(step_seed, 0))
            with launch.autocast(train.precision), at_least_two(), noise:
                outputs = forward(aligner, batch, context)
                predicted, targets = (gathered(each, len(rows), launch) for each in outputs)
                loss = objective(predicted, targets, context)
            loss.backward()
            launch.average_gradients(learner.parameters)
            learner.step()
            state.count_step(loss)
            if launch.is_main and time.monotonic() - saved_s > CHECKPOINT_S:
                checkpoint.save(state.content(learner))
                saved_s = time.monotonic()
        loss_mean = float(state.loss) / batches.steps  # which waits until the steps are done
        samples_per_s = sum(map(len, todo)) / (time.monotonic() - start_s)
        found = ranks_of(validation, learner.result, train.precision, launch)
        on_test = ranks_of(test, learner.result, train.precision, launch)
        score = {"best": top1(found), "last": None, "test": top1(on_test)}[train.selection]
        state.count_epoch(learner, found, top1(found), score)
        if launch.is_main:
            event = {"cell": name, "epoch": state.epoch - 1, "epochs": train.epochs, "loss": loss_mean}
            event |= {"validation_top1": top1(found), "samples_per_s": samples_per_s}
            if on_epoch is None:
                folder.log(**event)
            else:
                on_epoch(event)
    if launch.is_main:
        assert state.kept is not None
        learner.result.load_state_dict(state.kept["weights"])
        learner.result.losses = state.kept["losses"]
        _finish(folder, name, seed, learner.result, state.kept["epoch"], state.kept["ranks"], validation)


def forward(aligner: Aligner, batch: Batch, context: LossContext) -> tuple[Tensors, Tensors]:
    """Return predictions and targets of a batch, [B, *shape] by name, in the order of the micro-batches."""
    targets = aligner.targets(batch.images) | batch.augmented
    if not hasattr(aligner.backbone, "learn"):
        return batch.predict(aligner.predict), targets
    first, found = 0, []
    for signal, subject in batch.parts:
        rows = slice(first, first := first + len(signal))
        own = {name: each[rows] for name, each in targets.items()}
        found.append(aligner.learn(signal, subject, own, context))
    return _joined([predicted for predicted, _ in found]), _joined([target for _, target in found])


def _joined(parts: Sequence[Tensors]) -> Tensors:
    return parts[0] if len(parts) == 1 else {n: torch.cat([each[n] for each in parts]) for n in parts[0]}


def gathered(tensors: Tensors, count: int, launch: Launch) -> Tensors:
    """Join the shares of all processes, by name: float32 [B, *shape] with their gradient."""
    return {name: launch.gather_rows(each.float(), count) for name, each in tensors.items()}


def _finish_fitted(
    folder: RunFolder,
    name: str,
    seed: int,
    aligner: Aligner,
    data: CellData,
    launch: Launch,
) -> None:
    """Validate and write a model that was fitted in one pass."""
    alone = Launch(0, 1, launch.device)
    validation = held_out(data, averages_of(data.trials, launch.device))
    _finish(folder, name, seed, aligner, 1, ranks_of(validation, aligner, "fp32", alone), validation)


def _finish(
    folder: RunFolder,
    name: str,
    seed: int,
    aligner: Aligner,
    epoch: int,
    ranks: Tensor,
    queries: list[Queries],
) -> None:
    """Write model and metrics of the epoch that is kept."""
    folder.replace(f"cells/{name}/model", aligner.save)
    scopes, caveats = {}, aligner.learned.caveats
    for held in queries:
        protocol = extend_protocol("held-out training concepts", caveats)
        named = {"seeds": (seed,), "protocol": protocol, "split": "validation"}
        by_subject, items = held.by_subject(ranks)
        metrics = summarise(by_subject, len(held.shown), items=items, **named)  # type: ignore[arg-type]
        scopes = {name: by_name(metrics)}
    notes = {"epoch": epoch, "selected_on": aligner.learned.selection, "caveats": caveats}
    folder.write_json(f"cells/{name}/{FINISHED}", Measurements(scopes, notes=notes).as_dict())
    folder.checkpoint(name).remove()
