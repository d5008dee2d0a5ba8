"""Training loop of a model, whose batches several processes share."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from brainhive_cli.core.base import (
    Bool,
    BrainhiveError,
    Int64,
    console,
    copy_to_device,
    derive_seed,
    keep_freed_memory,
    raise_if_interrupted,
    seed_torch,
)
from brainhive_cli.core.results import Metric
from brainhive_cli.core.runs import Checkpoint, Launch
from brainhive_cli.data.signals import Trials
from brainhive_cli.data.targets import Targets
from brainhive_cli.models import LossContext
from brainhive_cli.models.backbones import Tensors
from brainhive_cli.training.alignment import Aligner, Layout, Term, Train, find_mixing
from brainhive_cli.training.alignment.training.batches import (
    Batches,
    CellData,
    compute_top1,
    list_test_queries,
    list_validation_queries,
    open_bank,
    rank_queries,
    summarise_validation,
)
from brainhive_cli.training.alignment.training.initialisation import (
    copy_weights,
    load_start,
    make_aligner,
    make_history,
)
from brainhive_cli.training.alignment.training.objective import (
    Objective,
    count_epochs,
)
from brainhive_cli.training.alignment.training.optimisation import Learner, StateContent


class Callbacks:
    """Functions that a training calls, in this order. These do nothing.

    A backbone with a closed form has no steps and no epochs. It only calls `at_end`.
    """

    def at_start(self, steps: int) -> None:
        """Receive the number of steps that remain to be done, over all epochs."""

    def after_step(self, make_checkpoint: Callable[[], StateContent]) -> None:
        """Act after each step, once the weights have changed.

        Args:
            make_checkpoint: Function that copies the state from which training
                continues at the next step.
        """

    def after_epoch(self, event: StateContent) -> None:
        """Act after each epoch, once it is scored.

        Args:
            event: `epoch`, counted from 0, `epochs`, the mean `loss`, `validation_top1`
                (None without validation) and `samples_per_s`.
        """

    def at_end(self, aligner: Aligner, epoch: int, metrics: Sequence[Metric]) -> None:
        """Receive the trained model.

        Args:
            aligner: Model of the selected epoch, in evaluation mode.
            epoch: Selected epoch, counted from 1.
            metrics: Metrics of the held-out training pictures. Empty if none are held
                out.
        """


def fit(
    layout: Layout,
    data: CellData,
    terms: Sequence[Term],
    settings: Train,
    start: Aligner | None = None,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    callbacks: Callbacks | None = None,
    launch: Launch | None = None,
) -> Aligner:
    """Train a model. It writes no files, but the callbacks may.

    1. Set up the model, its loss, its batches, its optimizer and its validation.
    2. Resume from the checkpoint, if it exists.
    3. Take the steps of each epoch: batch, forward, loss, backward, update.
    4. Score each epoch, and keep the weights of the best.

    Args:
        layout: Architecture of the model.
        data: Signals and targets of the training.
        terms: Terms of the loss.
        settings: Settings of the optimisation and of the selection of an epoch.
        start: Model whose weights and history the new model inherits, or None.
        seed: Seed of all random numbers.
        checkpoint: File from which the training resumes, if it exists.
        callbacks: Functions that the main process calls during the training.
        launch: Processes that share each batch, each of which calls this function. None
            for a single process on the CPU.

    Returns:
        The model of the selected epoch, in evaluation mode.

    Raises:
        BrainhiveError: if `start` has another architecture, or if the backbone has a
            closed form that cannot continue from weights.
        RecipeError: if a stage freezes an unknown module or all modules, or if
            `start_pull` is set without a start.
    """
    launch = launch or Launch(0, 1, "cpu")

    # set up the model, with the weights and history of its start
    backbone = layout.backbone_config
    if start is not None and backbone.is_closed_form and not backbone.continues:
        raise BrainhiveError(
            f"a trained {layout.backbone['kind']} model cannot be trained further",
            "use another backbone, or train a model from scratch",
        )
    aligner = make_aligner(seed, layout, data, settings.init).to(launch.device)
    if backbone.is_closed_form:
        settings = settings.model_copy(update={"selection": "last"})
    aligner.learned = make_history(data, settings)
    if start is not None:
        copy_weights(aligner, start)
        aligner.learned = aligner.learned.inherit(start.learned)
    if backbone.is_closed_form:
        return _fit_closed_form(aligner, data, seed, callbacks, launch)
    callbacks = callbacks or Callbacks()
    keep_freed_memory()
    if aligner.adapter is not None and data.adapted is not None:
        aligner.adapter.attach(data.adapted.network.module)
    aligner = synchronise_batch_norm(aligner, launch)

    # set up the loss, the batches, the optimizer and the validation
    objective = Objective(terms, layout.similarity == "centred_cosine")
    objective = objective.to(launch.device)
    batches = Batches(data, settings, launch)
    steps_per_epoch = batches.steps
    learner = Learner(
        aligner,
        objective,
        settings,
        steps_per_epoch,
        data.start_files,
        is_started=start is not None,
        feedback=batches.feedback,
    )
    validation_queries = list_validation_queries(data, batches.averages)
    test_queries = []
    if settings.selection in ("test", "recordings"):
        test_queries = list_test_queries(data, launch.device)

    # resume from the checkpoint of an interrupted training
    saved_state = None if checkpoint is None else checkpoint.load(launch)
    if checkpoint is None or saved_state is None:
        learner.enter_stage()
    else:
        learner.load_state_dict(saved_state, checkpoint.path)
    remaining_epochs = settings.epochs - learner.epoch
    callbacks.at_start(remaining_epochs * steps_per_epoch - learner.steps_done)

    while learner.epoch < settings.epochs and not learner.is_out_of_patience:
        # each stage has its own optimizer and frozen modules
        if learner.epoch == learner.stage_end:
            learner.enter_stage()
        epoch_batches = batches.split_epoch(seed, learner.epoch)
        remaining_batches = epoch_batches[learner.steps_done :]
        start_s = time.monotonic()
        learner.train()
        for rows in remaining_batches:
            raise_if_interrupted()

            # each step has its own seed, so training can resume at any step
            step_seed = derive_seed(seed, learner.epoch, learner.steps_done)
            seed_torch(derive_seed(step_seed, launch.rank), launch.device)

            # compute the loss of the whole batch, with gradients of all processes
            context = LossContext(
                step=learner.epoch * steps_per_epoch + learner.steps_done,
                epoch=learner.epoch,
                epochs=settings.epochs,
                steps=steps_per_epoch,
            )
            loss = compute_loss(
                aligner,
                objective,
                batches,
                rows,
                context,
                step_seed,
                settings.precision,
            )

            # change the weights, and offer a checkpoint
            loss.backward()
            launch.average_gradients(learner.parameters)
            learner.step()
            learner.steps_done += 1
            learner.loss_sum = learner.loss_sum + loss.detach()
            callbacks.after_step(learner.state_dict)

        # reading the loss waits until the device has finished the steps
        mean_loss = float(learner.loss_sum) / steps_per_epoch
        n_samples = sum(map(len, remaining_batches))
        samples_per_s = n_samples / (time.monotonic() - start_s)

        # score the epoch, and keep its weights if it is the best so far
        ranks = rank_queries(
            learner.scored_aligner,
            validation_queries,
            data.targets,
            settings.precision,
            launch,
        )
        test_ranks = rank_queries(
            learner.scored_aligner,
            test_queries,
            data.test_targets,
            settings.precision,
            launch,
        )
        validation_top1 = compute_top1(ranks)
        if settings.selection == "recordings":
            validation_top1 = compute_top1(test_ranks)
        score = validation_top1
        if settings.selection == "test":
            score = compute_top1(test_ranks)
        elif settings.selection == "last":
            score = None
        learner.finish_epoch(ranks, validation_top1, score)
        callbacks.after_epoch(
            {
                "epoch": learner.epoch - 1,
                "epochs": settings.epochs,
                "loss": mean_loss,
                "validation_top1": validation_top1,
                "samples_per_s": samples_per_s,
            }
        )

    # load the weights of the selected epoch
    aligner = learner.load_selected()
    metrics = summarise_validation(
        learner.ranks, validation_queries, data, seed, aligner.learned.caveats
    )
    callbacks.at_end(aligner, learner.selected_epoch, metrics)
    return aligner


def is_closed_form(layout: Layout) -> bool:
    """Return True if the backbone is fitted in a single pass, without steps."""
    return bool(layout.backbone_config.is_closed_form)


def compute_loss(
    aligner: Aligner,
    objective: Objective,
    batches: Batches,
    rows: Int64,
    context: LossContext,
    seed: int = 0,
    precision: str = "fp32",
) -> Tensor:
    """Compute the loss of a batch, whose trials all processes share.

    Args:
        aligner: Model in training mode.
        objective: Loss of the model.
        batches: Signals and targets, and the choice of targets by how well they are
            predicted, if any, which is updated.
        rows: Rows [B] of the batch, over all processes.
        context: Step of the training.
        seed: Seed of the step.
        precision: Precision of the model: "fp32", "bf16" or "fp16".
    """
    # draw this process's share of the batch
    launch = batches.launch
    mixing = find_mixing(objective.terms, count_epochs(context))
    micro_batches, embeddings, drawn = batches.draw(rows, seed, mixing)
    context = replace(context, mixing=drawn.mixing, stimuli=drawn.stimuli)

    # compare the whole batch
    with launch.autocast(precision):
        predicted, targets = forward(aligner, micro_batches, embeddings, context)
        predicted = _gather_batch(predicted, len(rows), launch)
        targets = _gather_batch(targets, len(rows), launch)
        loss = objective(predicted, targets, context)
        if batches.feedback is not None:
            similarities = objective.compare_pairs(predicted, targets, context)
            sample_rows = torch.from_numpy(np.sort(rows))
            batches.feedback.update(
                copy_to_device(sample_rows, launch.device), similarities
            )
    return loss


def forward(
    aligner: Aligner,
    micro_batches: Sequence[tuple[Tensor, Tensor]],
    targets: Tensors,
    context: LossContext,
) -> tuple[Tensors, Tensors]:
    """Compute the predictions and targets of a batch.

    Args:
        aligner: The model.
        micro_batches: Signals [B_part, C, T] and subject indices [B_part] of each
            micro-batch.
        targets: Embeddings [B, *shape] by the fuser's key, and targets of losses
            without a head by name.
        context: State of the training, for a backbone that is fitted to targets.

    Returns:
        Predictions and targets [B, *shape] by name, in the order of the micro-batches.
    """
    # embeddings of the heads pass the fuser, and the others are targets already
    fuser_keys = aligner.layout.list_keys(aligner.layout.heads)
    embeddings = {name: targets[name] for name in targets if name in fuser_keys}
    further_targets = {
        name: targets[name] for name in targets if name not in fuser_keys
    }
    subjects = torch.cat([subject for _, subject in micro_batches])
    targets = further_targets | aligner.compute_targets(embeddings, subjects)
    if not hasattr(aligner.backbone, "learn"):
        predictions = [aligner.predict(*batch) for batch in micro_batches]
        return _join(predictions), targets

    # the backbone also needs the targets of each micro-batch, and may change them
    start = 0
    predictions = []
    learned_targets = []
    for signal, subject in micro_batches:
        rows = slice(start, start + len(signal))
        start += len(signal)
        batch_targets = {name: target[rows] for name, target in targets.items()}
        prediction, learned_target = aligner.learn(
            signal, subject, batch_targets, context
        )
        predictions.append(prediction)
        learned_targets.append(learned_target)
    return _join(predictions), _join(learned_targets)


def _join(batches: Sequence[Tensors]) -> Tensors:
    """Concatenate the tensors of micro-batches, by name."""
    if len(batches) == 1:
        return batches[0]
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def _gather_batch(shares: Tensors, batch_size: int, launch: Launch) -> Tensors:
    """Gather tensors [B, *shape] from the shares of all processes, in float32."""
    return {
        name: launch.gather_rows(share.float(), batch_size)
        for name, share in shares.items()
    }


def _fit_closed_form(
    aligner: Aligner,
    data: CellData,
    seed: int,
    callbacks: Callbacks | None,
    launch: Launch,
) -> Aligner:
    """Fit a backbone in closed form, in a single pass over each subject.

    Held-out concepts validate the model.
    """
    # continue from the weights of a run
    if aligner.layout.backbone_config.continues:
        for module_name, path in data.start_files.get(0, {}).items():
            load_start(aligner, path, module_name)

    # fit the subjects one after another, whose averages are read into memory once
    averages = open_bank(data.trials, launch.device, data.is_mapped)
    backbone: Any = aligner.backbone
    sums = {name: 0.0 * mean for name, mean in aligner.means.items()}
    n_samples = 0
    for trials in data.trials:
        training_rows, held_out_rows = split_held_out(trials, data.held_out)
        stimuli = torch.from_numpy(trials.stimulus[training_rows]).to(launch.device)
        signals = []
        for rows in (training_rows, held_out_rows):
            signal = torch.from_numpy(trials.take(rows).averages).to(launch.device)
            signals.append(aligner.scale_signal(signal))
        read_targets = partial(_read_targets, aligner, data.targets, stimuli, sums)
        backbone.fit(trials.subject, signals[0], read_targets, signals[1])
        n_samples += len(stimuli)
    if hasattr(backbone, "solve"):
        backbone.solve()
    for name, target_sum in sums.items():
        aligner.means[name].copy_(target_sum / n_samples)

    # validate as after an epoch
    aligner.eval()
    if callbacks is not None:
        validation_queries = list_validation_queries(data, averages)
        ranks = rank_queries(
            aligner, validation_queries, data.targets, "fp32", launch.single_process
        )
        metrics = summarise_validation(
            ranks, validation_queries, data, seed, aligner.learned.caveats
        )
        callbacks.at_end(aligner, 1, metrics)
    return aligner


def _read_targets(
    aligner: Aligner, targets: Targets, stimuli: Tensor, sums: Tensors, rows: slice
) -> Tensors:
    """Read targets [n, *shape] by head, and add them to `sums` [*shape] for their mean.

    A backbone reads each target once. `stimuli` are the stimulus rows [N] of all
    signals, and `rows` is the slice to read.
    """
    values = aligner.compute_targets(targets.gather(stimuli[rows]))
    for name in sums:
        sums[name] += values[name].sum(0)
    return values


def split_held_out(trials: Trials, held_out: Bool) -> tuple[Int64, Int64]:
    """Split trials into training and validation.

    Args:
        trials: Trials of a subject. Trials without a stimulus are left out.
        held_out: True [M] for stimuli that are held out.

    Returns:
        Rows of the training and of the held-out trials.
    """
    has_stimulus = trials.stimulus >= 0
    is_held_out = has_stimulus & held_out[trials.stimulus]
    training_rows = np.flatnonzero(has_stimulus & ~is_held_out)
    return training_rows, np.flatnonzero(is_held_out)


def synchronise_batch_norm(aligner: Aligner, launch: Launch) -> Aligner:
    """Let batch normalisation use the statistics of the whole batch.

    torch's SyncBatchNorm works on GPUs only, and with as many micro-batches in each
    process. Otherwise each process uses its own share of the batch, with a warning.
    """
    has_batch_norm = any(
        isinstance(module, nn.modules.batchnorm._BatchNorm)
        for module in aligner.modules()
    )
    if launch.processes == 1 or not has_batch_norm:
        return aligner
    has_micro_batches = len(set(aligner.layout.spec.widths)) > 1
    if launch.device.type == "cuda" and not has_micro_batches:
        return cast(Aligner, nn.SyncBatchNorm.convert_sync_batchnorm(aligner))

    reason = "with subjects of different widths" if has_micro_batches else "on a CPU"
    console.warn(
        f"{aligner.layout.backbone['kind']} has batch normalisation, and {reason} each "
        f"of the {launch.processes} processes normalises its own share of the batch: "
        "a single process would give other weights"
    )
    return aligner
