"""What turns gradients into weights: AdamW, its schedule, clipping, and the moving average."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from brainhive_cli.alignment.model import Aligner
from brainhive_cli.alignment.settings import Train
from brainhive_cli.core.errors import RecipeError

Tensors = tuple[Tensor, ...] | list[Tensor]


class Learner:
    """AdamW with warm-up, cosine and clipped gradients; a moving average of the weights where asked for.

    Args:
        aligner: What learns.
        losses: What it learns by; they may have parameters of their own.
        train: How.
        steps: Steps of the whole training.

    Raises:
        RecipeError: if the warm-up is longer than the training.
    """

    def __init__(self, aligner: Aligner, losses: nn.Module, train: Train, steps: int) -> None:
        if train.warmup_steps > steps:
            raise RecipeError(
                f"train.warmup_steps is {train.warmup_steps}, but the training of a cell has {steps} steps",
                f"train.warmup_steps={steps // 10}, more train.epochs or a smaller train.batch_size",
            )
        self.model, self.grad_norm = nn.ModuleList([losses, aligner]), train.grad_norm
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            _groups(self.parameters, self.model, train), train.lr, betas=train.betas, fused=True
        )
        share = partial(_share_of_lr, warmup=train.warmup_steps, steps=steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, share)
        self.decay = train.ema
        self.average = AveragedModel(self.model, multi_avg_fn=self._average) if train.ema else None

    def step(self) -> None:
        """Change the weights by the gradients, and forget the gradients."""
        nn.utils.clip_grad_norm_(self.parameters, self.grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)

    @property
    def steps(self) -> int:
        """Steps that are done."""
        return int(self.schedule.last_epoch)

    @property
    def result(self) -> Aligner:
        """The aligner that has been learned: the moving average where there is one."""
        return cast(Aligner, self._learned[1])

    @property
    def losses(self) -> nn.Module:
        """The losses with what they learned, averaged as the aligner is."""
        return self._learned[0]

    @property
    def _learned(self) -> nn.ModuleList:
        return self.model if self.average is None else cast(nn.ModuleList, self.average.module)

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
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"model": self.model, "average": self.average}
        parts |= {"optimizer": self.optimizer, "schedule": self.schedule}
        return {name: part for name, part in parts.items() if part is not None}


def _groups(parameters: Sequence[Tensor], model: nn.Module, train: Train) -> list[dict[str, Any]]:
    """Group parameters by the weight decay that acts on them.

    Source: `get_decay_parameter_names` of transformers' Trainer: scales of batch normalisation decay there.
    """
    exempt: set[Tensor] = set()
    if train.decay == "weights":
        norms = [part for part in model.modules() if isinstance(part, nn.LayerNorm)]
        exempt = {parameter for norm in norms for parameter in norm.parameters()}
        exempt |= {
            p
            for part in model.modules()
            for name, p in part.named_parameters(recurse=False)
            if "bias" in name
        }
    groups = (
        {"params": [p for p in parameters if p not in exempt], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p in exempt], "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]


def _share_of_lr(step: int, warmup: int, steps: int) -> float:
    """Rise linearly, then fall as a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
