"""What turns gradients into weights: AdamW, its schedule, clipping, and the moving average."""

import math
from collections.abc import Iterable, Sequence
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
        loss: What it learns by; it may have parameters of its own.
        train: How.
        steps: Steps of the whole training.

    Raises:
        RecipeError: if the warm-up is longer than the training.
    """

    def __init__(self, aligner: Aligner, loss: nn.Module, train: Train, steps: int) -> None:
        if train.warmup_steps > steps:
            raise RecipeError(
                f"train.warmup_steps is {train.warmup_steps}, but the training of a cell has {steps} steps",
                f"train.warmup_steps={steps // 10}, more train.epochs or a smaller train.batch_size",
            )
        self.aligner, self.loss, self.grad_norm = aligner, loss, train.grad_norm
        self.parameters = [p for p in (*aligner.parameters(), *loss.parameters()) if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            _groups(self.parameters, (aligner, loss), train), train.lr, betas=train.betas, fused=True
        )
        share = partial(_share_of_lr, warmup=train.warmup_steps, steps=steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, share)
        self.decay = train.ema
        self.average = AveragedModel(aligner, multi_avg_fn=self._average) if train.ema else None

    def step(self) -> None:
        """Change the weights by the gradients, and forget the gradients."""
        nn.utils.clip_grad_norm_(self.parameters, self.grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.aligner)

    @property
    def result(self) -> Aligner:
        """What has been learned: the moving average where there is one."""
        return self.aligner if self.average is None else cast(Aligner, self.average.module)

    def state_dict(self) -> dict[str, Any]:
        """Return all that going on exactly as before takes."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _average(self, averaged: Tensors, current: Tensors, _: Tensor | int) -> None:
        """Move averages towards weights; faster in the first steps, so that the start is soon forgotten.

        Source: the ramp (1 + n) / (10 + n) is that of TensorFlow's ExponentialMovingAverage.
        """
        count = self.schedule.last_epoch  # steps that are done
        torch._foreach_lerp_(averaged, current, 1 - min(self.decay, (1 + count) / (10 + count)))

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"aligner": self.aligner, "loss": self.loss, "average": self.average}
        parts |= {"optimizer": self.optimizer, "schedule": self.schedule}
        return {name: part for name, part in parts.items() if part is not None}


def _groups(parameters: Sequence[Tensor], modules: Iterable[nn.Module], train: Train) -> list[dict[str, Any]]:
    """Group parameters by the weight decay that acts on them.

    Source: `get_decay_parameter_names` of transformers' Trainer: scales of batch normalisation decay there.
    """
    exempt: set[Tensor] = set()
    if train.decay == "weights":
        parts = [part for module in modules for part in module.modules()]
        norms = [part for part in parts if isinstance(part, nn.LayerNorm)]
        exempt = {parameter for norm in norms for parameter in norm.parameters()}
        exempt |= {p for part in parts for name, p in part.named_parameters(recurse=False) if "bias" in name}
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
