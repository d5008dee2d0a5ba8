"""The training of one cell: the loop and what is written at its end."""

import contextlib
import ctypes
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import interruption, parts
from brainhive_cli.core.caveats import extend_protocol
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements, by_name
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.core.seeds import derive_seed, seed_torch
from brainhive_cli.measurement.rank_scores import summarise
from brainhive_cli.models.losses import LossContext
from brainhive_cli.training.alignment.batches import Batch, Batches, CellData, averages_of, join_parts
from brainhive_cli.training.alignment.initialisation import initial_aligner, learned_by
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.objective import Objective, Term
from brainhive_cli.training.alignment.optimisation import Stages, State
from brainhive_cli.training.alignment.settings import Train
from brainhive_cli.training.alignment.shared_batches import at_least_two, by_row, normalise_together
from brainhive_cli.training.alignment.validation import (
    Queries,
    held_out_queries,
    ranks_of,
    test_queries,
    top1,
)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's malloc.h."""
KEPT_BYTES = 2**30
"""A step of BrainHiVE's training on a CPU allocates and frees half as many."""
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
    if getattr(parts.resolve("backbones", layout.backbone), "is_closed_form", False):
        if launch.is_main:
            _fit_cell(name, seed, layout, data, train, folder, launch)
        return
    keep_freed_memory()
    aligner = initial_aligner(seed, layout, data, train.init).to(launch.device)
    aligner.learned = learned_by(data, train)
    aligner = normalise_together(aligner, launch)
    objective = Objective(terms, layout.similarity == "centred_cosine").to(launch.device)
    batches = Batches(data, train, 0.0, launch)
    stages = Stages(aligner, objective, train, batches.steps, data.starts)
    validation = held_out_queries(data, batches.averages)
    test = test_queries(data, launch.device) if train.selection == "test" else []
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
        ranks = ranks_of(validation, learner.result, train.precision, launch)
        on_test = ranks_of(test, learner.result, train.precision, launch)
        score = {"best": top1(ranks), "last": None, "test": top1(on_test)}[train.selection]
        state.count_epoch(learner, ranks, top1(ranks), score)
        if launch.is_main:
            event = {"cell": name, "epoch": state.epoch - 1, "epochs": train.epochs, "loss": loss_mean}
            event |= {"validation_top1": top1(ranks), "samples_per_s": samples_per_s}
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
    targets = aligner.targets(batch.targets) | batch.augmented
    if not hasattr(aligner.backbone, "learn"):
        return batch.predict(aligner.predict), targets
    first, learned = 0, []
    for signal, subject in batch.parts:
        rows = slice(first, first := first + len(signal))
        of_part = {name: each[rows] for name, each in targets.items()}
        learned.append(aligner.learn(signal, subject, of_part, context))
    return join_parts([predicted for predicted, _ in learned]), join_parts([target for _, target in learned])


def gathered(tensors: Tensors, count: int, launch: Launch) -> Tensors:
    """Join the shares of all processes, by name: float32 [B, *shape] with their gradient."""
    return {name: launch.gather_rows(each.float(), count) for name, each in tensors.items()}


def _fit_cell(
    name: str,
    seed: int,
    layout: Layout,
    data: CellData,
    train: Train,
    folder: RunFolder,
    launch: Launch,
) -> None:
    """Fit a backbone in closed form: one pass over each subject, without steps or epochs.

    Held-out concepts are not learned: they validate the model, which is then written.
    """
    aligner = initial_aligner(seed, layout, data, "torch").to(launch.device)
    aligner.learned = learned_by(data, train.model_copy(update={"selection": "last"}))
    for responses in data.responses:
        is_known = responses.stimulus >= 0
        held_out = is_known & data.held_out[responses.stimulus]
        learned = np.flatnonzero(is_known & ~held_out)
        stimulus = torch.from_numpy(responses.stimulus[learned]).to(launch.device)

        def targets(rows: slice, stimulus: Tensor = stimulus) -> Tensors:
            return aligner.targets(data.targets.gather(stimulus[rows]))

        signal, rest = (
            torch.from_numpy(np.asarray(responses.signal[some], np.float32)).to(launch.device)
            for some in (learned, np.flatnonzero(held_out))
        )
        backbone: Any = aligner.backbone
        backbone.fit(responses.subject, signal, targets, rest)
    aligner.eval()
    validation = held_out_queries(data, averages_of(data.responses, launch.device))
    ranks = ranks_of(validation, aligner, "fp32", Launch(0, 1, launch.device))
    _finish(folder, name, seed, aligner, 1, ranks, validation)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory, rather than return it and fetch it again, page by page, in each step.

    Otherwise a step of the backbone `nice` takes 1.4 times the CPU time (batch 1024, fp32).
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


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
