"""The training of one cell: the loop and what is written at its end."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from brainhive_cli.alignment.batch_norm import normalise_together
from brainhive_cli.alignment.batches import Batches, CellData
from brainhive_cli.alignment.initialisation import begin, learned_by
from brainhive_cli.alignment.layout import Layout
from brainhive_cli.alignment.memory import keep_freed_memory
from brainhive_cli.alignment.model import Aligner
from brainhive_cli.alignment.optimisation import Learner
from brainhive_cli.alignment.settings import Train
from brainhive_cli.alignment.state import State
from brainhive_cli.alignment.validation import Queries, held_out, ranks_of, tested, top1
from brainhive_cli.core.caveats import in_protocol
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.losses import LossContext
from brainhive_cli.metrics.retrieval import summarise

CHECKPOINT_S = 60.0
"""Least time between two checkpoints of a cell; shorter cells start again."""
Told = Callable[[dict[str, Any]], None]
"""Hears of each epoch: cell, epoch, epochs, loss, validation_top1, samples_per_s."""


def train_cell(
    name: str,
    seed: int,
    layout: Layout,
    data: CellData,
    loss_config: Any,
    train: Train,
    folder: RunFolder,
    launch: Launch,
    told: Told | None = None,
) -> None:
    """Train one cell to its end, going on from its checkpoint, and write model and metrics.

    Args:
        name: The cell's: of its files, and in what is told.
        seed: Decides the weights, the order of the trials and all that is random in training.
        layout: What the aligner is made of.
        data: What it learns from.
        loss_config: Config of the loss.
        train: How it is trained.
        folder: Where model, metrics and checkpoint go.
        launch: Who shares the work; each batch is cut between the processes.
        told: Hears of each epoch, in the main process; by default the run's log does.
    """
    tell: Told = told or (lambda event: folder.log(**event))
    keep_freed_memory()
    aligner = begin(seed, layout, data, train.init).to(launch.device)
    aligner.learned = learned_by(data, train)
    aligner = normalise_together(aligner, launch)
    losses = nn.ModuleList([loss_config.build()])
    continue_from(losses, aligner.losses)
    losses = losses.to(launch.device)
    batches = Batches(data, train, loss_config.mix_alpha, launch)
    learner = Learner(aligner, losses, train, train.epochs * batches.steps)
    validation = held_out(data, batches.averages)
    test = tested(data, launch.device) if train.selection == "test" else []
    state, saved_s = State.load(folder.path / "checkpoints" / f"{name}.pt", learner), time.monotonic()
    while state.epoch < train.epochs and not state.has_stalled(train.patience):
        todo, start_s = batches.epoch(seed, state.epoch)[state.step :], time.monotonic()
        aligner.train()
        for rows in todo:
            # what is random in a step depends on no step before it, so that training can go on at any
            step_seed = derive_seed(seed, state.epoch, state.step)
            torch.manual_seed(derive_seed(step_seed, launch.rank))
            batch = batches.draw(rows, step_seed)
            with launch.autocast(train.precision):
                predicted = batch.predict(aligner.predict)
                target = aligner.targets(batch.images)
                context = LossContext(batch.mixing, learner.steps, state.epoch, train.epochs)
                pairs = [
                    [
                        launch.gather_rows(aligner.compare(head, each[head]).float(), len(rows))
                        for each in (predicted, target)
                    ]
                    for head in predicted
                ]
                loss = torch.stack([losses[0](*pair, context) for pair in pairs]).mean()
            loss.backward()
            launch.average_gradients(learner.parameters)
            learner.step()
            state.count_step(loss)
            if launch.is_main and time.monotonic() - saved_s > CHECKPOINT_S:
                folder.save_checkpoint(f"{name}.pt", state.content(learner))
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
            tell(event)
    if launch.is_main:
        _finish(folder, name, seed, learner.result, state, validation)


def continue_from(losses: nn.Module, learned: Mapping[str, Tensor]) -> None:
    """Start what losses learn from what those of another model learned; what is fixed stays the recipe's."""
    for name, parameter in losses.named_parameters():
        if parameter.requires_grad and name in learned and learned[name].shape == parameter.shape:
            parameter.data.copy_(learned[name])


def _finish(
    folder: RunFolder, name: str, seed: int, aligner: Aligner, state: State, queries: list[Queries]
) -> None:
    """Write model and metrics of the epoch that is kept."""
    assert state.kept is not None
    aligner.load_state_dict(state.kept["weights"])
    aligner.losses = state.kept["losses"]
    folder.replace(f"cells/{name}/model", aligner.save)
    validation, caveats = {}, aligner.learned.caveats
    for held in queries:
        protocol = in_protocol("held-out training concepts", caveats)
        named = {"seeds": (seed,), "protocol": protocol, "split": "validation"}
        ranks, ids = held.by_subject(state.kept["ranks"])
        metrics = summarise(ranks, len(held.shown), ids=ids, **named)  # type: ignore[arg-type]
        validation = {metric.name: metric.as_dict() for metric in metrics}
    content = {"epoch": state.kept["epoch"], "selected_on": aligner.learned.selection, "caveats": caveats}
    folder.write_json(f"cells/{name}/metrics.json", content | {"validation": validation})
    (folder.path / "checkpoints" / f"{name}.pt").unlink(missing_ok=True)
