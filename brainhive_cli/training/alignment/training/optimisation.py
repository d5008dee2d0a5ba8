"""Optimisation of a model in stages."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel

from brainhive_cli.core.base import BrainhiveError, RecipeError
from brainhive_cli.core.runs import weights
from brainhive_cli.models import AdamW
from brainhive_cli.training.alignment import Aligner, Stage, Train
from brainhive_cli.training.alignment.training.initialisation import (
    list_subject_weights,
    load_start,
)
from brainhive_cli.training.alignment.training.objective import Objective

StateContent = dict[str, Any]
"""Values of a checkpoint, or of the log."""
TensorList = tuple[Tensor, ...] | list[Tensor]
STATE_ATTRIBUTES = (
    "epoch",
    "steps_done",
    "loss_sum",
    "best_top1",
    "best_epoch",
    "selected_epoch",
    "score",
    "weights",
    "ranks",
    "anchors",
)
"""Attributes of a learner that a checkpoint stores under their names."""


class Learner:
    """Optimizer, schedule and moving average of each stage, and the training progress.

    Parameters that do not require gradients at first, such as a prior's, never change.
    `train.start_pull` pulls the others to the weights of the first start, decoupled
    from the gradient like the weight decay of AdamW.

    Source: Li, Grandvalet and Davoine 2018 (arXiv 1802.01483) for L2-SP.

    Call `enter_stage` or `load_state_dict` before the first step.

    Args:
        aligner: The model.
        objective: Losses of the model, which may have parameters too.
        train: Settings of the optimisation and the stages.
        steps: Steps of an epoch.
        starts: File or folder of the weights that a module gets when a stage begins, by
            number of the stage, then by module.
        is_started: True if the model already has the weights of another model.
        feedback: Chooser of targets, whose state a checkpoint holds too.

    Attributes:
        scored_modules: The losses and the model, with averaged weights if `train.ema`
            is set.
        epoch: Number of finished epochs.
        steps_done: Number of finished steps in the current epoch.
        loss_sum: Sum of the losses of these steps.
        stage_end: Epoch at which the stage ends.
        best_top1: Highest validation top-1 so far.
        best_epoch: Last epoch with this top-1. 0 before the first.
        selected_epoch: Epoch with the best score so far, counted from 1, or the last
            epoch without scores. 0 before the first.
        score: Score of the selected epoch.
        weights: Weights of the losses and the model at the selected epoch.
        ranks: Validation ranks [N] at the selected epoch.

    Raises:
        RecipeError: if a stage freezes an unknown module or all modules, or if
            `start_pull` is set without a start.
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
        # the optimizer sees the parameters of the losses and of the model
        self.aligner = aligner
        self.objective = objective
        self.model = nn.ModuleList([objective, aligner])
        self.settings = train
        self.steps = steps
        self.starts = starts
        self.feedback = feedback
        self.stages = train.list_stages(steps)
        self.learnable = [
            name
            for name, parameter in aligner.named_parameters()
            if parameter.requires_grad
        ]

        # progress before the first step
        self.epoch = 0
        self.steps_done = 0
        self.loss_sum: Tensor | float = 0.0
        self.best_top1 = 0.0
        self.best_epoch = 0
        self.selected_epoch = 0
        self.score = 0.0
        self.weights: dict[str, Tensor] = {}
        self.ranks = torch.empty(0)

        # weights of the first start, to which learned weights are pulled
        self.anchors: dict[str, Tensor] = {}
        no_start = len(self.stages)
        self.first_start = 0 if is_started else min(starts, default=no_start)
        if train.start_pull and self.first_start == no_start:
            raise RecipeError(
                f"train.start_pull is {train.start_pull:g}, but no stage starts from "
                "other weights",
                "set train.start_from, or leave start_pull out",
            )
        for number, stage in enumerate(self.stages):
            self._check_stage(number, stage)

    def _check_stage(self, number: int, stage: Stage) -> None:
        """Raise an error if a stage names an unknown module or trains nothing."""
        module_names = [name for name, _ in self.aligner.named_modules() if name]
        started_modules = [name for name in self.starts.get(number, ()) if name]
        keys: dict[str, Iterable[str]] = {
            f"train.stages[{number}] freezes": stage.freeze,
            f"train.stages[{number}] starts": started_modules,
            "train.lr_of names": self.settings.lr_of,
        }
        for key, names in keys.items():
            for name in names:
                if name not in module_names:
                    top_names = [top for top in module_names if top.count(".") < 2]
                    raise RecipeError(
                        f"{key} {name!r}, which is no module of the model",
                        f"choose from {', '.join(top_names)}",
                    )

        if all(is_below(name, stage.freeze) for name in self.learnable):
            raise RecipeError(
                f"train.stages[{number}] freezes all parameters", "freeze less"
            )

    def enter_stage(self, is_resumed: bool = False) -> None:
        """Set up the optimizer, schedule and average of the stage of the epoch.

        Args:
            is_resumed: If True, the weights of the start of the stage are not loaded.
        """
        aligner = self.aligner
        train = self.settings

        # find the stage of the epoch
        stage_ends = list(accumulate(stage.epochs for stage in self.stages))
        number = bisect_right(stage_ends, self.epoch)
        stage = self.stages[number]
        self.stage_end = stage_ends[number]

        # load the weights of the stage's start, except parameters that never learn
        if not is_resumed and number in self.starts:
            fixed_parameters = {
                name: parameter.detach().clone()
                for name, parameter in aligner.named_parameters()
                if name not in self.learnable
            }
            for module_name, path in self.starts[number].items():
                load_start(aligner, path, module_name)
            aligner.load_state_dict(fixed_parameters, strict=False)
            self.objective.copy_matching(aligner.losses)

        # keep the weights of the first start, without modules of single subjects,
        # which are new for a new subject
        parameters = dict(aligner.named_parameters())
        is_pulled = train.start_pull and number >= self.first_start
        if is_pulled and not self.anchors:
            subject_weights = list_subject_weights(aligner)
            self.anchors = {
                name: parameters[name].detach().clone()
                for name in self.learnable
                if name not in subject_weights
            }

        # freeze the modules of this stage only
        self.frozen = stage.freeze
        for name in self.learnable:
            parameters[name].requires_grad_(not is_below(name, stage.freeze))
        self.pulled_parameters = {
            name: parameters[name]
            for name in self.anchors
            if parameters[name].requires_grad
        }

        # set up the optimizer and its schedule
        self.parameters = [
            parameter
            for parameter in self.model.parameters()
            if parameter.requires_grad
        ]
        groups = _group_parameters(self.parameters, self.model, train, stage.lr)
        self.optimizer = AdamW(groups, stage.lr, betas=train.betas, fused=True)
        self.peak_lr: float = self.optimizer.param_groups[0]["lr"]
        self.lr_scheduler = make_lr_scheduler(self.optimizer, stage, self.steps)

        # the moving average starts as a copy of the weights
        self.averaged_model: AveragedModel | None = None
        self.scored_modules: Any = self.model
        if train.ema:
            self.averaged_model = AveragedModel(
                self.model, multi_avg_fn=self._update_average
            )
            self.scored_modules = self.averaged_model.module

    def train(self) -> None:
        """Set training mode, but evaluation mode for frozen modules.

        Frozen batch statistics and dropout must not change either.
        """
        self.model.train()
        for name, module in self.aligner.named_modules():
            if is_below(name, self.frozen):
                module.eval()

    @property
    def scored_aligner(self) -> Aligner:
        """Model that is validated and kept, with averaged weights if there are any."""
        return self.scored_modules[1]

    @property
    def is_out_of_patience(self) -> bool:
        """True if validation top-1 has not risen for `train.patience` epochs."""
        if self.settings.patience is None or self.best_epoch == 0:
            return False
        return self.epoch - self.best_epoch >= self.settings.patience

    def step(self) -> None:
        """Update the weights with the gradients, and delete the gradients."""
        if self.settings.grad_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.grad_norm)
        share_of_peak = self.optimizer.param_groups[0]["lr"] / self.peak_lr
        self.optimizer.step()
        self.lr_scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)

        # pull the weights back to the weights of the start
        if self.pulled_parameters:
            anchors = [self.anchors[name] for name in self.pulled_parameters]
            pull = share_of_peak * self.settings.start_pull
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(self.pulled_parameters.values()), anchors, pull
                )
        if self.averaged_model is not None:
            self.averaged_model.update_parameters(self.model)

    def finish_epoch(
        self, ranks: Tensor, validation_top1: float | None, score: float | None
    ) -> None:
        """Count an epoch, and select its weights unless an earlier score is higher.

        Args:
            ranks: Validation ranks [N].
            validation_top1: Validation top-1, or None.
            score: Score that selects the epoch. None always selects it.
        """
        self.epoch += 1
        self.steps_done = 0
        self.loss_sum = 0.0
        if validation_top1 is not None and validation_top1 >= self.best_top1:
            self.best_top1 = validation_top1
            self.best_epoch = self.epoch

        # a later epoch of equal score replaces the earlier one
        if score is None or score >= self.score:
            self.selected_epoch = self.epoch
            self.score = score or 0.0
            self.ranks = ranks
            self.weights = _copy_weights(self.scored_modules)

    def load_selected(self) -> Aligner:
        """Return the model with the weights of the selected epoch.

        It is in evaluation mode.
        """
        self.scored_modules.load_state_dict(self.weights)
        self.scored_aligner.losses = _copy_weights(self.scored_modules[0])
        return self.scored_aligner.eval()

    def state_dict(self) -> StateContent:
        """Return the state from which training continues exactly."""
        state = {name: part.state_dict() for name, part in self._list_parts().items()}
        return state | {name: getattr(self, name) for name in STATE_ATTRIBUTES}

    def load_state_dict(
        self, state: StateContent, source: Path | str = "the checkpoint"
    ) -> None:
        """Continue from a state.

        Args:
            state: State as `state_dict` returns it.
            source: File of the state, for errors.

        Raises:
            BrainhiveError: if the state is of another training.
        """
        with weights.reading(
            source,
            weights.RETRAIN_HINT,
            BrainhiveError,
            problem="is of another training",
        ):
            for name in STATE_ATTRIBUTES:
                if name != "anchors":
                    setattr(self, name, state[name])
            self.enter_stage(is_resumed=True)
            for name, part in self._list_parts().items():
                part.load_state_dict(state[name])
            for name, anchor in self.anchors.items():
                anchor.copy_(state["anchors"][name])

    def _update_average(
        self, averages: TensorList, parameters: TensorList, _: Tensor | int
    ) -> None:
        """Move averages towards the weights, by more in the first steps.

        The decay is min(ema, (1 + n) / (10 + n)) after n steps.

        Source: TensorFlow's ExponentialMovingAverage.
        """
        n_steps = self.lr_scheduler.last_epoch
        decay = min(self.settings.ema, (1 + n_steps) / (10 + n_steps))
        torch._foreach_lerp_(averages, parameters, 1 - decay)

    def _list_parts(self) -> StateContent:
        """List the objects with a state of their own, by their name in a checkpoint."""
        named_parts: StateContent = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.lr_scheduler,
        }
        if self.averaged_model is not None:
            named_parts["average"] = self.averaged_model
        if self.feedback is not None:
            named_parts["feedback"] = self.feedback
        return named_parts


def _copy_weights(module: nn.Module) -> dict[str, Tensor]:
    """Copy the weights of a module to the CPU."""
    return {
        name: value.detach().cpu().clone()
        for name, value in module.state_dict().items()
    }


def _group_parameters(
    parameters: Sequence[Tensor], model: nn.ModuleList, train: Train, lr: float
) -> list[StateContent]:
    """Group parameters by weight decay and learning rate.

    Source: `get_decay_parameter_names` of transformers' Trainer, for decay "weights".
    Code of MindEye1 and MindEye2 for "not_biases": names with `bias` do not decay,
    except in the ridges of MindEye2.
    """
    without_decay = set[Tensor]()
    if train.decay == "not_biases":
        without_decay = {
            parameter
            for name, parameter in model.named_parameters()
            if "bias" in name and ".ridge.linears." not in name
        }
    elif train.decay == "weights":
        # batch normalisation decays in transformers' Trainer
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                without_decay.update(module.parameters())
        without_decay |= {
            parameter
            for name, parameter in model.named_parameters()
            if "bias" in name.rpartition(".")[2]
        }

    # factors of the learning rate, where a submodule overrides its module, and
    # model[1] is the model without its losses
    lr_factors: dict[Tensor, float] = {}
    for module_name, factor in sorted(train.lr_of.items()):
        for name, weight in model[1].named_parameters():
            if is_below(name, [module_name]):
                lr_factors[weight] = factor

    # one group for each pair of decay and factor, in a fixed order
    groups: dict[tuple[bool, float], list[Tensor]] = {}
    for learned_parameter in parameters:
        has_no_decay = learned_parameter in without_decay
        key = has_no_decay, lr_factors.get(learned_parameter, 1.0)
        groups.setdefault(key, []).append(learned_parameter)
    return [
        {
            "params": group,
            "weight_decay": 0.0 if has_no_decay else train.weight_decay,
            "lr": lr * factor,
        }
        for (has_no_decay, factor), group in sorted(groups.items())
    ]


def is_below(name: str, modules: Iterable[str]) -> bool:
    """Return True if a module or parameter is, or is part of, one of the modules."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def make_lr_scheduler(
    optimizer: torch.optim.Optimizer, stage: Stage, steps: int
) -> LRScheduler:
    """Make the learning-rate schedule of a stage.

    The one-cycle schedule of torch changes the first beta of the optimizer too. `steps`
    is the number of steps in an epoch.
    """
    total_steps = stage.epochs * steps
    if stage.schedule == "one_cycle":
        warmup_share = 0.3  # torch's default
        if stage.warmup_epochs is not None:
            warmup_share = stage.warmup / stage.epochs
        return OneCycleLR(
            optimizer,
            [group["lr"] for group in optimizer.param_groups],
            total_steps=total_steps,
            pct_start=warmup_share,
            final_div_factor=stage.final_div,
        )

    # a linear rise, then a constant rate or half a cosine
    warmup_steps = round(stage.warmup * steps)
    decay_steps = max(1, total_steps - warmup_steps)
    is_constant = stage.schedule == "constant"

    def compute_lr_factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        if is_constant:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / decay_steps))

    return LambdaLR(optimizer, compute_lr_factor)
