"""What learns in a prior: optimiser, running average, and the checkpoint of both."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from brainhive_cli.core import weights
from brainhive_cli.core.checkpoints import ANEW
from brainhive_cli.core.errors import BrainhiveError, DeviceError, MissingExtra
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.training.prior.recipe import Train

LAST = "last"
"""The newest checkpoint."""
RECENT = 100
"""Steps whose mean loss is logged."""


class Learner:
    """The parts of a prior (on its device) that are not `frozen`, their optimiser, average and step."""

    def __init__(self, prior: Any, frozen: Sequence[str], train: Train) -> None:
        self.prior, self.grad_norm = prior, train.grad_norm
        self.parameters = trainable(prior, frozen)
        self.optimizer = _optimizer(self.parameters, train)
        self.average = EMAModel(self.parameters, train.ema) if train.ema else None
        self.step = 0
        self.norm = torch.tensor(0.0)
        self.losses: deque[torch.Tensor] = deque(maxlen=RECENT * train.accumulate)  # of backward passes

    def update(self) -> None:
        """Take one step along the gradients, keep their norm, and set them to None."""
        self.norm = nn.utils.clip_grad_norm_(self.parameters, self.grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.step(self.parameters)
        self.step += 1

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Replace the weights by their running average, if there is one, for a while."""
        if self.average is None:
            yield
            return
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)
        try:
            yield
        finally:
            self.average.restore(self.parameters)

    def save(self, folder: RunFolder, **others: Any) -> None:
        """Write a checkpoint, together with other values to restore."""
        content = {
            "step": self.step,
            "prior": self.prior.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "losses": torch.stack([*self.losses]).tolist() if self.losses else [],
            "others": others,
        }
        folder.checkpoint(LAST).save(content)

    def resume(self, folder: RunFolder, launch: Launch) -> dict[str, Any] | None:
        """Restore the newest checkpoint, if there is one; return the other values that were saved."""
        checkpoint = folder.checkpoint(LAST)
        saved = checkpoint.load(launch, self.parameters[0].device)
        if saved is None:
            return None
        with weights.reading(checkpoint.path, ANEW, BrainhiveError):
            self.prior.load_state_dict(saved.pop("prior"))  # so that the device holds nothing twice
            self.optimizer.load_state_dict(saved.pop("optimizer"))
            average = saved.pop("average")
            if self.average:
                self.average.load_state_dict(average)
            losses = saved["losses"]  # so that the next mean is of as many steps as without an interruption
            self.losses.extend(torch.tensor(losses, device=self.parameters[0].device))
            self.step, others = int(saved["step"]), dict(saved["others"])
        return others


def trainable(prior: Any, frozen: Sequence[str]) -> list[nn.Parameter]:
    """Freeze child modules of a prior by name, and list the parameters of the others.

    Raises:
        BrainhiveError: if a name is unknown, or nothing is left to train.
    """
    known = [name for name, _ in prior.named_children()]
    if set(frozen) - set(known) or set(frozen) == set(known):
        raise BrainhiveError(
            f"freeze: {', '.join(frozen) or 'nothing'} leaves nothing known to train",
            f"parts: {', '.join(known)}",
        )
    for part in frozen:
        prior.get_submodule(part).requires_grad_(False)
    return [parameter for parameter in prior.parameters() if parameter.requires_grad]


def _optimizer(parameters: list[nn.Parameter], train: Train) -> torch.optim.Optimizer:
    knobs: Any = {"lr": train.lr, "betas": train.betas, "weight_decay": train.weight_decay}
    if train.optimizer == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **knobs)
    kind: type[torch.optim.Optimizer] = adamw8bit()
    if parameters[0].device.type != "cuda":
        raise DeviceError("adamw8bit runs on CUDA devices only", "train.optimizer=adamw")
    return kind(parameters, **knobs)


def adamw8bit() -> Any:
    """Import the optimiser that keeps its averages in 8 bits; MissingExtra if it is not installed."""
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise MissingExtra(
            "train.optimizer=adamw8bit needs bitsandbytes",
            "pip install 'brainhive[adamw8bit]', or train.optimizer=adamw",
        ) from error
    return AdamW8bit
