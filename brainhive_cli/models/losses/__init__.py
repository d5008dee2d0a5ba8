"""Losses: how far predictions are from their targets, as scalars that training lowers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from brainhive_cli.models.mixing import Mixing


@dataclass(frozen=True)
class LossContext:
    """What a loss knows of the training step, apart from predictions and targets.

    Attributes:
        mixing: How the signals of the whole batch, over all processes, were mixed; None if they were not.
        step: Steps of the training that are done.
        epoch: Epochs of the training that are done.
        epochs: Epochs of the whole training.
        targets: All targets of the batch, [B, *shape] by name, for losses that compare with several.
        steps: Steps of an epoch.
    """

    mixing: Mixing | None = None
    step: int = 0
    epoch: int = 0
    epochs: int = 1
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    steps: int = 1

    @property
    def moment(self) -> float:
        """Epochs that are done, with the part of this one."""
        return self.epoch + self.step % self.steps / self.steps
