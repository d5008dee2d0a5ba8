"""Training loop of a model, whose batches several processes share."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from brainhive_cli.core import console, parts
from brainhive_cli.core.arrays import Bool, Int64
from brainhive_cli.core.device_memory import copy_to_device, keep_freed_memory
from brainhive_cli.core.errors import BrainhiveError, raise_if_interrupted
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Metric
from brainhive_cli.core.seeds import derive_seed, seed_torch
from brainhive_cli.core.weights import Checkpoint
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.models.losses import LossContext
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.stages import Train
from brainhive_cli.training.alignment.terms import Term, mixing_of
from brainhive_cli.training.alignment.training.batches import (
    Batches,
    CellData,
    open_bank,
    rank_queries,
    select_held_out,
    select_tested,
    summarise_held_out,
    top1,
)
from brainhive_cli.training.alignment.training.initialisation import (
    initial_aligner,
    learned_by,
    load_start,
    take_over,
)
from brainhive_cli.training.alignment.training.objective import Objective
from brainhive_cli.training.alignment.training.optimisation import Learner, StateContent

Tensors = dict[str, Tensor]


class Callbacks(Protocol):
    """Functions that a training calls in the order in which they stand here.

    A backbone with a closed form has no steps and no epochs: it calls `at_end` only.
    """

    def at_start(self, steps: int) -> None:
        """Receive the number of steps that are to be done.

        Args:
            steps: Steps of all remaining epochs. A training that is resumed has done
                the others before.
        """

    def after_step(self, content: Callable[[], StateContent]) -> None:
        """Act after each step, once the weights have changed.

        Args:
            content: Makes the checkpoint from which training continues at the next
                step. It copies nothing before it is called.
        """

    def after_epoch(self, event: StateContent) -> None:
        """Act after each epoch, once it is scored.

        Args:
            event: `epoch`, counted from 0, `epochs`, the mean `loss`, `validation_top1`
                (None where nothing validates) and `samples_per_s`.
        """

    def at_end(self, aligner: Aligner, epoch: int, metrics: Sequence[Metric]) -> None:
        """Receive the trained model.

        Args:
            aligner: The model of the selected epoch, in evaluation mode.
            epoch: The selected epoch, counted from 1.
            metrics: Of the held-out training pictures; none where none is held out.
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
    """Train a model. Only the callbacks write.

    Args:
        layout: Architecture of the aligner.
        data: What it learns from.
        terms: The loss.
        settings: Optimisation and selection.
        start: A model whose weights it begins with; its history becomes the new one's.
            Default: none.
        seed: Decides all that is random.
        checkpoint: File from which training continues, if it is there. Each process
            reads it, and none writes it.
        callbacks: Called during the training. Only one of several processes has them.
        launch: The processes that share each batch, each of which calls this; default:
            this one, on the CPU.

    Returns:
        The model of the selected epoch, in evaluation mode.

    Raises:
        BrainhiveError: if `start` is of another architecture, or the backbone's closed
            form begins with none.
        RecipeError: if a stage freezes an unknown part, or everything, or nothing
            starts that is pulled to.
    """
    launch = launch or Launch(0, 1, "cpu")

    # a backbone with a closed-form solution has no steps, and only some begin with
    # weights
    if is_closed_form(layout):
        settings = settings.model_copy(update={"selection": "last"})
        if (
            start is not None
            and not parts.resolve("backbones", layout.backbone).continues
        ):
            raise BrainhiveError(
                f"{layout.backbone['kind']} begins with no weights", "leave start out"
            )

    # build the model, and start it from the weights of another one where there is one
    aligner = initial_aligner(seed, layout, data, settings.init).to(launch.device)
    aligner.learned = learned_by(data, settings)
    if start is not None:
        take_over(aligner, start)
        aligner.learned = aligner.learned.inherit(start.learned)
    if is_closed_form(layout):
        return _fit_in_closed_form(aligner, data, seed, callbacks, launch)
    keep_freed_memory()
    if aligner.adapter is not None and data.adapted is not None:
        aligner.adapter.attach(data.adapted.network.module)
    aligner = normalise_together(aligner, launch)

    # lay out the loss, the batches, the stages and the pictures that score an epoch
    objective = Objective(terms, layout.similarity == "centred_cosine").to(
        launch.device
    )
    batches = Batches(data, settings, launch)
    steps, feedback = batches.steps, batches.feedback
    learner = Learner(
        aligner, objective, settings, steps, data.starts, start is not None, feedback
    )
    validation = select_held_out(data, batches.averages)
    selects = settings.selection in ("test", "recordings")
    test = select_tested(data, launch.device) if selects else []

    # continue where an interrupted training stopped
    saved = None if checkpoint is None else checkpoint.load(launch)
    if checkpoint is None or saved is None:
        learner.enter_stage()
    else:
        learner.load_state_dict(saved, checkpoint.path)
    if callbacks is not None:
        remaining_epochs = settings.epochs - learner.epoch
        callbacks.at_start(remaining_epochs * steps - learner.steps_done)

    while learner.epoch < settings.epochs:
        # stop where validation top-1 has not risen for `patience` epochs
        patience, best_epoch = settings.patience, learner.best_epoch
        if (
            patience is not None
            and best_epoch
            and learner.epoch - best_epoch >= patience
        ):
            break

        # a stage has its own optimizer and its own frozen parts
        if learner.epoch == learner.stop:
            learner.enter_stage()
        todo = batches.epoch(seed, learner.epoch)[learner.steps_done :]
        start_s = time.monotonic()
        learner.train()
        for rows in todo:
            raise_if_interrupted()
            # what is random in a step depends on no step before it, so that training
            # can continue at any
            step_seed = derive_seed(seed, learner.epoch, learner.steps_done)
            seed_torch(derive_seed(step_seed, launch.rank), launch.device)

            # draw the batch, mixed as strongly as the terms that are active now ask for
            mixing = mixing_of(terms, learner.epoch + learner.steps_done / steps)
            micro_batches, drawn_targets, context = batches.draw(
                rows, step_seed, mixing
            )

            # tell the losses how far the training is
            step = learner.epoch * steps + learner.steps_done
            context = replace(
                context,
                step=step,
                epoch=learner.epoch,
                epochs=settings.epochs,
                steps=steps,
            )

            # the loss is that of the whole batch, whatever number of processes shares
            # it
            with launch.autocast(settings.precision):
                predicted, targets = (  # of all processes, with their gradient
                    {
                        name: launch.gather_rows(share.float(), len(rows))
                        for name, share in shares.items()
                    }
                    for shares in forward(
                        aligner, micro_batches, drawn_targets, context
                    )
                )
                loss = objective(predicted, targets, context)
                if feedback is not None:  # in the order of the batch
                    index = copy_to_device(
                        torch.from_numpy(np.sort(rows)), launch.device
                    )
                    feedback.learn(
                        index, objective.of_pairs(predicted, targets, context)
                    )

            # change the weights, and offer a checkpoint
            loss.backward()
            launch.average_gradients(learner.parameters)
            learner.step()
            learner.steps_done += 1
            learner.loss_sum = learner.loss_sum + loss.detach()
            if callbacks is not None:
                callbacks.after_step(learner.state_dict)

        # score the epoch on held-out or test pictures, and select its weights if it is
        # the best which waits until the steps are done
        loss_mean = float(learner.loss_sum) / steps
        samples_per_s = sum(map(len, todo)) / (time.monotonic() - start_s)
        ranks = rank_queries(
            learner.result, validation, data.targets, settings.precision, launch
        )
        on_test = rank_queries(
            learner.result, test, data.tested_targets, settings.precision, launch
        )
        tested = top1(on_test)
        validated = tested if settings.selection == "recordings" else top1(ranks)
        score = {"last": None, "test": tested}.get(settings.selection, validated)
        learner.finish_epoch(ranks, validated, score)
        if callbacks is not None:
            event = {
                "epoch": learner.epoch - 1,
                "epochs": settings.epochs,
                "loss": loss_mean,
                "validation_top1": validated,
                "samples_per_s": samples_per_s,
            }
            callbacks.after_epoch(event)

    # return to the weights of the selected epoch
    aligner = learner.load_selected()
    if callbacks is not None:
        metrics = summarise_held_out(
            learner.ranks, validation, data, seed, aligner.learned.caveats
        )
        callbacks.at_end(aligner, learner.selected_epoch, metrics)
    return aligner


def is_closed_form(layout: Layout) -> bool:
    """Whether the backbone is fitted in one pass, without steps."""
    return bool(parts.resolve("backbones", layout.backbone).is_closed_form)


def forward(
    aligner: Aligner,
    micro_batches: Sequence[tuple[Tensor, Tensor]],
    targets: Tensors,
    context: LossContext,
) -> tuple[Tensors, Tensors]:
    """Return predictions and targets of a batch, [B, *shape] by name, in the order of
    the micro-batches.

    Args:
        aligner: The model.
        micro_batches: Signals [B_part, C, T] and subject indices [B_part] of each.
        targets: [B, *shape] by the fuser's key, or by name where no head predicts them.
        context: For a backbone that learns with its targets.
    """
    # embeddings of the heads pass the fuser, further targets go to the losses as they
    # are
    keys = aligner.layout.keys_of(aligner.layout.heads)
    embeddings = {key: targets[key] for key in targets if key in keys}
    further = {name: targets[name] for name in targets if name not in keys}
    subjects = torch.cat([subject for _, subject in micro_batches])
    targets = further | aligner.targets(embeddings, subjects)
    if not hasattr(aligner.backbone, "learn"):
        return _join([aligner.predict(*part) for part in micro_batches]), targets

    # a backbone that learns with its targets gets those of its own micro-batch
    first, learned = 0, []
    for signal, subject in micro_batches:
        rows = slice(first, first := first + len(signal))
        part_targets = {name: target[rows] for name, target in targets.items()}
        learned.append(aligner.learn(signal, subject, part_targets, context))
    return _join([predicted for predicted, _ in learned]), _join(
        [target for _, target in learned]
    )


def _join(shares: Sequence[Tensors]) -> Tensors:
    """Join tensors of the micro-batches of a batch, by name."""
    if len(shares) == 1:
        return shares[0]
    return {name: torch.cat([share[name] for share in shares]) for name in shares[0]}


def _fit_in_closed_form(
    aligner: Aligner,
    data: CellData,
    seed: int,
    callbacks: Callbacks | None,
    launch: Launch,
) -> Aligner:
    """Fit a backbone in closed form: one pass over each subject, without steps or
    epochs.

    Held-out concepts are not learned: they validate the model.
    """
    # the weights of a run that is fine-tuned
    if parts.resolve("backbones", aligner.layout.backbone).continues:
        for part, path in data.starts.get(0, {}).items():
            load_start(aligner, path, part)

    # averages in memory are read once, here
    averages = open_bank(data.trials, launch.device, data.is_mapped)
    backbone: Any = aligner.backbone
    totals, count = {name: 0.0 * mean for name, mean in aligner.means.items()}, 0
    for trials in data.trials:
        learned, held_out = split_known(trials, data.held_out)
        stimulus = torch.from_numpy(trials.stimulus[learned]).to(launch.device)

        def targets(rows: slice, stimulus: Tensor = stimulus) -> Tensors:
            values = aligner.targets(data.targets.gather(stimulus[rows]))
            for name in totals:
                totals[name] += values[name].sum(0)
            return values

        # signals [N, C, T] of the learned and of the held-out stimuli
        signal, rest = (
            torch.from_numpy(trials.take(rows).averages).to(launch.device)
            for rows in (learned, held_out)
        )
        backbone.fit(trials.subject, signal, targets, rest)
        count += len(stimulus)
    if hasattr(backbone, "solve"):
        backbone.solve()
    # each target was read once
    for name, total in totals.items():
        aligner.means[name].copy_(total / count)

    # validate as an iterative training would
    aligner.eval()
    if callbacks is not None:
        validation = select_held_out(data, averages)
        ranks = rank_queries(
            aligner, validation, data.targets, "fp32", launch.single_process
        )
        caveats = aligner.learned.caveats
        callbacks.at_end(
            aligner, 1, summarise_held_out(ranks, validation, data, seed, caveats)
        )
    return aligner


def split_known(trials: Trials, held_out: Bool) -> tuple[Int64, Int64]:
    """List the trials that a closed form learns from, and those of held-out stimuli.

    Args:
        trials: Of one subject.
        held_out: [M] whether a stimulus is held out.
    """
    is_known = trials.stimulus >= 0
    is_held_out = is_known & held_out[trials.stimulus]
    return np.flatnonzero(is_known & ~is_held_out), np.flatnonzero(is_held_out)


def normalise_together(aligner: Aligner, launch: Launch) -> Aligner:
    """Let batch normalisation take its statistics over the whole batch, as one process
    would.

    torch's SyncBatchNorm works on GPUs only, and needs as many micro-batches in all
    processes: on a CPU, and where subjects differ in width, each process takes
    statistics of its share, with a warning.
    """
    # nothing to do in one process, or without batch normalisation
    is_batch_norm = (
        isinstance(module, nn.modules.batchnorm._BatchNorm)
        for module in aligner.modules()
    )
    if launch.processes == 1 or not any(is_batch_norm):
        return aligner
    is_split = len(set(aligner.layout.spec.widths)) > 1
    if launch.device.type == "cuda" and not is_split:
        return cast(Aligner, nn.SyncBatchNorm.convert_sync_batchnorm(aligner))

    # on a CPU or with micro-batches the statistics stay those of each process
    where = "with subjects of different widths" if is_split else "on a CPU"
    console.warn(
        f"{aligner.layout.backbone['kind']} normalises by batch, and {where} each of "
        f"the {launch.processes} processes does so by its own share: one process would "
        "give other weights"
    )
    return aligner
