"""Losses: how far predictions are from their targets, as scalars that training lowers."""

from dataclasses import dataclass

from brainhive_cli.core.mixing import Mixing


@dataclass(frozen=True)
class LossContext:
    """What a loss knows of the training step, apart from predictions and targets.

    Attributes:
        mixing: How the signals of the whole batch, over all processes, were mixed; None if they were not.
        step: Steps of the training that are done.
        epoch: Epochs of the training that are done.
        epochs: Epochs of the whole training.
    """

    mixing: Mixing | None = None
    step: int = 0
    epoch: int = 0
    epochs: int = 1
