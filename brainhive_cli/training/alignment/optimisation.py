"""What turns gradients into weights: AdamW, its schedule, clipping, and the moving average."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel

from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.settings import Stage, Train

Tensors = tuple[Tensor, ...] | list[Tensor]


class Learner:
    """AdamW with a schedule and clipped gradients, for one stage of a training.

    Frozen parts must not require gradients. An epoch has `steps` steps; the stage ends at the epoch `stop` of
    the whole training.
    """

    def __init__(
        self, aligner: Aligner, objective: nn.Module, train: Train, stage: Stage, steps: int, stop: int = 0
    ) -> None:
        self.model, self.grad_norm = nn.ModuleList([objective, aligner]), train.grad_norm
        self.frozen, self.stop = tuple(stage.freeze), stop
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            _groups(self.parameters, self.model, train), stage.lr, betas=train.betas, fused=True
        )
        self.schedule = schedule_of(self.optimizer, stage, steps)
        self.decay = train.ema
        self.average = AveragedModel(self.model, multi_avg_fn=self._average) if train.ema else None

    def train(self) -> None:
        """Bring all into training mode, and what is frozen into evaluation mode."""
        self.model.train()
        for name, module in self.model[1].named_modules():
            if is_below(name, self.frozen):
                module.eval()

    def step(self) -> None:
        """Change the weights by the gradients, and forget the gradients."""
        if self.grad_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)

    @property
    def result(self) -> Aligner:
        """The aligner that has been learned: the moving average where there is one."""
        return cast(Aligner, self._learned[1])

    @property
    def losses(self) -> nn.Module:
        """The losses with what they have learned, averaged as the aligner is."""
        return self._learned[0]

    @property
    def _learned(self) -> nn.ModuleList:
        return cast(nn.ModuleList, self.average.module) if self.average else self.model

    def state_dict(self) -> dict[str, Any]:
        """Return all that an exact continuation needs."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _average(self, averaged: Tensors, current: Tensors, _: Tensor | int) -> None:
        """Move averages towards weights; faster in the first steps, so that the start is soon forgotten.

        Source: the ramp (1 + n) / (10 + n) is that of TensorFlow's ExponentialMovingAverage.
        """
        count = self.schedule.last_epoch  # steps that are done
        decay = min(self.decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        return parts | ({"average": self.average} if self.average else {})


def _groups(parameters: Sequence[Tensor], model: nn.Module, train: Train) -> list[dict[str, Any]]:
    """Group parameters by the weight decay that acts on them.

    Source: `get_decay_parameter_names` of transformers' Trainer: scales of batch normalisation decay there;
    and the trainings of MindEye1 and MindEye2, which exempt every name that holds `bias`.
    """
    exempt: set[Tensor] = set()
    if train.decay == "not_biases":
        exempt = {p for name, p in model.named_parameters() if "bias" in name}
    elif train.decay == "weights":
        norms = [part for part in model.modules() if isinstance(part, nn.LayerNorm)]
        exempt = {parameter for norm in norms for parameter in norm.parameters()}
        exempt |= {p for name, p in model.named_parameters() if "bias" in name.rpartition(".")[2]}
    groups = (
        {"params": [p for p in parameters if p not in exempt], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p in exempt], "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]


def is_below(name: str, prefixes: Iterable[str]) -> bool:
    """Whether a module or parameter is one of those named, or part of one."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def schedule_of(optimizer: torch.optim.Optimizer, stage: Stage, steps: int) -> LRScheduler:
    """Make the schedule of a stage; one-cycle is torch's, without its change of the optimizer's betas."""
    total = stage.epochs * steps
    if stage.schedule == "one_cycle":
        share = 0.3 if stage.warmup_epochs is None else stage.warmup / stage.epochs
        return OneCycleLR(
            optimizer,
            stage.lr,
            total_steps=total,
            pct_start=share,
            div_factor=stage.start_div,
            final_div_factor=stage.final_div,
            cycle_momentum=False,
        )
    warmup = round(stage.warmup * steps)
    is_constant = stage.schedule == "constant"
    return LambdaLR(optimizer, partial(_share_of_lr, warmup=warmup, steps=total, is_constant=is_constant))


def _share_of_lr(step: int, warmup: int, steps: int, is_constant: bool) -> float:
    """Rise linearly, then stay, or fall as a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 if is_constant else 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
