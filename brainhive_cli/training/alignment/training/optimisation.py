"""Optimisation, stage by stage: AdamW, schedules, the moving average and the selected
epoch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel

from brainhive_cli.core import weights
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.models.adamw import AdamW
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.stages import Stage, Train
from brainhive_cli.training.alignment.training.initialisation import (
    load_start,
    modules_of_subjects,
)
from brainhive_cli.training.alignment.training.objective import Objective

StateContent = dict[str, Any]
"""What a checkpoint holds."""
Tensors = tuple[Tensor, ...] | list[Tensor]
PROGRESS = (
    "epoch steps_done loss_sum best_top1 best_epoch selected_epoch score weights ranks"
).split()
"""Attributes of a learner that a checkpoint holds as they are."""


class Learner:
    """AdamW with a schedule and clipped gradients, stage by stage, and the progress of
    a training.

    Parameters that do not require gradients at first, as a prior's, never change.
    `train.start_pull` pulls the others to the weights of the first start.

    Source: Li, Grandvalet and Davoine 2018 (arXiv 1802.01483) for L2-SP; the pull is
    decoupled from the gradient, as AdamW's weight decay is.

    Args:
        aligner: The model.
        objective: Its losses, which may learn too.
        train: Optimisation and stages.
        steps: Steps of an epoch.
        starts: Weights from which a stage starts, by the stage's number and the part of
            the model.
        is_started: Whether the model has the weights of another one already.
        feedback: What chooses alternatives, whose state a checkpoint holds too.

    Call `enter_stage` or `load_state_dict` before the first step.

    Attributes:
        learned: The losses and the model with what they have learned: the moving
            average where there is one.
        epoch: Epochs that are done.
        steps_done: Steps of the next one that are done; `loss_sum` is the sum of their
            losses.
        stop: Epoch at which the stage ends.
        best_top1: Highest validation top-1 so far.
        best_epoch: Epoch that reached it last; 0: none yet.
        selected_epoch: The epoch with the best score so far, counted from 1; without
            scores the last; 0 before the first.
        score: Of the selected epoch, as the `weights` of losses and model, and the
            validation `ranks` [N].

    Raises:
        RecipeError: if a stage freezes an unknown part, or everything, or nothing
            starts that is pulled to.
    """

    def __init__(
        self,
        aligner: Aligner,
        objective: Objective,
        train: Train,
        steps: int,
        starts: Mapping[int, Mapping[str, Path]] = MappingProxyType({}),
        is_started: bool = False,
        feedback: nn.Module | None = None,
    ) -> None:
        # the losses learn too, so one optimizer sees both modules
        self.aligner, self.objective = aligner, objective
        self.model = nn.ModuleList([objective, aligner])
        self.settings = train
        self.steps = steps
        self.starts = starts
        self.feedback = feedback
        self.stages = train.all_stages(steps)
        self.learnable = [
            name
            for name, parameter in aligner.named_parameters()
            if parameter.requires_grad
        ]

        # progress, as before the first step
        self.epoch = self.steps_done = self.best_epoch = self.selected_epoch = 0
        self.loss_sum: Tensor | float = 0.0
        self.best_top1 = self.score = 0.0
        self.weights: dict[str, Tensor] = {}
        self.ranks = torch.empty(0)

        # the weights that learned ones are pulled to are those of the first start
        self.anchors: dict[str, Tensor] = {}
        self.first_start = 0 if is_started else min(starts, default=None)
        if train.start_pull and self.first_start is None:
            raise RecipeError(
                f"train.start_pull is {train.start_pull:g}, and no stage starts "
                "from other weights",
                "a start, or leave it out",
            )
        for number, stage in enumerate(self.stages):
            self._check(number, stage)

    def _check(self, number: int, stage: Stage) -> None:
        # every named part must exist in the model
        names = [name for name, _ in self.aligner.named_modules() if name]
        started = [part for part in self.starts.get(number, ()) if part]
        for what, parts in (
            (f"train.stages[{number}] freezes", stage.freeze),
            (f"train.stages[{number}] starts", started),
            ("train.lr_of names", self.settings.lr_of),
        ):
            if unknown := [part for part in parts if part not in names]:
                top = ", ".join(name for name in names if name.count(".") < 2)
                raise RecipeError(f"{what} {unknown[0]!r}", f"there are: {top}")

        # something must remain to be learned
        if all(is_below(name, stage.freeze) for name in self.learnable):
            raise RecipeError(
                f"train.stages[{number}] freezes all that could learn", "freeze less"
            )

    def enter_stage(self, is_resumed: bool = False) -> None:
        """Make the optimizer of the stage that the epoch is in, from its start unless
        it is resumed.
        """
        # find the stage by the epoch
        aligner, train = self.aligner, self.settings
        stops = [*accumulate(stage.epochs for stage in self.stages)]
        number = next(index for index, stop in enumerate(stops) if self.epoch < stop)
        self.stop, stage = stops[number], self.stages[number]

        # load the weights that the stage starts from, but keep parameters that never
        # learn
        if not is_resumed and number in self.starts:
            fixed = {
                name: parameter.detach().clone()
                for name, parameter in aligner.named_parameters()
                if name not in self.learnable
            }
            for part, path in self.starts[number].items():
                load_start(aligner, path, part)
            aligner.load_state_dict(fixed, strict=False)
            self.objective.continue_from(aligner.losses)

        # remember the weights of the first start, but of no one subject's modules: a
        # new subject's are drawn
        parameters = dict(aligner.named_parameters())
        is_pulled = (
            train.start_pull
            and self.first_start is not None
            and number >= self.first_start
        )
        if is_pulled and not self.anchors:
            subject_modules = modules_of_subjects(aligner)
            shared = [name for name in self.learnable if name not in subject_modules]
            self.anchors = {name: parameters[name].detach().clone() for name in shared}

        # freeze the parts of this stage only
        self.frozen = stage.freeze
        for name in self.learnable:
            parameters[name].requires_grad_(not is_below(name, stage.freeze))
        self.pulled = {
            name: parameters[name]
            for name in self.anchors
            if parameters[name].requires_grad
        }

        # one optimizer for what learns in the stage
        self.parameters = [
            parameter
            for parameter in self.model.parameters()
            if parameter.requires_grad
        ]
        groups = _groups(self.parameters, self.model, train, stage.lr)
        self.optimizer = AdamW(groups, stage.lr, betas=train.betas, fused=True)
        self.peak_lr: float = self.optimizer.param_groups[0]["lr"]
        self.schedule = schedule_of(self.optimizer, stage, self.steps)

        # the average starts as a copy of the weights
        self.average = (
            AveragedModel(self.model, multi_avg_fn=self._average) if train.ema else None
        )
        self.learned: Any = self.model if self.average is None else self.average.module

    def train(self) -> None:
        """Bring all into training mode, and what is frozen into evaluation mode."""
        # frozen batch normalisation and dropout must not move either
        self.model.train()
        for name, module in self.aligner.named_modules():
            if is_below(name, self.frozen):
                module.eval()

    @property
    def result(self) -> Aligner:
        """The model that has been learned."""
        return self.learned[1]

    def step(self) -> None:
        """Change the weights by the gradients, and forget the gradients."""
        # clip, step and forget the gradients
        if self.settings.grad_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.grad_norm)
        share_of_peak = self.optimizer.param_groups[0]["lr"] / self.peak_lr
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)

        # pull the weights back to those of the start
        if self.pulled:
            anchors = [self.anchors[name] for name in self.pulled]
            pull = share_of_peak * self.settings.start_pull
            with torch.no_grad():
                torch._foreach_lerp_([*self.pulled.values()], anchors, pull)

        # the average follows each step
        if self.average is not None:
            self.average.update_parameters(self.model)

    def finish_epoch(
        self, ranks: Tensor, validated: float | None, score: float | None
    ) -> None:
        """Count an epoch; select its weights if none before had a better score.

        Args:
            ranks: Validation ranks [N].
            validated: Validation top-1.
            score: What selects the epoch; None selects every one, so that the last
                stays.
        """
        # begin the next epoch
        self.epoch += 1
        self.steps_done, self.loss_sum = 0, 0.0
        if validated is not None and validated >= self.best_top1:
            self.best_top1, self.best_epoch = validated, self.epoch

        # a later epoch of equal score replaces the earlier one
        if score is None or score >= self.score:
            self.selected_epoch = self.epoch
            self.score = score or 0.0
            self.ranks = ranks
            self.weights = _copy_weights(self.learned)

    def load_selected(self) -> Aligner:
        """Return the model with the weights of the selected epoch, in evaluation
        mode.
        """
        self.learned.load_state_dict(self.weights)
        self.result.losses = _copy_weights(self.learned[0])
        return self.result.eval()

    def state_dict(self) -> StateContent:
        """Return all that an exact continuation needs."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        return state | {name: getattr(self, name) for name in (*PROGRESS, "anchors")}

    def load_state_dict(
        self, state: StateContent, where: Path | str = "the checkpoint"
    ) -> None:
        """Continue from a `state_dict`.

        Args:
            state: What `state_dict` returned.
            where: What it was read from, for errors.

        Raises:
            BrainhiveError: if it is of something else.
        """
        with weights.reading(
            where,
            weights.RETRAIN_HINT,
            BrainhiveError,
            problem="is of another training",
        ):
            for name in PROGRESS:
                setattr(self, name, state[name])
            self.enter_stage(is_resumed=True)
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            for name, anchor in self.anchors.items():
                anchor.copy_(state["anchors"][name])

    def _average(self, averaged: Tensors, current: Tensors, _: Tensor | int) -> None:
        """Move averages towards weights; faster in the first steps, so that the start
        is soon forgotten.

        Source: the ramp (1 + n) / (10 + n) is that of TensorFlow's
        ExponentialMovingAverage.
        """
        count = self.schedule.last_epoch  # steps that are done
        decay = min(self.settings.ema, (1 + count) / (10 + count))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def _parts(self) -> StateContent:
        """List what has a state of its own in this stage."""
        parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }
        further = {"average": self.average, "feedback": self.feedback}
        return parts | {
            name: part for name, part in further.items() if part is not None
        }


def _copy_weights(module: nn.Module) -> dict[str, Tensor]:
    """Copy weights to the CPU."""
    return {
        name: value.detach().cpu().clone()
        for name, value in module.state_dict().items()
    }


def _groups(
    parameters: Sequence[Tensor], model: nn.ModuleList, train: Train, lr: float
) -> list[StateContent]:
    """Group parameters by the weight decay and the learning rate that act on them.

    Source: `get_decay_parameter_names` of transformers' Trainer: scales of batch
    normalisation decay there; and the trainings of MindEye1 and MindEye2, which exempt
    every name that holds `bias` but those of MindEye2's ridges.
    """
    # parameters without weight decay
    exempt = set()
    if train.decay == "not_biases":
        exempt = {
            parameter
            for name, parameter in model.named_parameters()
            if "bias" in name and ".ridge.linears." not in name
        }
    elif train.decay == "weights":
        norms = [part for part in model.modules() if isinstance(part, nn.LayerNorm)]
        exempt = {parameter for norm in norms for parameter in norm.parameters()}
        exempt |= {
            p
            for name, p in model.named_parameters()
            if "bias" in name.rpartition(".")[2]
        }

    # factors of the learning rate; those of losses and unnamed parts are 1
    factor_of: dict[Tensor, float] = {
        parameter: factor
        # a submodule's comes after its module's
        for part, factor in sorted(train.lr_of.items())
        for name, parameter in model[1].named_parameters()
        if is_below(name, [part])
    }

    # one group for each pair of decay and factor, in a fixed order
    groups: dict[tuple[bool, float], list[Tensor]] = {}
    for parameter in parameters:
        groups.setdefault(
            (parameter in exempt, factor_of.get(parameter, 1.0)), []
        ).append(parameter)
    return [
        {
            "params": groups[key],
            "weight_decay": 0.0 if key[0] else train.weight_decay,
            "lr": lr * key[1],
        }
        for key in sorted(groups)
    ]


def is_below(name: str, prefixes: Iterable[str]) -> bool:
    """Whether a module or parameter is one of those named, or part of one."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def schedule_of(
    optimizer: torch.optim.Optimizer, stage: Stage, steps: int
) -> LRScheduler:
    """Make the schedule of a stage; one-cycle is torch's, which cycles the first beta
    too.
    """
    # torch's schedule, with its default of 30 % for the rise
    total = stage.epochs * steps
    if stage.schedule == "one_cycle":
        share = 0.3 if stage.warmup_epochs is None else stage.warmup / stage.epochs
        return OneCycleLR(
            optimizer,
            [group["lr"] for group in optimizer.param_groups],
            total_steps=total,
            pct_start=share,
            final_div_factor=stage.final_div,
        )

    # a linear rise, then a constant rate or half a cosine
    warmup, is_constant = round(stage.warmup * steps), stage.schedule == "constant"

    def share_of_lr(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return (
            1.0
            if is_constant
            else 0.5
            * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
        )

    return LambdaLR(optimizer, share_of_lr)
