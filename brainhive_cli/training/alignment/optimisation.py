"""Optimisation, stage by stage: AdamW, schedules, the moving average and the kept epoch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import ConfigDict, Field, with_config
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel
from typing_extensions import TypedDict

from brainhive_cli.core import documents, weights
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.weights import ANEW, Checkpoint
from brainhive_cli.training.alignment.initialisation import load_start, modules_of_subjects
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.objective import Objective
from brainhive_cli.training.alignment.settings import Stage, Train

Content = dict[str, Any]
"""What a checkpoint holds."""
Tensors = tuple[Tensor, ...] | list[Tensor]
Count = Annotated[int, Field(ge=0)]
Weights = dict[str, Tensor]
HOLDS_TENSORS = ConfigDict(arbitrary_types_allowed=True)
"""Lets pydantic check dataclasses whose fields are tensors."""


class Learner:
    """AdamW with a schedule and clipped gradients, for one stage of a training.

    `result` is the aligner that has been learned, `losses` are the losses with what they have learned: the
    moving averages where there are any.

    Frozen parts must not require gradients. An epoch has `steps` steps; the stage ends at the epoch `stop` of
    the whole training. `anchors` are the weights that `train.start_pull` pulls parameters of the aligner to.

    Source: Li, Grandvalet and Davoine 2018 (arXiv 1802.01483) for L2-SP; the pull is
    decoupled from the gradient, as AdamW's weight decay is.
    """

    def __init__(
        self,
        aligner: Aligner,
        objective: nn.Module,
        train: Train,
        stage: Stage,
        steps: int,
        stop: int = 0,
        anchors: Mapping[str, Tensor] | None = None,
    ) -> None:
        # the losses learn too, so one optimizer sees both modules
        self.model, self.grad_norm = nn.ModuleList([objective, aligner]), train.grad_norm
        self.frozen, self.stop = tuple(stage.freeze), stop
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            _groups(self.parameters, self.model, train, stage.lr), stage.lr, betas=train.betas, fused=True
        )
        self.peak_lr: float = self.optimizer.param_groups[0]["lr"]
        self.schedule = schedule_of(self.optimizer, stage, steps)

        # parameters of the stage that are pulled, and the weights that each is pulled to
        self.start_pull, self.anchors = train.start_pull, dict(anchors or {})
        self.pulled = {
            name: parameter
            for name, parameter in aligner.named_parameters()
            if name in self.anchors and parameter.requires_grad
        }

        # the average starts as a copy of the weights
        self.decay = train.ema
        self.average = AveragedModel(self.model, multi_avg_fn=self._average) if train.ema else None
        learned: Any = self.average.module if self.average else self.model
        self.losses: nn.Module = learned[0]
        self.result: Aligner = learned[1]

    def train(self) -> None:
        """Bring all into training mode, and what is frozen into evaluation mode."""
        # frozen batch normalisation and dropout must not move either
        self.model.train()
        for name, module in self.model[1].named_modules():
            if is_below(name, self.frozen):
                module.eval()

    def step(self) -> None:
        """Change the weights by the gradients, and forget the gradients."""
        # clip, step and forget the gradients
        if self.grad_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.grad_norm)
        share_of_peak = self.optimizer.param_groups[0]["lr"] / self.peak_lr
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)

        # pull the weights back to those of the start
        if self.pulled:
            anchors = [self.anchors[name] for name in self.pulled]
            with torch.no_grad():
                torch._foreach_lerp_([*self.pulled.values()], anchors, share_of_peak * self.start_pull)

        # the average follows each step
        if self.average is not None:
            self.average.update_parameters(self.model)

    def state_dict(self) -> Content:
        """Return all that an exact continuation needs."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        return state | ({"anchors": self.anchors} if self.anchors else {})

    def load_state_dict(self, state: Content) -> None:
        """Continue from a `state_dict`."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        for name, anchor in self.anchors.items():
            anchor.copy_(state["anchors"][name])

    def _average(self, averaged: Tensors, current: Tensors, _: Tensor | int) -> None:
        """Move averages towards weights; faster in the first steps, so that the start is soon forgotten.

        Source: the ramp (1 + n) / (10 + n) is that of TensorFlow's ExponentialMovingAverage.
        """
        count = self.schedule.last_epoch  # steps that are done
        decay = min(self.decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def _parts(self) -> Content:
        parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        return parts | ({"average": self.average} if self.average else {})


def _groups(parameters: Sequence[Tensor], model: nn.ModuleList, train: Train, lr: float) -> list[Content]:
    """Group parameters by the weight decay and the learning rate that act on them.

    Source: `get_decay_parameter_names` of transformers' Trainer: scales of batch normalisation decay there;
    and the trainings of MindEye1 and MindEye2, which exempt every name that holds `bias`.
    """
    # parameters without weight decay
    exempt = set()
    if train.decay == "not_biases":
        exempt = {p for name, p in model.named_parameters() if "bias" in name}
    elif train.decay == "weights":
        norms = [part for part in model.modules() if isinstance(part, nn.LayerNorm)]
        exempt = {parameter for norm in norms for parameter in norm.parameters()}
        exempt |= {p for name, p in model.named_parameters() if "bias" in name.rpartition(".")[2]}

    # factors of the learning rate; those of losses and unnamed parts are 1
    factor_of: dict[Tensor, float] = {
        parameter: factor
        for part, factor in sorted(train.lr_of.items())  # a submodule's comes after its module's
        for name, parameter in model[1].named_parameters()
        if is_below(name, [part])
    }

    # one group for each pair of decay and factor, in a fixed order
    groups: dict[tuple[bool, float], list[Tensor]] = {}
    for parameter in parameters:
        groups.setdefault((parameter in exempt, factor_of.get(parameter, 1.0)), []).append(parameter)
    return [
        {"params": groups[key], "weight_decay": 0.0 if key[0] else train.weight_decay, "lr": lr * key[1]}
        for key in sorted(groups)
    ]


def is_below(name: str, prefixes: Iterable[str]) -> bool:
    """Whether a module or parameter is one of those named, or part of one."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def schedule_of(optimizer: torch.optim.Optimizer, stage: Stage, steps: int) -> LRScheduler:
    """Make the schedule of a stage; one-cycle is torch's, without its change of the optimizer's betas."""
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
            cycle_momentum=False,
        )

    # a linear rise, then a constant rate or half a cosine
    warmup, is_constant = round(stage.warmup * steps), stage.schedule == "constant"

    def share_of_lr(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return (
            1.0 if is_constant else 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
        )

    return LambdaLR(optimizer, share_of_lr)


class Stages:
    """The stages of a training, whose epochs have `steps` steps, one after another.

    Parameters that do not require gradients, as a prior's, never change. `starts` is what stages start from,
    by the stage's number; `is_started` says that the aligner has the weights of another one already.

    Raises:
        RecipeError: if a stage freezes an unknown part, or everything, or nothing starts that is pulled to.
    """

    def __init__(
        self,
        aligner: Aligner,
        objective: Objective,
        train: Train,
        steps: int,
        starts: Mapping[int, Mapping[str, Path]],
        is_started: bool = False,
    ) -> None:
        self.aligner, self.objective, self.train, self.steps = aligner, objective, train, steps
        self.all, self.starts = train.all_stages(steps), starts
        self.stops = list(accumulate(stage.epochs for stage in self.all))
        self.anchors: Weights = {}
        self.first_start = 0 if is_started else min(starts, default=None)
        if train.start_pull and self.first_start is None:
            raise RecipeError(
                f"train.start_pull is {train.start_pull:g}, and no stage starts from other weights",
                "a start, or leave it out",
            )
        self.learnable = [
            name for name, parameter in self.aligner.named_parameters() if parameter.requires_grad
        ]
        for number, stage in enumerate(self.all):
            self._check(number, stage)

    def enter(self, epoch: int, saved: Content | None = None) -> Learner:
        """Make the learner of the stage that an epoch is in; it continues from the saved state, if any."""
        # find the stage by the epoch
        number = next(index for index, stop in enumerate(self.stops) if epoch < stop)
        stage = self.all[number]

        # load the weights that the stage starts from, but keep parameters that never learn
        if saved is None and number in self.starts:
            fixed = {
                k: p.detach().clone() for k, p in self.aligner.named_parameters() if k not in self.learnable
            }
            for part, path in self.starts[number].items():
                load_start(self.aligner, path, part)
            self.aligner.load_state_dict(fixed, strict=False)
            self.objective.continue_from(self.aligner.losses)

        # remember the weights of the first start, but of no one subject's modules: a new subject's are drawn
        is_pulled = self.train.start_pull and self.first_start is not None and number >= self.first_start
        if is_pulled and not self.anchors:
            parameters = dict(self.aligner.named_parameters())
            of_subjects = modules_of_subjects(self.aligner)
            shared = [name for name in self.learnable if name not in of_subjects]
            self.anchors = {name: parameters[name].detach().clone() for name in shared}

        # freeze the parts of this stage only
        for name, parameter in self.aligner.named_parameters():
            if name in self.learnable:
                parameter.requires_grad_(not is_below(name, stage.freeze))
        stop = self.stops[number]
        learner = Learner(self.aligner, self.objective, self.train, stage, self.steps, stop, self.anchors)
        if saved is not None:
            with weights.reading(f"the checkpoint of epoch {epoch}", ANEW, BrainhiveError):
                learner.load_state_dict(saved)
        return learner

    def _check(self, number: int, stage: Stage) -> None:
        # every named part must exist in the model
        names = [name for name, _ in self.aligner.named_modules() if name]
        started = [part for part in self.starts.get(number, ()) if part]
        for what, parts in (
            (f"train.stages[{number}] freezes", stage.freeze),
            (f"train.stages[{number}] starts", started),
            ("train.lr_of names", self.train.lr_of),
        ):
            if unknown := [part for part in parts if part not in names]:
                top = ", ".join(name for name in names if name.count(".") < 2)
                raise RecipeError(f"{what} {unknown[0]!r}", f"there are: {top}")

        # something must remain to be learned
        if all(is_below(name, stage.freeze) for name in self.learnable):
            raise RecipeError(f"train.stages[{number}] freezes all that could learn", "freeze less")


@with_config(HOLDS_TENSORS)
class Kept(TypedDict):
    """The epoch that is kept: its number, score, weights (the losses' too) and validation ranks."""

    epoch: Count
    score: float | None
    weights: Weights
    losses: Weights
    ranks: Tensor


@dataclass
class State:
    """Progress of the training of a cell.

    Attributes:
        epoch: Epochs that are done.
        step: Steps of the next one that are done; `loss` is the sum of their losses.
        best: Highest validation top-1 so far, and the epoch that reached it last (0: none yet).
        kept: The epoch that is kept.
        feedback: State of the choice of alternatives, where they are chosen by feedback.
    """

    __pydantic_config__: ClassVar[ConfigDict] = HOLDS_TENSORS

    epoch: Count = 0
    step: Count = 0
    loss: Tensor | float = 0.0
    best: tuple[float, Count] = (0.0, 0)
    kept: Kept | None = None
    feedback: Weights | None = None

    @classmethod
    def load(cls, checkpoint: Checkpoint, launch: Launch) -> tuple[Self, Content | None]:
        """Read a checkpoint, where there is one: how far the cell is, and the state of its learner.

        Raises:
            BrainhiveError: if it is whole, but no cell's.
        """
        # the learner checks its own part of the checkpoint when it loads it
        saved = checkpoint.load(launch)
        if saved is None:
            return cls(), None
        learner = documents.check(saved.pop("learner", None), f"{checkpoint.path}: learner", dict, ANEW)
        return documents.check(saved, str(checkpoint.path), cls, ANEW), learner

    def content(self, learner: Learner) -> Content:
        """Return a checkpoint, as `load` reads it."""
        return {**vars(self), "learner": learner.state_dict()}

    def count_epoch(
        self, learner: Learner, ranks: Tensor, validated: float | None, score: float | None
    ) -> None:
        """Count an epoch; keep its weights and validation ranks if none before had a better score.

        Without a score the last epoch is kept. `validated` is validation top-1.
        """
        # begin the next epoch
        self.epoch, self.step, self.loss = self.epoch + 1, 0, 0.0
        if validated is not None and validated >= self.best[0]:
            self.best = (validated, self.epoch)

        # a later epoch of equal score replaces the earlier one
        if self.kept is None or score is None or score >= (self.kept["score"] or 0.0):
            weights, losses = (
                {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
                for module in (learner.result, learner.losses)
            )
            self.kept = Kept(epoch=self.epoch, score=score, weights=weights, losses=losses, ranks=ranks)
